"""Placement's API: providers, what they have, who holds what of it, and where more would fit."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.placement import allocations as internal

from .conftest import World, allocation

A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"
UNKNOWN = "99999999-9999-4999-8999-999999999999"


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
def test_a_provider_that_cannot_be(world: World, body: dict[str, Any], status: int) -> None:
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
def test_an_inventory_that_cannot_be(world: World, inventory: dict[str, Any]) -> None:
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


# -- allocations


def test_a_consumer_takes_shows_changes_and_gives_back(world: World) -> None:
    uuid = world.provider("host1", VCPU=4, MEMORY_MB=1024)
    assert world.allocate(A, uuid, VCPU=2, MEMORY_MB=512).status_code == 204
    shown = world.get(f"/allocations/{A}")
    assert shown == {
        "allocations": {uuid: {"resources": {"VCPU": 2, "MEMORY_MB": 512}, "generation": 2}},
        "project_id": "p1",
        "user_id": "u1",
        "consumer_generation": 1,
        "consumer_type": "INSTANCE",
    }
    assert set(world.get(f"/allocations/{A}", version="1.11")) == {"allocations"}
    assert world.get(f"/resource_providers/{uuid}/allocations") == {
        "allocations": {A: {"resources": {"VCPU": 2, "MEMORY_MB": 512}, "consumer_generation": 1}},
        "resource_provider_generation": 2,
    }
    assert world.get(f"/resource_providers/{uuid}/usages")["usages"] == {"VCPU": 2, "MEMORY_MB": 512}
    assert world.allocate(A, uuid, generation=None, VCPU=4).status_code == 409
    assert world.allocate(A, uuid, generation=1, VCPU=4).status_code == 204
    assert world.get(f"/resource_providers/{uuid}/usages")["usages"] == {"VCPU": 4, "MEMORY_MB": 0}
    assert world.allocate(A, uuid, generation=2).status_code == 204  # nothing: give everything back
    assert world.get(f"/allocations/{A}") == {"allocations": {}}
    assert world.ask("DELETE", f"/allocations/{A}").status_code == 404


def test_nobody_takes_what_is_not_there(world: World) -> None:
    uuid = world.provider("host1", VCPU=4)
    inventory = {"total": 10, "min_unit": 2, "max_unit": 6, "step_size": 2, "reserved": 2}
    world.ask("POST", f"/resource_providers/{uuid}/inventories", {"resource_class": "DISK_GB", **inventory})
    for amounts in ({"VCPU": 5}, {"DISK_GB": 1}, {"DISK_GB": 3}, {"DISK_GB": 8}, {"MEMORY_MB": 1}):
        assert world.allocate(A, uuid, **amounts).status_code == 409, amounts
    assert world.allocate(A, uuid, DISK_GB=6).status_code == 204
    assert world.allocate(B, uuid, DISK_GB=4).status_code == 409
    assert world.allocate(B, uuid, DISK_GB=2, VCPU=4).status_code == 204
    assert world.allocate(UNKNOWN, uuid, CUSTOM_NOTHING=1).status_code == 400
    assert world.allocate(UNKNOWN, UNKNOWN, VCPU=1).status_code == 400
    assert world.get(f"/allocations/{UNKNOWN}") == {"allocations": {}}


def test_several_consumers_are_changed_all_or_nothing(world: World) -> None:
    first, second = world.provider("host1", VCPU=4), world.provider("host2", VCPU=4)
    assert world.allocate(A, first, VCPU=4).status_code == 204
    # As a move does: A's share of the first goes to B, A gets one of the second.
    move = {A: allocation(second, 1, VCPU=4), B: allocation(first, None, VCPU=4)}
    assert world.ask("POST", "/allocations", move).status_code == 204
    assert set(world.get(f"/allocations/{A}")["allocations"]) == {second}
    assert set(world.get(f"/allocations/{B}")["allocations"]) == {first}
    too_much = {A: allocation(first, 2, VCPU=1), UNKNOWN: allocation(second, None, VCPU=4)}
    assert world.ask("POST", "/allocations", too_much).status_code == 409
    assert set(world.get(f"/allocations/{A}")["allocations"]) == {second}
    assert world.ask("POST", "/allocations", {}).status_code == 400
    assert world.ask("POST", "/allocations", {"x": allocation(first, None, VCPU=1)}).status_code == 400
    assert world.ask("POST", "/allocations", move, version="1.12").status_code in (404, 405)


@pytest.mark.parametrize("version", ["1.0", "1.7", "1.8", "1.11"])
def test_the_older_form_of_allocations(world: World, version: str) -> None:
    uuid = world.provider("host1", VCPU=4)
    body: dict[str, Any] = {"allocations": [{"resource_provider": {"uuid": uuid}, "resources": {"VCPU": 1}}]}
    owner = {"project_id": "p1", "user_id": "u1"}
    older = version in ("1.0", "1.7")
    assert world.ask("PUT", f"/allocations/{A}", body, version=version).status_code == (204 if older else 400)
    assert world.ask("PUT", f"/allocations/{A}", {**body, **owner}, version=version).status_code == (
        400 if older else 204
    )
    assert world.get(f"/allocations/{A}")["consumer_type"] == "unknown"
    assert world.ask("PUT", f"/allocations/{A}", {"allocations": [], **owner}, version="1.8").status_code == 400


@pytest.mark.parametrize(
    "change",
    [
        {"allocations": []},
        {"allocations": {A: {"resources": {}}}},
        {"allocations": {A: {"resources": {"VCPU": 0}}}},
        {"allocations": {A: {"resources": {"VCPU": True}}}},
        {"allocations": {A: {"resources": {"vcpu": 1}}}},
        {"allocations": {"x": {"resources": {"VCPU": 1}}}},
        {"project_id": ""},
        {"consumer_type": "instance"},
        {"consumer_generation": "1"},
        {"extra": 1},
    ],
    ids=str,
)
def test_allocations_that_cannot_be_understood(world: World, change: dict[str, Any]) -> None:
    uuid = world.provider("host1", VCPU=4)
    body = {**allocation(uuid, None, VCPU=1), **change}
    assert world.ask("PUT", f"/allocations/{A}", body).status_code == 400
    assert world.ask("PUT", "/allocations/not-a-uuid", allocation(uuid, None, VCPU=1)).status_code == 400


def test_usage_of_a_project(world: World) -> None:
    uuid = world.provider("host1", VCPU=8)
    world.allocate(A, uuid, VCPU=2)
    world.allocate(B, uuid, VCPU=3)
    assert world.get("/usages?project_id=p1", version="1.9") == {"usages": {"VCPU": 5}}
    assert world.get("/usages?project_id=p1") == {"usages": {"INSTANCE": {"VCPU": 5, "consumer_count": 2}}}
    assert world.get("/usages?project_id=p1&consumer_type=all")["usages"] == {"all": {"VCPU": 5, "consumer_count": 2}}
    assert world.get("/usages?project_id=p1&consumer_type=MIGRATION") == {"usages": {}}
    assert world.get("/usages?project_id=p2") == {"usages": {}}
    assert world.ask("GET", "/usages").status_code == 400
    assert world.ask("GET", "/usages?project_id=p1", who="reader").status_code == 200
    assert world.ask("GET", "/usages?project_id=p2", who="reader").status_code == 403


def test_what_compute_claims_is_what_the_api_shows(world: World) -> None:
    db = world.cloud.db
    db.write(lambda tx: internal.set_inventory(tx, name="host1", uuid=UNKNOWN, inventory={"VCPU": (4, 2.0)}, now_us=1))
    db.write(
        lambda tx: internal.claim(
            tx, consumer=A, provider="host1", resources={"VCPU": 3}, project_id="p1", user_id="u1", now_us=2
        )
    )
    shown = world.get(f"/allocations/{A}")
    assert shown["allocations"] == {UNKNOWN: {"resources": {"VCPU": 3}, "generation": 2}}
    assert (shown["consumer_type"], shown["consumer_generation"]) == ("INSTANCE", 1)
    found = world.get("/allocation_candidates?resources=VCPU:4")
    assert found["provider_summaries"][UNKNOWN]["resources"] == {"VCPU": {"capacity": 8, "used": 3}}
    assert world.get("/allocation_candidates?resources=VCPU:6")["allocation_requests"] == []


# -- candidates


def test_candidates_are_ready_to_be_sent_as_allocations(world: World) -> None:
    small, large = world.provider("small", VCPU=2), world.provider("large", VCPU=8, MEMORY_MB=1024)
    found = world.get("/allocation_candidates?resources=VCPU:4")
    assert found["allocation_requests"] == [
        {"allocations": {large: {"resources": {"VCPU": 4}}}, "mappings": {"": [large]}}
    ]
    assert found["provider_summaries"] == {
        large: {
            "resources": {"VCPU": {"capacity": 8, "used": 0}, "MEMORY_MB": {"capacity": 1024, "used": 0}},
            "traits": [],
            "parent_provider_uuid": None,
            "root_provider_uuid": large,
        }
    }
    request = {**allocation(large), **found["allocation_requests"][0]}
    assert world.ask("PUT", f"/allocations/{A}", request).status_code == 204
    both = world.get("/allocation_candidates?resources=VCPU:1")["allocation_requests"]
    assert {uuid for request in both for uuid in request["allocations"]} == {small, large}
    assert len(world.get("/allocation_candidates?resources=VCPU:1&limit=1")["allocation_requests"]) == 1
    old = world.get("/allocation_candidates?resources=VCPU:2", version="1.10")
    assert {"resource_provider": {"uuid": small}, "resources": {"VCPU": 2}} in [
        share for request in old["allocation_requests"] for share in request["allocations"]
    ]


def test_groups_within_a_tree(world: World) -> None:
    root = world.provider("root", VCPU=8)
    nics = [world.provider(f"nic{n}", parent=root, SRIOV_NET_VF=4) for n in (1, 2)]
    query = "resources=VCPU:1&resources1=SRIOV_NET_VF:1&resources2=SRIOV_NET_VF:1&group_policy="
    anywhere = world.get(f"/allocation_candidates?{query}none")["allocation_requests"]
    apart = world.get(f"/allocation_candidates?{query}isolate")["allocation_requests"]
    assert (len(anywhere), len(apart)) == (4, 2)
    assert {frozenset((request["mappings"]["1"][0], request["mappings"]["2"][0])) for request in apart} == {
        frozenset(nics)
    }
    together = world.get("/allocation_candidates?resources1=SRIOV_NET_VF:3&resources2=SRIOV_NET_VF:3&group_policy=none")
    assert len(together["allocation_requests"]) == 2  # never both on one: it has 4


@pytest.mark.parametrize(
    ("query", "version", "status"),
    [
        ("", "1.39", 400),
        ("required=HW_CPU_X86_AVX2", "1.39", 400),
        ("resources=VCPU:1&limit=0", "1.39", 400),
        ("resources=VCPU:1&limit=x", "1.39", 400),
        ("resources=VCPU:1&limit=1", "1.15", 400),
        ("resources=VCPU:1&nonsense=1", "1.39", 400),
        ("resources1=VCPU:1", "1.24", 400),
        ("resources_A=VCPU:1", "1.32", 400),
        ("resources1=VCPU:1&resources2=VCPU:1", "1.39", 400),
        ("resources=VCPU:1&group_policy=some", "1.39", 400),
        ("resources=NOTHING:1", "1.39", 400),
        ("resources=VCPU:1&required=NOTHING", "1.39", 400),
        ("resources=VCPU:1&required=HW_CPU_X86_AVX2,!HW_CPU_X86_AVX2", "1.39", 400),
        ("resources1=VCPU:1&same_subtree=1", "1.35", 400),
        ("resources1=VCPU:1&same_subtree=1,", "1.39", 400),
        ("resources1=VCPU:1&same_subtree=2", "1.39", 400),
        ("resources1=VCPU:1&required2=HW_CPU_X86_AVX2&group_policy=none", "1.39", 400),
        ("required1=HW_CPU_X86_AVX2&same_subtree=1", "1.39", 400),
        ("resources=VCPU:1&root_required=HW_CPU_X86_AVX2&root_required=HW_CPU_X86_AVX", "1.39", 400),
        ("resources=VCPU:1&root_required=in:HW_CPU_X86_AVX2,HW_CPU_X86_AVX", "1.39", 400),
        (f"resources=VCPU:1&member_of={A}&member_of={B}", "1.23", 400),
        (
            "resources=VCPU:1&required=in:HW_CPU_X86_AVX2,HW_CPU_X86_AVX&required=!HW_CPU_X86_AVX2,!HW_CPU_X86_AVX",
            "1.39",
            400,
        ),
        ("resources=VCPU:1", "1.9", 404),
    ],
)
def test_candidates_that_cannot_be_asked_for(world: World, query: str, version: str, status: int) -> None:
    assert world.ask("GET", f"/allocation_candidates?{query}", version=version).status_code == status


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


def test_an_overfull_provider_may_become_less_full_but_no_fuller(world: World) -> None:
    uuid = world.provider("host1", VCPU=8, MEMORY_MB=1000)
    world.allocate(A, uuid, VCPU=6, MEMORY_MB=100)
    world.allocate(B, uuid, VCPU=2)
    generation = world.get(f"/resource_providers/{uuid}")["generation"]
    smaller = {"resource_provider_generation": generation, "total": 4, "max_unit": 100}
    assert world.ask("PUT", f"/resource_providers/{uuid}/inventories/VCPU", smaller).status_code == 200

    def change(consumer_generation: int, **amounts: int) -> int:
        return world.ask("PUT", f"/allocations/{A}", allocation(uuid, consumer_generation, **amounts)).status_code

    assert change(1, VCPU=7) == 409
    assert change(1, VCPU=6, MEMORY_MB=200) == 204
    assert change(2, VCPU=5) == 204
    assert change(3, VCPU=6) == 409
    both = {A: allocation(uuid, 3, VCPU=3), B: allocation(uuid, 1, VCPU=4)}
    assert world.ask("POST", "/allocations", both).status_code == 204
    more = {A: allocation(uuid, 4, VCPU=4), B: allocation(uuid, 2, VCPU=4)}
    assert world.ask("POST", "/allocations", more).status_code == 409
    assert world.get(f"/resource_providers/{uuid}/usages")["usages"]["VCPU"] == 7
