"""Allocation candidates over HTTP: where a request for resources could be met now.

A request has groups: one without a suffix, whose resources may come from several providers of one tree, and any number
with a suffix, each met by one provider. Candidates never span trees; sharing providers are not offered (`api_traits`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

import msgspec

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotYet
from cumulet.placement import names, providers
from cumulet.placement.providers import Inventory, Provider
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.wire import (
    AggregateDemand,
    TraitDemand,
    aggregate_demand,
    amounts,
    canonical_uuid,
    fresh,
    trait_demand,
)
from cumulet.web.operation import Call, Microversion, Query, Reply, Rule

LIST = admin_or_service("allocation_candidates:list", "List where a request for resources could be met.")

# No request makes more combinations than this, whatever it asks for.
MOST_COMBINATIONS = 10_000

_GROUP_KEY = re.compile(r"(resources|required|member_of|in_tree)([1-9][0-9]*)?", re.ASCII)
_GROUP_KEY_1_33 = re.compile(r"(resources|required|member_of|in_tree)([a-zA-Z0-9_-]{1,64})?", re.ASCII)
_SINCE = {
    "resources": "1.10",
    "limit": "1.16",
    "required": "1.17",
    "member_of": "1.21",
    "group_policy": "1.25",
    "in_tree": "1.31",
    "root_required": "1.35",
    "same_subtree": "1.36",
}


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Resources that are asked for together, and of what kind of provider."""

    suffix: str
    resources: Mapping[str, int]
    traits: TraitDemand
    aggregates: AggregateDemand
    in_tree: str | None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A whole request. `isolate`: groups with a suffix are met by different providers."""

    groups: tuple[Group, ...]
    isolate: bool
    limit: int
    root: TraitDemand


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """All providers, by tree, with what they have and what is used of it."""

    trees: Mapping[str, list[Provider]]
    inventories: Mapping[int, Mapping[str, Inventory]]
    used: Mapping[int, Mapping[str, int]]

    def fits(self, provider: Provider, resources: Mapping[str, int]) -> bool:
        has, used = self.inventories.get(provider.id, {}), self.used.get(provider.id, {})
        return all(name in has and has[name].fits(n, used.get(name, 0)) for name, n in resources.items())


Choice = Mapping[str, tuple[Provider, ...]]
"""By suffix, the providers that meet the group."""
Shares = dict[str, dict[str, int]]
"""Provider uuid -> resource class -> amount."""


# -- reading the request


def read_request(query: Query, version: Microversion) -> Request:
    """The request in a query; 400 where it cannot be understood."""
    grouped = version.at_least("1.25")
    pattern = _GROUP_KEY_1_33 if version.at_least("1.33") else _GROUP_KEY
    by_suffix: dict[str, dict[str, list[str]]] = {}
    for key, value in query.pairs:
        match = pattern.fullmatch(key)
        kind, suffix = (match[1], match[2] or "") if match else (key, "")
        if kind not in _SINCE or not version.at_least(_SINCE[kind]) or (suffix and not grouped):
            raise BadRequest(f"Invalid query string parameters: Additional properties are not allowed ({key[:64]!r})")
        if match:
            by_suffix.setdefault(suffix, {}).setdefault(kind, []).append(value)
    if "same_subtree" in query:
        raise NotYet("Cumulet does not offer same_subtree in allocation candidates yet.")
    groups = tuple(_read_group(suffix, by_kind, version) for suffix, by_kind in by_suffix.items())
    if not groups:
        raise BadRequest("At least one request group (`resources` or `resources{$S}`) is required.")
    policy = query.get("group_policy")
    if policy not in (None, "none", "isolate"):
        raise BadRequest("Invalid query string parameters: group_policy is not one of ['none', 'isolate']")
    if policy is None and sum(bool(group.suffix) for group in groups) > 1:
        raise BadRequest(
            'The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.'
        )
    root = trait_demand(query.getall("root_required")[-1:], forbidding=True, alternatives=False)
    return Request(groups=groups, isolate=policy == "isolate", limit=_limit(query.get("limit")), root=root)


def _read_group(suffix: str, by_kind: Mapping[str, list[str]], version: Microversion) -> Group:
    if "resources" not in by_kind:
        raise BadRequest("All request groups must specify resources.")
    required = by_kind.get("required", [])
    member_of = by_kind.get("member_of", [])
    in_tree = by_kind.get("in_tree", [])
    return Group(
        suffix=suffix,
        resources=amounts(by_kind["resources"][-1]),
        traits=trait_demand(
            required if version.at_least("1.39") else required[-1:],
            forbidding=version.at_least("1.22"),
            alternatives=version.at_least("1.39"),
        ),
        aggregates=aggregate_demand(
            member_of if version.at_least("1.24") else member_of[-1:], forbidding=version.at_least("1.32")
        ),
        in_tree=canonical_uuid(in_tree[-1], "in_tree") if in_tree else None,
    )


def _limit(text: str | None) -> int:
    if text is None:
        return MOST_COMBINATIONS
    if not (text.isascii() and text.isdigit() and text[0] != "0"):
        raise BadRequest("Invalid query string parameters: limit is not a positive integer")
    return min(int(text[:9]), MOST_COMBINATIONS)


# -- finding candidates


def _supply(tx: Tx) -> Supply:
    parents = providers.parents_by_uuid(tx)
    trees: dict[str, list[Provider]] = {}
    for provider in providers.load(tx):
        trees.setdefault(providers.root_of(provider.uuid, parents), []).append(provider)
    return Supply(trees=trees, inventories=providers.inventories_of(tx), used=providers.used_of(tx))


def candidates(request: Request, supply: Supply, *, nested: bool) -> Iterator[tuple[str, Choice, Shares]]:
    """(root uuid, who meets which group, what is taken of whom), tree by tree."""
    for root_uuid, tree in supply.trees.items():
        root = next(provider for provider in tree if provider.uuid == root_uuid)
        if not request.root.met_by(frozenset(root.traits)):
            continue
        for choice, shares in _in_tree(request, supply, tree, root):
            if nested or len(shares) == 1:
                yield root_uuid, choice, shares


def _in_tree(request: Request, supply: Supply, tree: list[Provider], root: Provider) -> Iterator[tuple[Choice, Shares]]:
    options: list[list[tuple[Group, Shares]]] = []
    for group in request.groups:
        if group.in_tree is not None and all(provider.uuid != group.in_tree for provider in tree):
            return
        found = list(itertools.islice(_ways(group, supply, tree, root), MOST_COMBINATIONS))
        if not found:
            return
        options.append([(group, way) for way in found])
    by_uuid = {provider.uuid: provider for provider in tree}
    for combination in itertools.islice(itertools.product(*options), MOST_COMBINATIONS):
        alone = [uuid for group, way in combination if group.suffix for uuid in way]
        if request.isolate and len(set(alone)) != len(alone):
            continue
        shares: Shares = {}
        for _, way in combination:
            for uuid, resources in way.items():
                of_provider = shares.setdefault(uuid, {})
                for name, amount in resources.items():
                    of_provider[name] = of_provider.get(name, 0) + amount
        # Groups that fit one by one may not fit together.
        if all(supply.fits(by_uuid[uuid], resources) for uuid, resources in shares.items()):
            yield {group.suffix: tuple(by_uuid[uuid] for uuid in way) for group, way in combination}, shares


def _ways(group: Group, supply: Supply, tree: list[Provider], root: Provider) -> Iterator[Shares]:
    """The ways to meet one group within a tree."""
    if group.suffix:
        for provider in tree:
            if (
                group.traits.met_by(frozenset(provider.traits))
                and group.aggregates.met_by(provider.aggregates)
                and supply.fits(provider, group.resources)
            ):
                yield {provider.uuid: dict(group.resources)}
        return
    # An aggregate of the root counts for its whole tree.
    eligible = [
        provider
        for provider in tree
        if not group.traits.forbidden & set(provider.traits)
        and group.aggregates.met_by((*provider.aggregates, *root.aggregates))
    ]
    by_class = [
        [provider for provider in eligible if supply.fits(provider, {name: amount})]
        for name, amount in group.resources.items()
    ]
    for chosen in itertools.islice(itertools.product(*by_class), MOST_COMBINATIONS):
        if not group.traits.met_by(frozenset(trait for provider in chosen for trait in provider.traits)):
            continue
        way: Shares = {}
        for provider, (name, amount) in zip(chosen, group.resources.items(), strict=True):
            way.setdefault(provider.uuid, {})[name] = amount
        yield way


# -- answering


@PLACEMENT.operation("GET", "/allocation_candidates", rules=(Rule(LIST),), since="1.10")
def list_allocation_candidates(call: Call[None, None]) -> Reply:
    """List where a request for resources could be met now, ready to be sent as allocations."""
    request = read_request(call.query, call.version)
    for group in request.groups:
        names.require_classes(call.tx, group.resources, "Invalid resource class in resources parameter")
        names.require_traits(call.tx, group.traits.names())
    names.require_traits(call.tx, request.root.names())
    supply = _supply(call.tx)
    found = candidates(request, supply, nested=call.version.at_least("1.29"))
    requests: list[dict[str, object]] = []
    roots: dict[str, set[str]] = {}
    for root_uuid, choice, shares in itertools.islice(found, request.limit):
        requests.append(_allocation_request(choice, shares, call.version))
        roots.setdefault(root_uuid, set()).update(shares)
    asked = {name for group in request.groups for name in group.resources}
    summaries = {
        provider.uuid: _summary(provider, root_uuid, supply, asked, call.version)
        for root_uuid, in_use in roots.items()
        for provider in supply.trees[root_uuid]
        if call.version.at_least("1.29") or provider.uuid in in_use
    }
    return fresh(call, {"allocation_requests": requests, "provider_summaries": summaries})


def _allocation_request(choice: Choice, shares: Shares, version: Microversion) -> dict[str, object]:
    if not version.at_least("1.12"):
        listed = [{"resource_provider": {"uuid": uuid}, "resources": resources} for uuid, resources in shares.items()]
        return {"allocations": listed}
    request: dict[str, object] = {"allocations": {uuid: {"resources": resources} for uuid, resources in shares.items()}}
    if version.at_least("1.34"):
        request["mappings"] = {suffix: [provider.uuid for provider in chosen] for suffix, chosen in choice.items()}
    return request


def _summary(
    provider: Provider, root_uuid: str, supply: Supply, asked: set[str], version: Microversion
) -> dict[str, object]:
    has, used = supply.inventories.get(provider.id, {}), supply.used.get(provider.id, {})
    summary: dict[str, object] = {
        "resources": {
            name: {"capacity": inventory.capacity, "used": used.get(name, 0)}
            for name, inventory in has.items()
            if version.at_least("1.27") or name in asked
        }
    }
    if version.at_least("1.17"):
        summary["traits"] = list(provider.traits)
    if version.at_least("1.29"):
        summary["parent_provider_uuid"] = provider.parent_uuid
        summary["root_provider_uuid"] = root_uuid
    return summary
