"""Services, hypervisors, availability zones and aggregates: what operators see and change."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, admin, case, reads

ENABLE = (admin("PUT", "/os-services/{service:host3}", {"status": "enabled"}),)
BACK = (admin("PUT", "/os-services/{service:host3}", {"forced_down": False}),)
NEW_AGGREGATE = {"aggregate": {"name": "conf-new", "availability_zone": "conf-new-zone"}}
DELETE_AGGREGATE = (admin("DELETE", "/os-aggregates/{answer:aggregate.id}"),)


def cases() -> Iterator[Case]:
    yield from services()
    yield from hypervisors()
    yield from zones()
    yield from aggregates()


def services() -> Iterator[Case]:
    versions = ("2.1", "2.10", "2.11", "2.52", "2.53", "2.68", "2.69", LATEST)
    yield from reads("services/list", "/os-services?binary=nova-compute", versions=versions, personas=("admin",))
    yield from reads(
        "services/list disabled",
        "/os-services?binary=nova-compute&host=host3",
        versions=("2.1", "2.11", "2.53"),
        personas=("admin",),
    )
    for query in (
        "host=host1",
        "host=nohost",
        "binary=zzz",
        "zzz=1",
        "host=host1&host=host2",
        "host=host1&binary=nova-compute",
    ):
        for version in ("2.1", "2.53", "2.75"):
            yield case(f"services/list {query}", "admin", version, "GET", f"/os-services?{query}")
    compute = {"host": "host3", "binary": "nova-compute"}
    for version in ("2.1", "2.11", "2.52", "2.53"):
        for persona in ("admin", "member"):
            yield case(
                "services/disable by host", persona, version, "PUT", "/os-services/disable", compute, undo=ENABLE
            )
            yield case("services/enable by host", persona, version, "PUT", "/os-services/enable", compute)
        reason = {**compute, "disabled_reason": "maintenance"}
        yield case(
            "services/disable with reason",
            "admin",
            version,
            "PUT",
            "/os-services/disable-log-reason",
            reason,
            undo=ENABLE,
        )
        yield case(
            "services/disable without reason",
            "admin",
            version,
            "PUT",
            "/os-services/disable-log-reason",
            compute,
            undo=ENABLE,
        )
        down = {**compute, "forced_down": True}
        yield case("services/force down by host", "admin", version, "PUT", "/os-services/force-down", down, undo=BACK)
        yield case("services/unknown action", "admin", version, "PUT", "/os-services/zzz", compute)
        unknown = {"host": "nohost", "binary": "nova-compute"}
        yield case("services/disable unknown host", "admin", version, "PUT", "/os-services/disable", unknown)
        yield case("services/disable extra key", "admin", version, "PUT", "/os-services/disable", {**compute, "zzz": 1})
        yield case(
            "services/disable no host", "admin", version, "PUT", "/os-services/disable", {"binary": "nova-compute"}
        )
    path = "/os-services/{service:host3}"
    changes: dict[str, object] = {
        "disable": {"status": "disabled"},
        "disable with reason": {"status": "disabled", "disabled_reason": "maintenance"},
        "enable": {"status": "enabled"},
        "enable with reason": {"status": "enabled", "disabled_reason": "x"},
        "force down": {"forced_down": True},
        "force down as text": {"forced_down": "true"},
        "nothing": {},
        "reason only": {"disabled_reason": "x"},
        "status zzz": {"status": "zzz"},
        "status null": {"status": None},
        "forced_down maybe": {"forced_down": "maybe"},
        "extra": {"status": "enabled", "zzz": 1},
        "empty reason": {"status": "disabled", "disabled_reason": ""},
        "long reason": {"status": "disabled", "disabled_reason": "x" * 256},
    }
    for name, body in changes.items():
        for version in ("2.53", "2.69", LATEST):
            yield case(f"services/update {name}", "admin", version, "PUT", path, body, undo=(*ENABLE, *BACK))
    for persona in PERSONAS:
        if persona != "admin":
            yield case("services/update", persona, "2.53", "PUT", path, {"status": "disabled"})
            yield case("services/delete", persona, "2.53", "DELETE", path)
    for version in ("2.1", "2.53"):
        yield case("services/update unknown", "admin", version, "PUT", "/os-services/{unknown}", {"status": "disabled"})
        yield case("services/delete unknown", "admin", version, "DELETE", "/os-services/{unknown}")
        yield case("services/delete not an id", "admin", version, "DELETE", "/os-services/zzz")
        yield case("services/delete unknown number", "admin", version, "DELETE", "/os-services/99999")
    disable = (admin("PUT", path, {"status": "disabled", "disabled_reason": "maintenance"}),)
    for version in ("2.1", "2.11", "2.53", "2.69"):
        yield case(
            "services/list a disabled one",
            "admin",
            version,
            "GET",
            "/os-services?host=host3&binary=nova-compute",
            before=disable,
            after=ENABLE,
        )


def hypervisors() -> Iterator[Case]:
    versions = ("2.1", "2.27", "2.28", "2.32", "2.33", "2.52", "2.53", "2.74", "2.75", "2.87", "2.88", LATEST)
    for name, path in (("list", ""), ("detail", "/detail"), ("statistics", "/statistics")):
        yield from reads(
            f"hypervisors/{name}", f"/os-hypervisors{path}", versions=versions, personas=("admin",), alone=True
        )
    for version in versions:
        number = version in ("2.1", "2.27", "2.28", "2.32", "2.33", "2.52")
        which = "{hypervisor_number:host1}" if number else "{hypervisor:host1}"
        yield case("hypervisors/show", "admin", version, "GET", f"/os-hypervisors/{which}", alone=True)
        yield case("hypervisors/uptime", "admin", version, "GET", f"/os-hypervisors/{which}/uptime")
        yield case("hypervisors/search", "admin", version, "GET", "/os-hypervisors/host1/search")
        yield case("hypervisors/search nothing", "admin", version, "GET", "/os-hypervisors/zzz/search")
        yield case("hypervisors/servers", "admin", version, "GET", "/os-hypervisors/host1/servers", alone=True)
        yield case("hypervisors/servers of unknown", "admin", version, "GET", "/os-hypervisors/zzz/servers")
        yield case("hypervisors/show unknown", "admin", version, "GET", "/os-hypervisors/{unknown}")
        yield case("hypervisors/show unknown number", "admin", version, "GET", "/os-hypervisors/99999")
        yield case("hypervisors/show not an id", "admin", version, "GET", "/os-hypervisors/zzz")
    for query in (
        "limit=1",
        "limit=0",
        "limit=x",
        "marker={unknown}",
        "marker={hypervisor:host1}",
        "hypervisor_hostname_pattern=host1",
        "hypervisor_hostname_pattern=zzz",
        "hypervisor_hostname_pattern=host&limit=1",
        "with_servers=true",
        "with_servers=maybe",
        "zzz=1",
    ):
        for version in ("2.1", "2.33", "2.53", "2.75", "2.88"):
            yield case(f"hypervisors/list {query}", "admin", version, "GET", f"/os-hypervisors?{query}", alone=True)
        yield case(f"hypervisors/detail {query}", "admin", "2.53", "GET", f"/os-hypervisors/detail?{query}", alone=True)
    yield from reads(
        "hypervisors/list with servers",
        "/os-hypervisors?with_servers=true",
        versions=("2.53", "2.75", LATEST),
        personas=("admin",),
        needs=("server",),
        alone=True,
    )
    yield from reads(
        "hypervisors/show with servers",
        "/os-hypervisors/{hypervisor:host1}?with_servers=true",
        versions=("2.53", LATEST),
        personas=("admin",),
        alone=True,
    )
    yield from reads(
        "hypervisors/servers of a host",
        "/os-hypervisors/{host:server}/servers",
        versions=("2.1", "2.52"),
        personas=("admin",),
        needs=("server",),
        alone=True,
    )
    for persona in PERSONAS:
        if persona != "admin":
            yield case("hypervisors/detail", persona, "2.53", "GET", "/os-hypervisors/detail")
            yield case("hypervisors/show", persona, "2.53", "GET", "/os-hypervisors/{hypervisor:host1}")
            yield case("hypervisors/statistics", persona, "2.53", "GET", "/os-hypervisors/statistics")
            yield case("hypervisors/show unknown", persona, "2.53", "GET", "/os-hypervisors/{unknown}")


def zones() -> Iterator[Case]:
    yield from reads("zones/list", "/os-availability-zone", versions=("2.1", LATEST), personas=("member", "reader"))
    yield from reads(
        "zones/detail", "/os-availability-zone/detail", versions=("2.1", LATEST), personas=("admin", "member")
    )


def aggregates() -> Iterator[Case]:
    versions = ("2.1", "2.40", "2.41", LATEST)
    yield from reads("aggregates/list", "/os-aggregates", versions=versions, personas=("admin",), needs=("aggregate",))
    yield from reads("aggregates/show", "/os-aggregates/{aggregate}", versions=versions, personas=("admin",))
    for persona in PERSONAS:
        if persona != "admin":
            yield case("aggregates/show", persona, "2.41", "GET", "/os-aggregates/{aggregate}")
            yield case("aggregates/create", persona, "2.41", "POST", "/os-aggregates", NEW_AGGREGATE)
    for version in versions:
        yield case(
            "aggregates/create", "admin", version, "POST", "/os-aggregates", NEW_AGGREGATE, undo=DELETE_AGGREGATE
        )
        yield case(
            "aggregates/update",
            "admin",
            version,
            "PUT",
            "/os-aggregates/{aggregate}",
            {"aggregate": {"name": "conf-other"}},
        )
        yield case("aggregates/delete", "admin", version, "DELETE", "/os-aggregates/{aggregate}")
    bodies: dict[str, object] = {
        "no zone": {"aggregate": {"name": "conf-new"}},
        "zone null": {"aggregate": {"name": "conf-new", "availability_zone": None}},
        "name empty": {"aggregate": {"name": ""}},
        "name long": {"aggregate": {"name": "x" * 256}},
        "no name": {"aggregate": {}},
        "extra": {"aggregate": {"name": "x", "zzz": 1}},
        "zone with a colon": {"aggregate": {"name": "conf-new", "availability_zone": "a:b"}},
        "taken": {"aggregate": {"name": "conf-aggregate"}},
    }
    for name, body in bodies.items():
        yield case(
            f"aggregates/create {name}",
            "admin",
            "2.41",
            "POST",
            "/os-aggregates",
            body,
            undo=DELETE_AGGREGATE,
            needs=("aggregate",),
        )
    path = "/os-aggregates/{aggregate}/action"
    actions: dict[str, object] = {
        "add host": {"add_host": {"host": "host3"}},
        "add unknown host": {"add_host": {"host": "nohost"}},
        "remove absent host": {"remove_host": {"host": "host3"}},
        "set metadata": {"set_metadata": {"metadata": {"a": "b"}}},
        "set zone": {"set_metadata": {"metadata": {"availability_zone": "conf-third"}}},
        "set metadata number": {"set_metadata": {"metadata": {"a": 1}}},
        "set metadata null": {"set_metadata": {"metadata": {"a": None}}},
        "add host extra": {"add_host": {"host": "host3", "zzz": 1}},
        "unknown action": {"zzz": {}},
    }
    for name, body in actions.items():
        yield case(f"aggregates/{name}", "admin", "2.41", "POST", path, body)
        yield case(f"aggregates/{name}", "member", "2.41", "POST", path, body)
    for method, where in (("GET", ""), ("DELETE", ""), ("PUT", "")):
        change: object = {"aggregate": {"name": "x"}} if method == "PUT" else {}
        body = change if method == "PUT" else None
        arguments = (body,) if body else ()
        yield case(f"aggregates/{method} unknown", "admin", "2.41", method, f"/os-aggregates/99999{where}", *arguments)
        yield case(
            f"aggregates/{method} not a number", "admin", "2.41", method, f"/os-aggregates/zzz{where}", *arguments
        )
    with_host = (admin("POST", path, {"add_host": {"host": "host3"}}),)
    yield case(
        "aggregates/delete with a host",
        "admin",
        "2.41",
        "DELETE",
        "/os-aggregates/{aggregate}",
        before=with_host,
        after=(admin("POST", path, {"remove_host": {"host": "host3"}}),),
    )
