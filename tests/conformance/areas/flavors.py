"""Flavors, their extra specs and their access lists."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, admin, case, reads

NEW: dict[str, object] = {"name": "conf.new", "ram": 512, "vcpus": 1, "disk": 1}
UNDO = (admin("DELETE", "/flavors/{answer:flavor.id}"),)


def cases() -> Iterator[Case]:
    yield from listing()
    yield from creating()
    yield from changing()
    yield from extra_specs()
    yield from access()


def listing() -> Iterator[Case]:
    needs = ("flavor", "flavor_specs", "flavor_private")
    yield from reads("flavors/list", "/flavors", versions=("2.1", "2.54", "2.55", LATEST), needs=needs)
    yield from reads(
        "flavors/detail", "/flavors/detail", versions=("2.1", "2.54", "2.55", "2.61", "2.75", LATEST), needs=needs
    )
    versions = ("2.1", "2.54", "2.55", "2.60", "2.61", "2.74", "2.75", "2.102", LATEST)
    yield from reads("flavors/show", "/flavors/{flavor}", versions=versions)
    yield from reads(
        "flavors/show with specs",
        "/flavors/{flavor_specs}",
        versions=("2.1", "2.61", LATEST),
        personas=("reader", "admin"),
    )
    yield from reads(
        "flavors/show private", "/flavors/{flavor_private}", versions=("2.1", LATEST), personas=("member", "admin")
    )
    for persona in ("none", "norole", "reader", "other_member", "service", "system_reader"):
        yield case("flavors/show", persona, "2.61", "GET", "/flavors/{flavor}")
    yield from reads("flavors/show unknown", "/flavors/zzz", versions=("2.1", LATEST), personas=("member", "none"))
    for query in (
        "limit=1",
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1&limit=2",
        "marker={flavor}",
        "marker=zzz",
        "minRam=1024",
        "minRam=x",
        "minDisk=1",
        "minDisk=x",
        "is_public=None",
        "is_public=x",
        "is_public=false",
        "sort_key=name",
        "sort_key=zzz",
        "sort_dir=desc",
        "sort_dir=x",
        "sort_key=rxtx_factor",
        "name=conf.small",
        "unknown=1",
    ):
        for version in ("2.1", "2.75", LATEST):
            yield case(f"flavors/list {query}", "member", version, "GET", f"/flavors?{query}", needs=needs)
        yield case(f"flavors/detail {query}", "admin", "2.61", "GET", f"/flavors/detail?{query}", needs=needs)


def creating() -> Iterator[Case]:
    good: dict[str, dict[str, object]] = {
        "least": {},
        "id": {"id": "conf-new"},
        "id number": {"id": 4711},
        "id null": {"id": None},
        "id auto": {"id": "auto"},
        "ephemeral and swap": {"OS-FLV-EXT-DATA:ephemeral": 1, "swap": 64},
        "rxtx": {"rxtx_factor": 2.0},
        "private": {"os-flavor-access:is_public": False},
        "numbers as text": {"ram": "512", "vcpus": "1", "disk": "0"},
        "description": {"description": "text"},
        "description null": {"description": None},
    }
    for name, more in good.items():
        for version in ("2.1", "2.55", "2.75", LATEST):
            yield case(
                f"flavors/create {name}", "admin", version, "POST", "/flavors", {"flavor": {**NEW, **more}}, undo=UNDO
            )
    bad: dict[str, dict[str, object]] = {
        "ram zero": {"ram": 0},
        "ram text": {"ram": "x"},
        "ram negative": {"ram": -1},
        "ram float": {"ram": 1.5},
        "ram huge": {"ram": 2**31},
        "ram null": {"ram": None},
        "ram true": {"ram": True},
        "vcpus zero": {"vcpus": 0},
        "disk negative": {"disk": -1},
        "swap negative": {"swap": -1},
        "swap text": {"swap": "x"},
        "rxtx zero": {"rxtx_factor": 0},
        "rxtx text": {"rxtx_factor": "x"},
        "name empty": {"name": ""},
        "name blank": {"name": "  "},
        "name long": {"name": "x" * 256},
        "name null": {"name": None},
        "name number": {"name": 5},
        "id slash": {"id": "a/b"},
        "id empty": {"id": ""},
        "id long": {"id": "x" * 256},
        "id blank at the end": {"id": "a "},
        "public maybe": {"os-flavor-access:is_public": "maybe"},
        "extra key": {"zzz": 1},
        "description number": {"description": 5},
        "description long": {"description": "x" * 65536},
    }
    for name, more in bad.items():
        for version in ("2.1", "2.55"):
            yield case(
                f"flavors/create {name}", "admin", version, "POST", "/flavors", {"flavor": {**NEW, **more}}, undo=UNDO
            )
    for key in NEW:
        body = {"flavor": {name: value for name, value in NEW.items() if name != key}}
        yield case(f"flavors/create without {key}", "admin", "2.61", "POST", "/flavors", body, undo=UNDO)
    taken_id = {"flavor": {**NEW, "id": "{flavor}"}}
    taken_name = {"flavor": {**NEW, "name": "conf.small"}}
    yield case("flavors/create taken id", "admin", "2.1", "POST", "/flavors", taken_id)
    yield case("flavors/create taken name", "admin", "2.1", "POST", "/flavors", taken_name, needs=("flavor",))
    yield case("flavors/create two keys", "admin", "2.1", "POST", "/flavors", {"flavor": NEW, "zzz": 1})
    for persona in PERSONAS:
        if persona != "admin":
            yield case("flavors/create", persona, "2.61", "POST", "/flavors", {"flavor": NEW}, undo=UNDO)
    yield case("flavors/create malformed", "member", "2.61", "POST", "/flavors", {"flavor": {}})


def changing() -> Iterator[Case]:
    path = "/flavors/{spare_flavor}"
    for version in ("2.1", "2.54", "2.55", "2.61", "2.75", LATEST):
        yield case("flavors/update", "admin", version, "PUT", path, {"flavor": {"description": "new"}})
    for name, body in {
        "null": {"flavor": {"description": None}},
        "name": {"flavor": {"name": "x"}},
        "empty": {"flavor": {}},
        "nothing": {},
        "number": {"flavor": {"description": 1}},
        "extra": {"flavor": {"description": "x", "ram": 1}},
    }.items():
        yield case(f"flavors/update {name}", "admin", "2.61", "PUT", path, body)
    for persona in ("none", "norole", "reader", "member", "manager", "service", "system_admin", "other_member"):
        yield case("flavors/update", persona, "2.61", "PUT", path, {"flavor": {"description": "new"}})
        yield case("flavors/delete", persona, "2.61", "DELETE", path)
        yield case("flavors/delete unknown", persona, "2.61", "DELETE", "/flavors/zzz")
    yield case("flavors/update unknown", "admin", "2.61", "PUT", "/flavors/zzz", {"flavor": {"description": "new"}})
    for version in ("2.1", LATEST):
        yield case("flavors/delete", "admin", version, "DELETE", path)
        yield case("flavors/delete unknown", "admin", version, "DELETE", "/flavors/zzz")


def extra_specs() -> Iterator[Case]:
    path = "/flavors/{flavor_specs}/os-extra_specs"
    spare = "/flavors/{spare_flavor}/os-extra_specs"
    for persona in PERSONAS:
        yield case("flavors/specs list", persona, "2.1", "GET", path)
        yield case("flavors/specs create", persona, "2.1", "POST", spare, {"extra_specs": {"hw:cpu_policy": "shared"}})
    yield case("flavors/specs list empty", "member", "2.1", "GET", "/flavors/{flavor}/os-extra_specs")
    yield case("flavors/specs list unknown", "member", "2.1", "GET", "/flavors/zzz/os-extra_specs")
    yield case("flavors/specs show", "member", "2.1", "GET", f"{path}/hw:cpu_policy")
    yield case("flavors/specs show unknown", "member", "2.1", "GET", f"{path}/zzz")
    for version in ("2.1", "2.86", LATEST):
        for name, specs in {
            "free": {"anything": "goes"},
            "known with a wrong value": {"hw:cpu_policy": "zzz"},
            "unknown in a known namespace": {"hw:zzz": "1"},
            "number": {"a": 1},
            "bool": {"a": True},
            "null": {"a": None},
            "object": {"a": {}},
            "blank key": {" ": "x"},
            "bad key": {"a/b": "x"},
            "long key": {"k" * 256: "x"},
            "long value": {"k": "x" * 256},
            "empty": {},
        }.items():
            yield case(f"flavors/specs create {name}", "admin", version, "POST", spare, {"extra_specs": specs})
    yield case("flavors/specs create nothing", "admin", "2.1", "POST", spare, {})
    yield case(
        "flavors/specs create unknown flavor",
        "admin",
        "2.1",
        "POST",
        "/flavors/zzz/os-extra_specs",
        {"extra_specs": {"a": "b"}},
    )
    yield case("flavors/specs update", "admin", "2.1", "PUT", f"{spare}/a", {"a": "c"})
    yield case("flavors/specs update other key", "admin", "2.1", "PUT", f"{spare}/a", {"b": "c"})
    yield case("flavors/specs update two keys", "admin", "2.1", "PUT", f"{spare}/a", {"a": "c", "b": "c"})
    yield case("flavors/specs update", "member", "2.1", "PUT", f"{spare}/a", {"a": "c"})
    before = (admin("POST", spare, {"extra_specs": {"a": "b"}}),)
    yield case("flavors/specs delete", "admin", "2.1", "DELETE", f"{spare}/a", before=before)
    yield case("flavors/specs delete unknown", "admin", "2.1", "DELETE", f"{spare}/zzz")
    yield case("flavors/specs delete", "member", "2.1", "DELETE", f"{spare}/a")


def access() -> Iterator[Case]:
    private = "/flavors/{flavor_private}"
    yield case("flavors/access list", "admin", "2.1", "GET", f"{private}/os-flavor-access")
    yield case("flavors/access list public", "admin", "2.1", "GET", "/flavors/{flavor}/os-flavor-access")
    yield case("flavors/access list unknown", "admin", "2.1", "GET", "/flavors/zzz/os-flavor-access")
    add = {"addTenantAccess": {"tenant": "{project:other_member}"}}
    remove = {"removeTenantAccess": {"tenant": "{project:other_member}"}}
    for version in ("2.1", "2.7", LATEST):
        yield case(
            "flavors/access add",
            "admin",
            version,
            "POST",
            f"{private}/action",
            add,
            undo=(admin("POST", f"{private}/action", remove),),
        )
        yield case("flavors/access add to public", "admin", version, "POST", "/flavors/{spare_flavor}/action", add)
        yield case("flavors/access remove absent", "admin", version, "POST", f"{private}/action", remove)
        yield case("flavors/access add to unknown", "admin", version, "POST", "/flavors/zzz/action", add)
    before = (admin("POST", f"{private}/action", add),)
    yield case("flavors/access remove", "admin", "2.7", "POST", f"{private}/action", remove, before=before)
    yield case(
        "flavors/access add twice",
        "admin",
        "2.7",
        "POST",
        f"{private}/action",
        add,
        before=before,
        after=(admin("POST", f"{private}/action", remove),),
    )
    yield case(
        "flavors/access list with one",
        "admin",
        "2.7",
        "GET",
        f"{private}/os-flavor-access",
        before=before,
        after=(admin("POST", f"{private}/action", remove),),
    )
    for persona in ("none", "reader", "member", "manager", "system_admin"):
        yield case("flavors/access add", persona, "2.7", "POST", f"{private}/action", add)
    for name, body in {
        "unknown action": {"zzz": {}},
        "tenant number": {"addTenantAccess": {"tenant": 5}},
        "tenant missing": {"addTenantAccess": {}},
        "tenant unknown": {"addTenantAccess": {"tenant": "zzz"}},
        "extra": {"addTenantAccess": {"tenant": "x", "zzz": 1}},
    }.items():
        yield case(f"flavors/access {name}", "admin", "2.7", "POST", f"{private}/action", body)
