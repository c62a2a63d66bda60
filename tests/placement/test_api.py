"""Placement's API: providers, what they have, who holds what of it, and where more would fit."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.testing import JsonObject

from .conftest import UNKNOWN, A, B, World, allocation

# -- providers


def test_a_provider_is_made_shown_renamed_and_deleted(world: World) -> None:
    answer = world.ask("POST", "/resource_providers", {"name": "host1", "uuid": A})
    assert answer.status_code == 200
    assert answer.headers["location"].endswith(f"/placement/resource_providers/{A}")
    assert answer.headers["cache-control"] == "no-cache"
    assert "last-modified" in answer.headers
    url = f"/placement/resource_providers/{A}"
    assert answer.json() == {
        "uuid": A,
        "name": "host1",
        "generation": 0,
        "parent_provider_uuid": None,
        "root_provider_uuid": A,
        "links": [
            {"rel": "self", "href": url},
            {"rel": "inventories", "href": f"{url}/inventories"},
            {"rel": "usages", "href": f"{url}/usages"},
            {"rel": "aggregates", "href": f"{url}/aggregates"},
            {"rel": "traits", "href": f"{url}/traits"},
            {"rel": "allocations", "href": f"{url}/allocations"},
        ],
    }
    assert world.ask("PUT", f"/resource_providers/{A}", {"name": "renamed"}).json()["name"] == "renamed"
    assert world.ask("DELETE", f"/resource_providers/{A}").status_code == 204
    assert world.ask("GET", f"/resource_providers/{A}").status_code == 404
    assert world.ask("DELETE", f"/resource_providers/{A}").status_code == 404


def test_an_older_version_shows_less(world: World) -> None:
    answer = world.ask("POST", "/resource_providers", {"name": "host1", "uuid": A}, version="1.0")
    assert (answer.status_code, answer.content) == (201, b"")
    shown = world.ask("GET", f"/resource_providers/{A}", version="1.0")
    assert set(shown.json()) == {"uuid", "name", "generation", "links"}
    assert [link["rel"] for link in shown.json()["links"]] == ["self", "inventories", "usages"]
    assert "cache-control" not in shown.headers
    assert world.ask("GET", "/traits", version="1.5").status_code == 404
    assert world.ask("GET", "/usages?project_id=p1", version="1.8").status_code == 404
    assert (
        world.ask("POST", "/resource_providers", {"name": "x", "parent_provider_uuid": A}, version="1.13").status_code
        == 400
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "host1"}, 409),
        ({"name": "host2", "uuid": A}, 409),
        ({}, 400),
        ({"name": "n" * 201}, 400),
        ({"name": "host2", "uuid": "x"}, 400),
        ({"name": "host2", "extra": 1}, 400),
        ({"name": "host2", "parent_provider_uuid": UNKNOWN}, 400),
        ({"name": "host2", "uuid": B, "parent_provider_uuid": B}, 400),
    ],
    ids=str,
)
def test_a_provider_that_cannot_be(world: World, body: JsonObject, status: int) -> None:
    world.ask("POST", "/resource_providers", {"name": "host1", "uuid": A})
    assert world.ask("POST", "/resource_providers", body).status_code == status
    assert len(world.get("/resource_providers")["resource_providers"]) == 1


def test_providers_form_trees(world: World) -> None:
    root = world.provider("root")
    child = world.provider("child", parent=root)
    grandchild = world.provider("grandchild", parent=child)
    assert world.get(f"/resource_providers/{grandchild}")["root_provider_uuid"] == root
    assert world.ask("DELETE", f"/resource_providers/{child}").status_code == 409
    loop = {"name": "root", "parent_provider_uuid": grandchild}
    assert world.ask("PUT", f"/resource_providers/{root}", loop).status_code == 400
    free = {"name": "child", "parent_provider_uuid": None}
    assert world.ask("PUT", f"/resource_providers/{child}", free, version="1.36").status_code == 400
    assert world.ask("PUT", f"/resource_providers/{child}", free).status_code == 200
    tree = world.get(f"/resource_providers?in_tree={grandchild}")["resource_providers"]
    assert {p["name"] for p in tree} == {"child", "grandchild"}


def test_providers_are_filtered(world: World) -> None:
    small, large = world.provider("small", VCPU=2), world.provider("large", VCPU=16, MEMORY_MB=1024)
    world.ask(
        "PUT", f"/resource_providers/{large}/traits", {"traits": ["HW_CPU_X86_AVX2"], "resource_provider_generation": 1}
    )
    world.ask("PUT", f"/resource_providers/{small}/aggregates", {"aggregates": [A], "resource_provider_generation": 1})

    def found(query: str, version: str = "1.39") -> set[str]:
        listed = world.get(f"/resource_providers?{query}", version=version)["resource_providers"]
        return {provider["name"] for provider in listed}

    assert found("name=small") == {"small"}
    assert found(f"uuid={large}") == {"large"}
    assert found("resources=VCPU:4") == {"large"}
    assert found("resources=VCPU:1,MEMORY_MB:1") == {"large"}
    assert found("required=HW_CPU_X86_AVX2") == {"large"}
    assert found("required=!HW_CPU_X86_AVX2") == {"small"}
    assert found("required=in:HW_CPU_X86_AVX2,HW_CPU_X86_AVX") == {"large"}
    assert found(f"member_of={A}") == {"small"}
    assert found(f"member_of=in:{A},{B}") == {"small"}
    assert found(f"member_of=!{A}") == {"large"}


@pytest.mark.parametrize(
    ("query", "version"),
    [
        ("nonsense=1", "1.39"),
        ("uuid=x", "1.39"),
        ("resources=", "1.39"),
        ("resources=VCPU", "1.39"),
        ("resources=VCPU:0", "1.39"),
        ("resources=VCPU:-1", "1.39"),
        ("resources=VCPU:1:2", "1.39"),
        ("resources=NOTHING:1", "1.39"),
        ("required=NO_SUCH_TRAIT", "1.39"),
        ("required=", "1.39"),
        ("required=!HW_CPU_X86_AVX2", "1.21"),
        ("required=in:HW_CPU_X86_AVX2", "1.38"),
        ("required=HW_CPU_X86_AVX2", "1.17"),
        ("member_of=x", "1.39"),
        (f"member_of=!{A}", "1.31"),
        (f"in_tree={A}", "1.13"),
    ],
)
def test_a_list_that_cannot_be_understood(world: World, query: str, version: str) -> None:
    assert world.ask("GET", f"/resource_providers?{query}", version=version).status_code == 400


# -- inventories


def test_inventories_carry_the_generation_the_caller_saw(world: World) -> None:
    uuid = world.provider("host1", VCPU=4)
    path = f"/resource_providers/{uuid}/inventories"
    assert world.get(path) == {
        "resource_provider_generation": 1,
        "inventories": {
            "VCPU": {
                "total": 4,
                "reserved": 0,
                "min_unit": 1,
                "max_unit": 2147483647,
                "step_size": 1,
                "allocation_ratio": 1.0,
            }
        },
    }
    stale = {"resource_provider_generation": 0, "total": 8}
    answer = world.ask("PUT", f"{path}/VCPU", stale)
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["code"] == "placement.concurrent_update"
    assert world.ask("PUT", f"{path}/VCPU", {**stale, "resource_provider_generation": 1}).json()["total"] == 8
    assert world.ask("POST", path, {**stale, "resource_class": "DISK_GB"}).status_code == 409
    added = world.ask("POST", path, {"resource_class": "DISK_GB", "total": 100, "reserved": 10})
    assert (added.status_code, added.json()["resource_provider_generation"]) == (201, 3)
    assert world.ask("POST", path, {"resource_class": "DISK_GB", "total": 100}).status_code == 409
    assert world.ask("DELETE", f"{path}/DISK_GB").status_code == 204
    assert world.ask("DELETE", f"{path}/DISK_GB").status_code == 404
    assert world.ask("GET", f"{path}/DISK_GB").status_code == 404
    assert world.ask("DELETE", path, version="1.4").status_code in (404, 405)
    assert world.ask("DELETE", path).status_code == 204
    assert world.get(path)["inventories"] == {}


@pytest.mark.parametrize(
    "inventory",
    [
        {"total": 0},
        {"total": 1 << 31},
        {"total": "4"},
        {"total": 4.0},
        {"total": 4, "reserved": 5},
        {"total": 4, "reserved": -1},
        {"total": 4, "step_size": 0},
        {"total": 4, "allocation_ratio": 1e39},
        {"total": 4, "extra": 1},
        {},
    ],
    ids=str,
)
def test_an_inventory_that_cannot_be(world: World, inventory: JsonObject) -> None:
    uuid = world.provider("host1")
    body = {"resource_provider_generation": 0, "inventories": {"VCPU": inventory}}
    assert world.ask("PUT", f"/resource_providers/{uuid}/inventories", body).status_code == 400
    one = {"resource_class": "VCPU", **inventory}
    assert world.ask("POST", f"/resource_providers/{uuid}/inventories", one).status_code == 400
    assert world.get(f"/resource_providers/{uuid}/inventories")["inventories"] == {}


def test_what_is_in_use_is_not_removed(world: World) -> None:
    uuid = world.provider("host1", VCPU=4)
    assert world.allocate(A, uuid, VCPU=1).status_code == 204
    generation = world.generation(uuid)
    path = f"/resource_providers/{uuid}"
    assert world.ask("DELETE", f"{path}/inventories/VCPU").status_code == 409
    assert world.ask("DELETE", f"{path}/inventories").status_code == 409
    empty = {"resource_provider_generation": generation, "inventories": {}}
    answer = world.ask("PUT", f"{path}/inventories", empty)
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["code"] == "placement.inventory.inuse"
    answer = world.ask("DELETE", path)
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["code"] == "placement.resource_provider.inuse"
    assert world.generation(uuid) == generation


# -- traits, classes, aggregates


def test_traits_come_and_go(world: World) -> None:
    uuid = world.provider("host1")
    assert "HW_CPU_X86_AVX2" in world.get("/traits")["traits"]
    assert [world.ask("PUT", "/traits/CUSTOM_X").status_code for _ in range(2)] == [201, 204]
    assert world.ask("GET", "/traits/CUSTOM_X").status_code == 204
    assert world.get("/traits?name=startswith:CUSTOM_")["traits"] == ["CUSTOM_X"]
    assert world.get("/traits?name=in:CUSTOM_X,HW_CPU_X86_AVX2,NO")["traits"] == ["CUSTOM_X", "HW_CPU_X86_AVX2"]
    path = f"/resource_providers/{uuid}/traits"
    body = {"traits": ["CUSTOM_X", "HW_CPU_X86_AVX2"], "resource_provider_generation": 0}
    assert world.ask("PUT", path, body).json() == {**body, "resource_provider_generation": 1}
    assert world.ask("PUT", path, body).status_code == 409
    assert world.get("/traits?associated=true")["traits"] == ["CUSTOM_X", "HW_CPU_X86_AVX2"]
    assert world.ask("DELETE", "/traits/CUSTOM_X").status_code == 409
    unknown = {"traits": ["CUSTOM_UNKNOWN"], "resource_provider_generation": 1}
    assert world.ask("PUT", path, unknown).status_code == 400
    assert world.ask("DELETE", path).status_code == 204
    assert world.get(path) == {"traits": [], "resource_provider_generation": 2}
    assert world.ask("DELETE", "/traits/CUSTOM_X").status_code == 204
    assert world.ask("DELETE", "/traits/CUSTOM_X").status_code == 404
    assert world.ask("DELETE", "/traits/HW_CPU_X86_AVX2").status_code == 400
    for bad in ("X", "CUSTOM_x", "CUSTOM_", "CUSTOM_X%0A", "CUSTOM_" + "X" * 256):
        assert world.ask("PUT", f"/traits/{bad}").status_code == 400, bad
    assert world.ask("GET", "/traits?name=CUSTOM").status_code == 400
    assert world.ask("GET", "/traits?name=contains:CUSTOM").status_code == 400
    assert world.ask("GET", "/traits?associated=maybe").status_code == 400


def test_resource_classes_come_and_go(world: World) -> None:
    assert world.get("/resource_classes")["resource_classes"][0]["name"] == "VCPU"
    assert world.ask("POST", "/resource_classes", {"name": "CUSTOM_A"}).status_code == 201
    assert world.ask("POST", "/resource_classes", {"name": "CUSTOM_A"}).status_code == 409
    assert [world.ask("PUT", "/resource_classes/CUSTOM_B").status_code for _ in range(2)] == [201, 204]
    assert world.get("/resource_classes/CUSTOM_B")["links"][0]["href"] == "/placement/resource_classes/CUSTOM_B"
    for bad in ("VCPU", "CUSTOM_b", "CUSTOM_", "CUSTOM_B%0A"):
        assert world.ask("PUT", f"/resource_classes/{bad}").status_code == 400, bad
    for body in ({"name": "VCPU"}, {"name": "CUSTOM_A\n"}, {}, {"name": 1}):
        assert world.ask("POST", "/resource_classes", body).status_code == 400, body
    uuid = world.provider("host1", CUSTOM_A=4)
    assert world.ask("DELETE", "/resource_classes/CUSTOM_A").status_code == 409
    assert world.ask("PUT", "/resource_classes/CUSTOM_A", {"name": "CUSTOM_C"}, version="1.6").status_code == 200
    assert set(world.get(f"/resource_providers/{uuid}/inventories")["inventories"]) == {"CUSTOM_C"}
    assert world.ask("DELETE", "/resource_classes/CUSTOM_B").status_code == 204
    assert world.ask("DELETE", "/resource_classes/CUSTOM_B").status_code == 404
    assert world.ask("DELETE", "/resource_classes/VCPU").status_code == 400


def test_aggregates_of_a_provider(world: World) -> None:
    uuid = world.provider("host1")
    path = f"/resource_providers/{uuid}/aggregates"
    assert world.get(path) == {"aggregates": [], "resource_provider_generation": 0}
    body = {"aggregates": [A, B], "resource_provider_generation": 0}
    assert world.ask("PUT", path, body).json() == {**body, "resource_provider_generation": 1}
    assert world.ask("PUT", path, body).status_code == 409
    assert world.ask("PUT", path, [A], version="1.18").json() == {"aggregates": [A]}
    for bad in ([A, A], ["x"], {"aggregates": [A]}, "x"):
        assert world.ask("PUT", path, bad, version="1.18").status_code == 400, bad
    assert world.ask("PUT", path, [A]).status_code == 400
    assert world.get(path, version="1.18") == {"aggregates": [A]}


def test_aggregates_are_shown_as_they_were_sent_and_found_however_they_are_written(world: World) -> None:
    uuid = world.provider("host1", VCPU=1)
    sent = [A.replace("-", ""), "ABCDEFAB-1111-4111-8111-111111111111"]
    path = f"/resource_providers/{uuid}/aggregates"
    assert world.ask("PUT", path, sent, version="1.18").json() == {"aggregates": sent}
    assert world.get(path)["aggregates"] == sent
    for written in (A, sent[0], sent[1], sent[1].lower()):
        assert len(world.get(f"/resource_providers?member_of={written}")["resource_providers"]) == 1
        assert (
            len(world.get(f"/allocation_candidates?resources=VCPU:1&member_of={written}")["allocation_requests"]) == 1
        )
    assert world.ask("PUT", path, [A, sent[0]], version="1.18").status_code == 400


# -- who may


def test_only_administrators_and_services_use_placement(world: World) -> None:
    uuid = world.provider("host1", VCPU=4)
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/resource_providers", None),
        ("POST", "/resource_providers", {"name": "new"}),
        ("GET", f"/resource_providers/{uuid}", None),
        ("PUT", f"/resource_providers/{uuid}", {"name": "new"}),
        ("DELETE", f"/resource_providers/{UNKNOWN}", None),
        ("GET", f"/resource_providers/{uuid}/inventories", None),
        ("GET", f"/resource_providers/{uuid}/usages", None),
        ("GET", f"/resource_providers/{uuid}/allocations", None),
        ("GET", f"/resource_providers/{uuid}/traits", None),
        ("GET", f"/resource_providers/{uuid}/aggregates", None),
        ("PUT", f"/resource_providers/{uuid}/aggregates", {"aggregates": [], "resource_provider_generation": 1}),
        ("GET", f"/allocations/{A}", None),
        ("PUT", f"/allocations/{A}", allocation(uuid, None, VCPU=1)),
        ("POST", "/allocations", {A: allocation(uuid, None, VCPU=1)}),
        ("DELETE", f"/allocations/{A}", None),
        ("GET", "/allocation_candidates?resources=VCPU:1", None),
        ("GET", "/traits", None),
        ("PUT", "/traits/CUSTOM_X", None),
        ("GET", "/resource_classes", None),
        ("POST", "/resource_classes", {"name": "CUSTOM_X"}),
    ]
    for method, path, body in requests:
        for who in ("manager", "member", "reader", "system"):
            assert world.ask(method, path, body, who=who).status_code == 403, (who, method, path)
        assert world.ask(method, path, body, who="nobody").status_code == 401, (method, path)
    for method, path, body in requests:
        assert world.ask(method, path, body, who="service").status_code not in (401, 403), (method, path)
