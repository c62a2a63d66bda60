"""Migrations as records: of one server, and of all."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, admin, case, reads

VERSIONS = ("2.1", "2.22", "2.23", "2.24", "2.58", "2.59", "2.65", "2.66", "2.79", "2.80", "2.96", LATEST)


def cases() -> Iterator[Case]:
    mine = "instance_uuid={migrated}"
    yield from reads(
        "migrations/list", f"/os-migrations?{mine}", versions=VERSIONS, personas=("admin",), needs=("migrated",)
    )
    for persona in PERSONAS:
        yield case("migrations/list by", persona, "2.80", "GET", f"/os-migrations?{mine}", needs=("migrated",))
        yield case("migrations/malformed by", persona, "2.80", "GET", "/os-migrations?zzz=1")
    for query in (
        "limit=1", "limit=0", "limit=x", "limit=-1", "limit=1&limit=1", "marker={migration_uuid:migrated}",
        "marker=zzz",
        "marker={unknown}", "status=completed", "status=zzz", "host={host:migrated}", "host=zzz",
        "source_compute=zzz", "destination_compute=zzz", "migration_type=live-migration", "migration_type=resize",
        "migration_type=zzz", "hidden=true", "hidden=0", "hidden=x", "user_id={user:admin}", "user_id=zzz",
        "project_id={project:member}", "project_id=zzz", "changes-since=2020-01-01T00:00:00Z",
        "changes-since=2036-01-01T00:00:00Z", "changes-since=x", "changes-before=2036-01-01T00:00:00Z",
        "changes-before=x", "changes-before=2020-01-01T00:00:00Z", "zzz=1",
        "changes-since=2036-01-01T00:00:00Z&changes-before=2020-01-01T00:00:00Z",
    ):  # fmt: skip
        for version in ("2.1", "2.23", "2.59", "2.66", "2.80"):
            yield case(
                f"migrations/list {query}",
                "admin",
                version,
                "GET",
                f"/os-migrations?{mine}&{query}",
                needs=("migrated",),
            )
    for query in ("instance_uuid=zzz", "instance_uuid={unknown}", "instance_uuid={server}"):
        for version in ("2.1", "2.59", "2.80"):
            yield case(f"migrations/of {query}", "admin", version, "GET", f"/os-migrations?{query}")
    for persona in ("reader", "manager", "other_manager", "admin"):
        for version in ("2.1", "2.59", "2.79", "2.80"):
            path = f"/os-migrations?{mine}&project_id={{project:{persona}}}"
            yield case("migrations/of the own project", persona, version, "GET", path, needs=("migrated",))
    yield from of_a_server()


def of_a_server() -> Iterator[Case]:
    path = "/servers/{migrated}/migrations"
    one = f"{path}/{{migration:migrated}}"
    force = {"force_complete": None}
    for version in VERSIONS:
        yield case("server-migrations/list over", "admin", version, "GET", path)
        yield case("server-migrations/show over", "admin", version, "GET", one)
        yield case("server-migrations/abort over", "admin", version, "DELETE", one)
        yield case("server-migrations/force over", "admin", version, "POST", f"{one}/action", force)
    for persona in PERSONAS:
        yield case("server-migrations/list by", persona, "2.80", "GET", path)
        yield case("server-migrations/show by", persona, "2.80", "GET", one)
        yield case("server-migrations/abort by", persona, "2.80", "DELETE", one)
        yield case("server-migrations/force by", persona, "2.80", "POST", f"{one}/action", force)
        yield case("server-migrations/list of unknown by", persona, "2.80", "GET", "/servers/{unknown}/migrations")
        yield case("server-migrations/malformed by", persona, "2.80", "POST", f"{one}/action", {"force_complete": 5})
    for what in ("99999", "zzz", "{unknown}", "{migration_uuid:migrated}", "-1", "0"):
        for version in ("2.24", "2.80"):
            yield case(f"server-migrations/show {what}", "admin", version, "GET", f"{path}/{what}")
            yield case(f"server-migrations/abort {what}", "admin", version, "DELETE", f"{path}/{what}")
            yield case(f"server-migrations/force {what}", "admin", version, "POST", f"{path}/{what}/action", force)
    for name, body in {
        "empty": {},
        "list": [],
        "unknown": {"zzz": None},
        "two": {"force_complete": None, "zzz": None},
        "value": {"force_complete": {}},
        "text": {"force_complete": "x"},
    }.items():
        yield case(f"server-migrations/force body {name}", "admin", "2.80", "POST", f"{one}/action", body)
    other = "/servers/{server}/migrations/{migration:migrated}"
    yield case("server-migrations/of another server", "admin", "2.80", "GET", other)
    yield case("server-migrations/abort of another server", "admin", "2.80", "DELETE", other)
    for query in ("zzz=1", "limit=1"):
        yield case(f"server-migrations/list {query}", "admin", "2.80", "GET", f"{path}?{query}")
    yield case("server-migrations/list none", "admin", "2.80", "GET", "/servers/{server}/migrations")
    yield case(
        "server-migrations/list none",
        "manager",
        "2.80",
        "GET",
        "/servers/{server}/migrations",
        before=(admin("GET", "/flavors"),),
    )
