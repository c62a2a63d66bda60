"""Who may use what Compute does not offer yet: others get the refusal they will get then, and only these a 501.

Each entry is a line of `gaps.txt`; one that has become an operation is taken out of both.
"""

from __future__ import annotations

from cumulet.compute.rules import MEMBER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.web.policy import rule

_ACTIONS = {
    "addFixedIp": rule("os_compute_api:os-multinic:add", MEMBER),
    "removeFixedIp": rule("os_compute_api:os-multinic:remove", MEMBER),
}

_BELOW_SERVERS = {
    **{f"POST /servers/{{server_id}}/action {action}": name for action, name in _ACTIONS.items()},
    "POST /servers/{server_id}/os-volume_attachments": rule("os_compute_api:os-volumes-attachments:create", MEMBER),
}
COMPUTE.gap_rules.update({place: (name, server_in_sight) for place, name in _BELOW_SERVERS.items()})
