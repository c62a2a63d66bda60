"""Showing, updating and deleting one server."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, case, reads

VERSIONS = (
    "2.1", "2.2", "2.3", "2.8", "2.9", "2.15", "2.16", "2.18", "2.19", "2.25", "2.26", "2.46", "2.47", "2.62", "2.63",
    "2.68", "2.69", "2.70", "2.71", "2.72", "2.73", "2.75", "2.79", "2.89", "2.90", "2.95", "2.96", "2.97", "2.98",
    "2.99", "2.100", "2.101", "2.102", "2.103", LATEST,
)  # fmt: skip


def cases() -> Iterator[Case]:
    yield from reads("show/server", "/servers/{server}", versions=VERSIONS, personas=("admin", "member"))
    yield from reads(
        "show/full server",
        "/servers/{keyed}",
        versions=("2.1", "2.3", "2.47", "2.90", "2.98", LATEST),
        personas=("admin", "reader", "manager"),
    )
    for persona in PERSONAS:
        for version in ("2.1", "2.90"):
            yield case("show/server by", persona, version, "GET", "/servers/{server}")
            yield case("show/unknown by", persona, version, "GET", "/servers/{unknown}")
    for kind in (
        "stopped",
        "paused",
        "suspended",
        "locked",
        "locked_admin",
        "error",
        "migrated",
        "tagged",
        "bare",
        "other",
        "admins",
        "pair",
    ):
        for version in ("2.1", "2.73", LATEST):
            yield case(f"show/{kind}", "admin", version, "GET", f"/servers/{{{kind}}}")
        yield case(f"show/{kind}", "member", "2.96", "GET", f"/servers/{{{kind}}}")
    for persona in ("member", "admin"):
        yield case("show/gone", persona, "2.90", "GET", "/servers/{gone}")
    for name in ("zzz", "5", "x" * 300, "%00", "{server}x", "DETAIL"):
        yield case(f"show/id {name[:20]}", "member", "2.90", "GET", f"/servers/{name}")
    for version in ("2.1", "2.102", LATEST):
        yield case("show/query unknown", "member", version, "GET", "/servers/{server}?zzz=1")
    yield from updates()
    yield from deletes()


def updates() -> Iterator[Case]:
    path = "/servers/{server}"
    for version in (
        "2.1",
        "2.9",
        "2.18",
        "2.19",
        "2.26",
        "2.47",
        "2.63",
        "2.71",
        "2.73",
        "2.75",
        "2.90",
        "2.96",
        "2.98",
        "2.100",
        LATEST,
    ):
        yield case("update/name", "member", version, "PUT", path, {"server": {"name": "conf-renamed"}})
        yield case("update/description", "member", version, "PUT", path, {"server": {"description": "new"}})
    for persona in PERSONAS:
        if persona != "member":
            yield case("update/name", persona, "2.90", "PUT", path, {"server": {"name": "conf-renamed"}})
            yield case("update/unknown server", persona, "2.90", "PUT", "/servers/{unknown}", {"server": {"name": "x"}})
            yield case("update/malformed", persona, "2.90", "PUT", path, {"server": {"zzz": 1}})
    changes: dict[str, object] = {
        "nothing": {},
        "name empty": {"name": ""},
        "name null": {"name": None},
        "name long": {"name": "x" * 256},
        "name blanks": {"name": " "},
        "description null": {"description": None},
        "description empty": {"description": ""},
        "description long": {"description": "x" * 256},
        "address": {"accessIPv4": "192.0.2.7"},
        "address empty": {"accessIPv4": ""},
        "address null": {"accessIPv4": None},
        "address wrong": {"accessIPv4": "x"},
        "address six": {"accessIPv6": "2001:db8::7"},
        "disk config": {"OS-DCF:diskConfig": "AUTO"},
        "disk config zzz": {"OS-DCF:diskConfig": "zzz"},
        "hostname": {"hostname": "new-host"},
        "hostname dotted": {"hostname": "new.host"},
        "hostname null": {"hostname": None},
        "hostname wrong": {"hostname": "a b"},
        "metadata": {"metadata": {}},
        "flavor": {"flavorRef": "x"},
        "locked true": {"locked": True},
    }
    for name, change in changes.items():
        for version in ("2.1", "2.19", "2.90", "2.94"):
            yield case(f"update/{name}", "member", version, "PUT", path, {"server": change})
    yield case("update/text", "member", "2.90", "PUT", path, {"server": "x"})
    yield case("update/empty", "member", "2.90", "PUT", path, {})
    for kind in ("locked", "stopped", "error", "other"):
        yield case(f"update/{kind}", "member", "2.90", "PUT", f"/servers/{{{kind}}}", {"server": {"name": "x"}})


def deletes() -> Iterator[Case]:
    for persona in PERSONAS:
        for version in ("2.1", LATEST):
            yield case("delete/server", persona, version, "DELETE", "/servers/{server}", watch="server")
        yield case("delete/unknown", persona, "2.1", "DELETE", "/servers/{unknown}")
    for kind in ("stopped", "paused", "suspended", "locked", "locked_admin", "error", "migrated"):
        yield case(f"delete/{kind}", "member", "2.90", "DELETE", f"/servers/{{{kind}}}", watch=kind)
        yield case(f"delete/{kind}", "admin", "2.90", "DELETE", f"/servers/{{{kind}}}", watch=kind)
    yield case("delete/gone", "member", "2.90", "DELETE", "/servers/{gone}")
    yield case("delete/not an id", "member", "2.90", "DELETE", "/servers/zzz")
