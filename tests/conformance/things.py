"""Things that cases name: a key, flavors, and servers in each state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PUBLIC_KEY: Final = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKxKQbZ5nDVtRlC3QmtsyU7nDCRp5QnoTZqTGIrUbLQR conformance@example.org"
)

FLAVORS: Final[Mapping[str, Mapping[str, object]]] = {
    "flavor": {"id": "conf-small", "name": "conf.small", "ram": 512, "vcpus": 1, "disk": 1},
    "flavor_specs": {"id": "conf-specs", "name": "conf.specs", "ram": 512, "vcpus": 1, "disk": 1},
    "flavor_huge": {"id": "conf-huge", "name": "conf.huge", "ram": 40960, "vcpus": 1, "disk": 2_000_000},
    "flavor_many": {"id": "conf-many", "name": "conf.many", "ram": 512, "vcpus": 64, "disk": 1},
    "flavor_busy": {"id": "conf-busy", "name": "conf.busy", "ram": 512, "vcpus": 1, "disk": 1},
    "flavor_private": {
        "id": "conf-private",
        "name": "conf.private",
        "ram": 512,
        "vcpus": 1,
        "disk": 1,
        "os-flavor-access:is_public": False,
    },
}

EXTRA_SPECS: Final[Mapping[str, Mapping[str, str]]] = {
    "flavor_specs": {"hw:cpu_policy": "shared"},
    # Cumulet's simulated guests with it dirty memory faster than it can be copied: it does not end by itself.
    "flavor_busy": {"cumulet:dirty_rate_mib_s": "1000000"},
}

Action = Mapping[str, object]
# Servers of project A unless the kind says otherwise: what is done to a new one, by whom.
SERVERS: Final[Mapping[str, tuple[tuple[str, str, Action], ...]]] = {
    "server": (),
    "tagged": (),
    "keyed": (),
    "bare": (),
    "stopped": (("member", "2.1", {"os-stop": None}),),
    "paused": (("member", "2.1", {"pause": None}),),
    "suspended": (("member", "2.1", {"suspend": None}),),
    "locked": (("member", "2.73", {"lock": {"locked_reason": "for the tests"}}),),
    "locked_admin": (("admin", "2.1", {"lock": None}),),
    "error": (("admin", "2.1", {"os-resetState": {"state": "error"}}),),
    "migrated": (),
    "other": (),
    "admins": (),
    "on_host1": (),
    "moving": (),
}
