"""While a live migration runs: the migration as a record, aborting it, making it complete, and what else may happen.

Recorded from an oracle whose migrations last: ``--driver fake.FakeLiveMigrateDriver``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.conformance.case import LATEST, PERSONAS, Case, case

VERSIONS: Final = ("2.1", "2.22", "2.23", "2.24", "2.58", "2.59", "2.64", "2.65", "2.66", "2.79", "2.80", LATEST)
PATH: Final = "/servers/{moving}/migrations"
ONE: Final = f"{PATH}/{{migration:moving}}"


def cases() -> Iterator[Case]:
    for version in VERSIONS:
        yield case("running/list", "admin", version, "GET", PATH)
        yield case("running/show", "admin", version, "GET", ONE)
        yield case("running/list all", "admin", version, "GET", "/os-migrations?instance_uuid={moving}")
    for persona in PERSONAS:
        if persona != "admin":
            yield case("running/list", persona, "2.80", "GET", PATH)
            yield case("running/show", persona, "2.80", "GET", ONE)
            path = "/os-migrations?instance_uuid={moving}&project_id={project:member}"
            yield case("running/list all", persona, "2.80", "GET", path)
    for kind in ("uuid", "host", "status"):
        query = {"uuid": "", "host": "&host={host:moving}", "status": "&status=running"}[kind]
        path = f"/os-migrations?migration_type=live-migration&instance_uuid={{moving}}{query}"
        yield case(f"running/list by {kind}", "admin", "2.80", "GET", path)
    yield from ending()
    yield from meanwhile()


def ending() -> Iterator[Case]:
    force = {"force_complete": None}
    for version in VERSIONS:
        yield case("running/abort", "admin", version, "DELETE", ONE, watch="moving")
        yield case("running/force", "admin", version, "POST", f"{ONE}/action", force, watch="moving")
    for persona in PERSONAS:
        if persona != "admin":
            yield case("running/abort", persona, "2.80", "DELETE", ONE, watch="moving")
            yield case("running/force", persona, "2.80", "POST", f"{ONE}/action", force, watch="moving")
    yield case("running/abort by uuid", "admin", "2.80", "DELETE", f"{PATH}/{{migration_uuid:moving}}")
    yield case("running/show by uuid", "admin", "2.80", "GET", f"{PATH}/{{migration_uuid:moving}}")
    other = "/servers/{server}/migrations/{migration:moving}"
    yield case("running/show of another server", "admin", "2.80", "GET", other)
    yield case("running/abort of another server", "admin", "2.80", "DELETE", other)
    yield case("running/force of another server", "admin", "2.80", "POST", f"{other}/action", force)
    yield case("running/force with a value", "admin", "2.80", "POST", f"{ONE}/action", {"force_complete": True})


def meanwhile() -> Iterator[Case]:
    for version in ("2.1", "2.90", LATEST):
        for persona in ("member", "admin"):
            yield case("running/server", persona, version, "GET", "/servers/{moving}")
            yield case("running/log", persona, version, "GET", "/servers/{moving}/os-instance-actions")
    yield case("running/listed as migrating", "member", "2.1", "GET", "/servers?status=MIGRATING", needs=("moving",))
    yield case("running/listed as active", "member", "2.1", "GET", "/servers?status=ACTIVE&uuid={moving}")
    there = {"host": "{other_host:moving}", "block_migration": "auto"}
    actions: dict[str, object] = {
        "os-start": None,
        "os-stop": None,
        "pause": None,
        "unpause": None,
        "suspend": None,
        "resume": None,
        "reboot": {"type": "SOFT"},
        "os-getConsoleOutput": {},
        "os-migrateLive": there,
    }
    for action, value in actions.items():
        yield case(f"running/{action}", "admin", "2.90", "POST", "/servers/{moving}/action", {action: value})
    yield case("running/lock", "admin", "2.90", "POST", "/servers/{moving}/action", {"lock": None})
    yield case("running/os-stop", "member", "2.1", "POST", "/servers/{moving}/action", {"os-stop": None})
    yield case("running/rename", "member", "2.90", "PUT", "/servers/{moving}", {"server": {"name": "conf-renamed"}})
    yield case("running/metadata", "member", "2.1", "POST", "/servers/{moving}/metadata", {"metadata": {"a": "b"}})
    yield case("running/tag", "member", "2.26", "PUT", "/servers/{moving}/tags/x")
    yield case("running/delete", "member", "2.1", "DELETE", "/servers/{moving}")
