"""Placement's API: who holds what of a provider, and where more would fit."""

from __future__ import annotations

import pytest

from cumulet.placement import allocations as internal
from cumulet.testing import JsonObject

from .conftest import UNKNOWN, A, B, World, allocation

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
    body: JsonObject = {"allocations": [{"resource_provider": {"uuid": uuid}, "resources": {"VCPU": 1}}]}
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
def test_allocations_that_cannot_be_understood(world: World, change: JsonObject) -> None:
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
