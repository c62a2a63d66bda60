"""Allocation candidates: what trees, sharing providers and subtrees allow, and all of it against a definition."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TypedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.placement.candidates import MOST_GROUPS, SHARING, Group, Request, Supply, candidates
from cumulet.placement.providers import Inventory, Provider
from cumulet.placement.wire import AggregateDemand, TraitDemand

from .conftest import A, B, World


def traits(world: World, uuid: str, *names: str) -> None:
    for name in names:
        if name.startswith("CUSTOM_"):
            world.ask("PUT", f"/traits/{name}")
    body = {"traits": names, "resource_provider_generation": world.generation(uuid)}
    assert world.ask("PUT", f"/resource_providers/{uuid}/traits", body).status_code == 200


def aggregates(world: World, uuid: str, *uuids: str) -> None:
    body = {"aggregates": uuids, "resource_provider_generation": world.generation(uuid)}
    assert world.ask("PUT", f"/resource_providers/{uuid}/aggregates", body).status_code == 200


def found(world: World, query: str, version: str = "1.39") -> list[dict[str, dict[str, int]]]:
    """The shares of every candidate, by provider."""
    answer = world.get(f"/allocation_candidates?{query}", version=version)
    return [
        {uuid: share["resources"] for uuid, share in request["allocations"].items()}
        for request in answer["allocation_requests"]
    ]


def test_a_sharing_provider_gives_to_trees_that_have_an_aggregate_in_common_with_it(world: World) -> None:
    disks = world.provider("disks", DISK_GB=100)
    traits(world, disks, SHARING)
    aggregates(world, disks, A)
    host, child = world.provider("host", VCPU=4), None
    child = world.provider("child", parent=host, MEMORY_MB=1024)
    other = world.provider("other", VCPU=4)
    assert found(world, "resources=VCPU:1,DISK_GB:10") == []
    aggregates(world, child, A, B)  # an aggregate of any provider of the tree will do
    shares = [{host: {"VCPU": 1}, disks: {"DISK_GB": 10}}]
    assert found(world, "resources=VCPU:1,DISK_GB:10") == shares
    assert found(world, "resources1=VCPU:1&resources2=DISK_GB:10&group_policy=isolate") == shares
    assert found(world, f"resources=VCPU:1,DISK_GB:10&in_tree={host}") == []
    assert found(world, f"resources=VCPU:1&resources1=DISK_GB:10&in_tree1={disks}") == shares
    # One share of the disks is one candidate, in how many trees ever it could be used.
    aggregates(world, other, A)
    assert found(world, "resources=DISK_GB:10") == [{disks: {"DISK_GB": 10}}]
    assert len(found(world, "resources=VCPU:1,DISK_GB:10")) == 2
    answer = world.get("/allocation_candidates?resources=VCPU:1,DISK_GB:10&limit=1")
    assert set(answer["provider_summaries"]) == {host, child, disks}
    assert sorted(answer["allocation_requests"][0]["mappings"][""]) == sorted([host, disks])


def test_isolated_groups_share_no_provider_and_the_one_without_a_suffix_may_share_with_each(world: World) -> None:
    host = world.provider("host", VCPU=4, MEMORY_MB=1024)
    for query in ("resources=MEMORY_MB:64&resources1=VCPU:1", "resources1=VCPU:1&resources=MEMORY_MB:64"):
        both = [{host: {"VCPU": 1, "MEMORY_MB": 64}}]
        assert found(world, f"{query}&group_policy=isolate") == both, query
        assert found(world, f"{query}&resources2=VCPU:1&group_policy=isolate") == []


def test_a_candidate_that_shares_can_be_sent_as_allocations(world: World) -> None:
    disks = world.provider("disks", DISK_GB=100)
    traits(world, disks, SHARING)
    for uuid in (disks, world.provider("host", VCPU=4)):
        aggregates(world, uuid, A)
    request = world.get("/allocation_candidates?resources=VCPU:4,DISK_GB:100")["allocation_requests"][0]
    body = {**request, "project_id": "p", "user_id": "u", "consumer_generation": None, "consumer_type": "INSTANCE"}
    assert world.ask("PUT", f"/allocations/{B}", body).status_code == 204
    assert world.get(f"/resource_providers/{disks}/usages")["usages"] == {"DISK_GB": 100}
    assert found(world, "resources=DISK_GB:1") == []


def test_groups_in_one_subtree(world: World) -> None:
    host = world.provider("host", VCPU=8)
    numas = [world.provider(f"numa{n}", parent=host, MEMORY_MB=64) for n in (0, 1)]
    cards = [world.provider(f"card{n}", parent=numas[n], FPGA=1) for n in (0, 1)]
    apart = "resources_m=MEMORY_MB:1&resources_f=FPGA:1&group_policy=none"
    assert len(found(world, apart)) == 4
    together = found(world, f"{apart}&same_subtree=_m,_f")
    assert together == [{numas[n]: {"MEMORY_MB": 1}, cards[n]: {"FPGA": 1}} for n in (0, 1)]
    # A group without resources names the provider above those that are taken from.
    traits(world, numas[1], "HW_NUMA_ROOT")
    query = "required_n=HW_NUMA_ROOT&resources_f=FPGA:1&group_policy=none&same_subtree=_n,_f"
    answer = world.get(f"/allocation_candidates?{query}")["allocation_requests"]
    assert [request["mappings"] for request in answer] == [{"_n": [numas[1]], "_f": [cards[1]]}]
    assert set(answer[0]["allocations"]) == {cards[1]}
    # Two cards of different nodes are in no subtree of each other.
    assert found(world, "resources_1=FPGA:1&resources_2=FPGA:1&group_policy=none&same_subtree=_1,_2") == []


def test_traits_of_the_root_and_of_any_provider_that_gives(world: World) -> None:
    plain = world.provider("plain", VCPU=4)
    fast = world.provider("fast")
    part = world.provider("part", parent=fast, VCPU=4)
    traits(world, fast, "CUSTOM_FAST")
    traits(world, part, "HW_CPU_X86_AVX2")
    assert found(world, "resources=VCPU:1&root_required=CUSTOM_FAST") == [{part: {"VCPU": 1}}]
    assert found(world, "resources=VCPU:1&root_required=!CUSTOM_FAST") == [{plain: {"VCPU": 1}}]
    assert found(world, "resources=VCPU:1&required=CUSTOM_FAST") == []  # the root gives nothing
    assert found(world, "resources=VCPU:1&required=in:CUSTOM_FAST,HW_CPU_X86_AVX2") == [{part: {"VCPU": 1}}]
    assert found(world, "resources=VCPU:1&required=!HW_CPU_X86_AVX2") == [{plain: {"VCPU": 1}}]


def test_a_request_has_a_bounded_number_of_groups(world: World) -> None:
    host = world.provider("host", VCPU=MOST_GROUPS)
    groups = "&".join(f"resources{n}=VCPU:1" for n in range(1, MOST_GROUPS + 1))
    assert found(world, f"{groups}&group_policy=none") == [{host: {"VCPU": MOST_GROUPS}}]
    answer = world.ask("GET", f"/allocation_candidates?{groups}&resources=VCPU:1&group_policy=none")
    assert (answer.status_code, "more than 100 request groups" in answer.text) == (400, True), answer.text


def test_an_older_version_knows_no_trees(world: World) -> None:
    host = world.provider("host", VCPU=4)
    world.provider("nic", parent=host, SRIOV_NET_VF=4)
    assert len(found(world, "resources=VCPU:1,SRIOV_NET_VF:1")) == 1
    assert found(world, "resources=VCPU:1,SRIOV_NET_VF:1", "1.28") == []
    assert found(world, "resources=VCPU:1", "1.28") == [{host: {"VCPU": 1}}]


# -- against a definition

CLASSES = ("VCPU", "FPGA")
TRAITS = (SHARING, "X", "Y")
AGGREGATES = ("a", "b")
NAMES = tuple("pqrst")
SUFFIXES = ("", "1", "2")


NO_TRAIT = TraitDemand()


class Any_(TypedDict):
    traits: TraitDemand
    aggregates: AggregateDemand
    in_tree: None


ANY: Any_ = {"traits": NO_TRAIT, "aggregates": AggregateDemand(), "in_tree": None}


def provider(
    number: int, uuid: str, *, parent: str | None, traits: tuple[str, ...] = (), aggregates: tuple[str, ...] = ()
) -> Provider:
    return Provider(
        id=number,
        uuid=uuid,
        name=uuid,
        generation=0,
        parent_uuid=parent,
        traits=traits,
        aggregates=aggregates,
        created_at_us=0,
        updated_at_us=0,
    )


def inventory(total: int, *, most: int = 100) -> Inventory:
    return Inventory(total=total, reserved=0, min_unit=1, max_unit=most, step_size=1, allocation_ratio=1.0)


def seldom(values: tuple[str, ...]) -> st.SearchStrategy[tuple[frozenset[str], ...]]:
    """One of them now and then: a request that wants much of everything finds nothing."""
    return st.sampled_from([(), (), (), *((frozenset((value,)),) for value in values)])


def some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=2).map(tuple)


@st.composite
def supplies(draw: st.DrawFn) -> Supply:
    found: dict[str, Provider] = {}
    roots: dict[str, str] = {}
    inventories: dict[int, dict[str, Inventory]] = {}
    used: dict[int, dict[str, int]] = {}
    for number, uuid in enumerate(NAMES[: draw(st.integers(1, len(NAMES)))], 1):
        parent = draw(st.sampled_from([None, *found]))
        has, near = draw(some(TRAITS)), draw(some(AGGREGATES))
        found[uuid] = provider(number, uuid, parent=parent, traits=has, aggregates=near)
        roots[uuid] = uuid if parent is None else roots[parent]
        for name in draw(st.sampled_from([CLASSES, CLASSES, CLASSES[:1], CLASSES[1:], ()])):
            inventories.setdefault(number, {})[name] = inventory(draw(st.integers(2, 4)), most=draw(st.integers(2, 4)))
            used.setdefault(number, {})[name] = draw(st.sampled_from([0, 0, 1]))
    return Supply(providers=found, roots=roots, inventories=inventories, used=used)


@st.composite
def groups(draw: st.DrawFn, suffix: str) -> Group:
    wanted: tuple[str, ...] = draw(st.sampled_from([CLASSES, CLASSES[:1], CLASSES[1:], *(((),) if suffix else ())]))
    return Group(
        suffix=suffix,
        resources={name: draw(st.integers(1, 3)) for name in wanted},
        traits=TraitDemand(required=draw(seldom(TRAITS[1:])), forbidden=frozenset().union(*draw(seldom(TRAITS[1:])))),
        aggregates=AggregateDemand(
            member_of=draw(seldom(AGGREGATES)), forbidden=frozenset().union(*draw(seldom(AGGREGATES)))
        ),
        in_tree=draw(st.sampled_from([None] * 5 + [*NAMES])),
    )


@st.composite
def requests(draw: st.DrawFn) -> Request:
    suffixes = draw(st.lists(st.sampled_from(SUFFIXES), unique=True, min_size=1, max_size=3))
    subtree = frozenset(suffix for suffix in suffixes if suffix)
    isolate, nested, in_one = draw(st.booleans()), draw(st.sampled_from([True, True, False])), draw(st.booleans())
    return Request(
        groups=tuple(draw(groups(suffix)) for suffix in suffixes),
        isolate=isolate,
        limit=10_000,
        root=TraitDemand(required=draw(seldom(("X",)))),
        same_subtrees=(subtree,) if subtree and in_one else (),
        nested=nested,
    )


Choice = tuple[str, ...]
"""Who gives each thing that is asked for: a class of the group without a suffix, or a whole group with one."""


def by_definition(request: Request, supply: Supply) -> set[object]:
    """Every choice of providers, and whether it is a candidate, each condition read off the API's reference."""
    asked: list[tuple[Group, Mapping[str, int]]] = []
    for group in request.groups:
        asked += (
            [(group, group.resources)]
            if group.suffix
            else [(group, {name: amount}) for name, amount in group.resources.items()]
        )
    good: set[object] = set()
    for root in set(supply.roots.values()):
        tree = [p for p in supply.providers.values() if supply.roots[p.uuid] == root]
        near = {aggregate for p in tree for aggregate in p.aggregates}
        usable = [
            p for p in supply.providers.values() if p in tree or (SHARING in p.traits and near & set(p.aggregates))
        ]
        for choice in itertools.product(usable, repeat=len(asked)):
            if holds(request, supply, supply.providers[root], list(zip(asked, choice, strict=True))):
                shares: dict[str, dict[str, int]] = {}
                mappings: dict[str, set[str]] = {}
                for (group, resources), provider in zip(asked, choice, strict=True):
                    mappings.setdefault(group.suffix, set()).add(provider.uuid)
                    for name, amount in resources.items():
                        of = shares.setdefault(provider.uuid, {})
                        of[name] = of.get(name, 0) + amount
                good.add(as_key(shares, mappings))
    return good


def as_key(shares: Mapping[str, Mapping[str, int]], mappings: Mapping[str, object]) -> object:
    taken = tuple(sorted((uuid, tuple(sorted(resources.items()))) for uuid, resources in shares.items()))
    return taken, tuple(sorted((suffix, tuple(sorted(met_by))) for suffix, met_by in mappings.items()))  # type: ignore[call-overload]


def holds(
    request: Request, supply: Supply, root: Provider, chosen: list[tuple[tuple[Group, Mapping[str, int]], Provider]]
) -> bool:
    if not all(group <= set(root.traits) for group in request.root.required):
        return False
    for (group, _), provider in chosen:
        own, above = set(provider.aggregates), set(root.aggregates)
        same_tree = supply.roots[provider.uuid] == root.uuid
        if group.traits.forbidden & set(provider.traits) or group.aggregates.forbidden & own:
            return False
        enough = all(one & own for one in group.aggregates.member_of)
        if not group.suffix:
            if group.aggregates.forbidden & above:
                return False
            enough = enough or (same_tree and all(one & above for one in group.aggregates.member_of))
        if not enough:
            return False
        if group.in_tree is not None:
            within = supply.roots.get(group.in_tree)
            if within is None or supply.roots[provider.uuid] != within or (not group.suffix and within != root.uuid):
                return False
    for group in request.groups:
        given_by = [provider for (of, _), provider in chosen if of is group]
        together = {name for provider in given_by for name in provider.traits}
        if not all(one & together for one in group.traits.required):
            return False
    return fits(supply, chosen) and stands(request, supply, chosen)


def fits(supply: Supply, chosen: list[tuple[tuple[Group, Mapping[str, int]], Provider]]) -> bool:
    wanted: dict[tuple[int, str], int] = {}
    for (_, resources), provider in chosen:
        for name, amount in resources.items():
            key = (provider.id, name)
            wanted[key] = wanted.get(key, 0) + amount
    for (number, name), amount in wanted.items():
        offered = supply.inventories.get(number, {}).get(name)
        if offered is None or amount > offered.max_unit or supply.used[number][name] + amount > offered.total:
            return False
    return True


def stands(request: Request, supply: Supply, chosen: list[tuple[tuple[Group, Mapping[str, int]], Provider]]) -> bool:
    alone = [provider.uuid for (group, _), provider in chosen if group.suffix]
    if request.isolate and len(set(alone)) != len(alone):
        return False
    giving = {provider.uuid for (_, resources), provider in chosen if resources}
    if not request.nested and len({supply.roots[uuid] for uuid in giving}) != len(giving):
        return False
    for suffixes in request.same_subtrees:
        named = {provider.uuid for (group, _), provider in chosen if group.suffix in suffixes}
        if not any(all(top in ancestry(supply, uuid) for uuid in named) for top in named):
            return False
    return True


def ancestry(supply: Supply, uuid: str) -> Iterator[str]:
    above: str | None = uuid
    while above is not None:
        yield above
        above = supply.providers[above].parent_uuid


@settings(max_examples=400, deadline=None)
@given(requests(), supplies())
def test_candidates_are_those_of_the_definition(request: Request, supply: Supply) -> None:
    answered = [as_key(candidate.shares, candidate.mappings) for candidate in candidates(request, supply)]
    assert len(answered) == len(set(answered))
    assert set(answered) == by_definition(request, supply)


def test_a_request_that_could_be_met_in_more_ways_than_can_be_looked_at_ends() -> None:
    numbers = range(1, 13)
    cards = {f"nic{n}": provider(n, f"nic{n}", parent="nic1" if n > 1 else None) for n in numbers}
    supply = Supply(
        providers=cards,
        roots=dict.fromkeys(cards, "nic1"),
        inventories={n: {"SRIOV_NET_VF": inventory(12)} for n in numbers},
        used={},
    )

    def asking(amount: int, limit: int) -> Request:
        wanted = tuple(Group(suffix=str(n), resources={"SRIOV_NET_VF": amount}, **ANY) for n in numbers)
        return Request(groups=wanted, isolate=False, limit=limit, root=NO_TRAIT, same_subtrees=(), nested=True)

    # 12 to the power of 12 ways, all of them good; then, 12 VFs each, only those where no two are of one card.
    assert len(list(candidates(asking(1, 50), supply, most_steps=1000))) == 50
    assert 0 < len(list(candidates(asking(1, 10_000), supply, most_steps=1000))) < 1000
    assert len(list(candidates(asking(12, 10_000), supply, most_steps=1000))) < 1000
