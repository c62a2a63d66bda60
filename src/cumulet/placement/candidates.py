"""Where a request for resources could be met: a pure search over all providers, tree by tree.

Theory of operation. A request has groups. The one without a suffix may take each resource class from another provider;
a group with a suffix is met by one provider. Every candidate has an anchor, the root of a tree: it takes from the
providers of that tree, and from sharing providers (trait MISC_SHARES_VIA_AGGREGATE) that have an aggregate in common
with any provider of the tree. The same shares of the same providers are one candidate, whatever its anchors. Semantics
are the Placement API's, microversion 1.39 ("Granular Resource Requests", "Modeling with Provider Trees").

The number of combinations grows exponentially with the groups, so the search counts its steps and ends at a bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cumulet.placement.providers import Inventory, Provider
from cumulet.placement.wire import AggregateDemand, TraitDemand

MOST_CANDIDATES = 10_000
"""The most candidates in one answer, whatever `limit` says."""
MOST_STEPS = 100_000
"""Ways and combinations of ways that the search for one request may look at. It answers what it has found by then."""
MOST_GROUPS = 100
"""The most groups of one request. The search goes one call deeper for each group."""
SHARING = "MISC_SHARES_VIA_AGGREGATE"


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Resources that belong together, and which providers may give them. Without resources it only names a provider."""

    suffix: str
    resources: Mapping[str, int]
    traits: TraitDemand
    aggregates: AggregateDemand
    in_tree: str | None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A whole request.

    `isolate`: groups with a suffix are met by different providers. `same_subtrees`: for each set of suffixes, one of
    the providers that meet those groups is an ancestor of all the others, or they are one. `nested`: a candidate may
    take from several providers of one tree.
    """

    groups: tuple[Group, ...]
    isolate: bool
    limit: int
    root: TraitDemand
    same_subtrees: tuple[frozenset[str], ...]
    nested: bool


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """All providers, with what they have and what is used of it."""

    providers: Mapping[str, Provider]
    roots: Mapping[str, str]
    """Provider uuid -> the root of its tree."""
    inventories: Mapping[int, Mapping[str, Inventory]]
    used: Mapping[int, Mapping[str, int]]

    def fits(self, uuid: str, resources: Mapping[str, int]) -> bool:
        provider = self.providers[uuid]
        has, used = self.inventories.get(provider.id, {}), self.used.get(provider.id, {})
        return all(name in has and has[name].fits(n, used.get(name, 0)) for name, n in resources.items())

    def trees(self) -> dict[str, list[Provider]]:
        """Root uuid -> the providers of its tree."""
        found: dict[str, list[Provider]] = {}
        for provider in self.providers.values():
            found.setdefault(self.roots[provider.uuid], []).append(provider)
        return found

    def lineage(self, uuid: str) -> set[str]:
        """The provider and all its ancestors."""
        found: set[str] = set()
        above: str | None = uuid
        while above is not None:
            found.add(above)
            above = self.providers[above].parent_uuid
        return found


Shares = dict[str, dict[str, int]]
"""Provider uuid -> resource class -> amount."""


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way to meet one group: the amounts by provider, and the providers that meet it (some may give nothing)."""

    suffix: str
    takes: Mapping[str, Mapping[str, int]]
    met_by: tuple[str, ...]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way to meet the whole request: `shares` can be sent as allocations; `mappings`: suffix -> provider uuids."""

    shares: Shares
    mappings: Mapping[str, tuple[str, ...]]


class _Tree(msgspec.Struct, frozen=True, kw_only=True):
    root: Provider
    own: Sequence[Provider]
    shared: Sequence[Provider]


class _Steps:
    """The steps that one search has left."""

    def __init__(self, most: int) -> None:
        self._left = most

    def spend(self) -> bool:
        self._left -= 1
        return self._left >= 0


def candidates(request: Request, supply: Supply, *, most_steps: int = MOST_STEPS) -> Iterator[Candidate]:
    """Every candidate once, at most `request.limit` of them."""
    return itertools.islice(_distinct(request, supply, _Steps(most_steps)), request.limit)


def _distinct(request: Request, supply: Supply, steps: _Steps) -> Iterator[Candidate]:
    seen: set[object] = set()
    for tree in _anchors(request, supply):
        for candidate in _in_tree(request, supply, tree, steps):
            met_by = itertools.chain.from_iterable(candidate.mappings.values())
            if any(SHARING not in supply.providers[uuid].traits for uuid in met_by):
                yield candidate  # Only one anchor, the root of that provider, can find it.
                continue
            key = (
                frozenset((uuid, frozenset(taken.items())) for uuid, taken in candidate.shares.items()),
                frozenset((suffix, frozenset(met_by)) for suffix, met_by in candidate.mappings.items()),
            )
            if key not in seen:
                seen.add(key)
                yield candidate


def _anchors(request: Request, supply: Supply) -> Iterator[_Tree]:
    sharing = [provider for provider in supply.providers.values() if SHARING in provider.traits]
    for root_uuid, own in supply.trees().items():
        root = supply.providers[root_uuid]
        if not request.root.met_by(frozenset(root.traits)):
            continue
        shared: list[Provider] = []
        if sharing:
            aggregates = {aggregate for provider in own for aggregate in provider.aggregates}
            shared = [
                p for p in sharing if supply.roots[p.uuid] != root_uuid and not aggregates.isdisjoint(p.aggregates)
            ]
        yield _Tree(root=root, own=own, shared=shared)


def _in_tree(request: Request, supply: Supply, tree: _Tree, steps: _Steps) -> Iterator[Candidate]:
    options: list[list[Way]] = []
    for group in request.groups:
        ways = list(_ways(group, supply, tree, steps))
        if not ways:
            return
        options.append(ways)
    for chosen, shares in _combinations(request, supply, options, (), {}, steps):
        if not request.nested and len({supply.roots[uuid] for uuid in shares}) != len(shares):
            continue
        mappings = {way.suffix: way.met_by for way in chosen}
        if all(_is_subtree(suffixes, mappings, supply) for suffixes in request.same_subtrees):
            yield Candidate(shares=shares, mappings=mappings)


def _combinations(
    request: Request,
    supply: Supply,
    options: Sequence[Sequence[Way]],
    chosen: tuple[Way, ...],
    taken: Shares,
    steps: _Steps,
) -> Iterator[tuple[tuple[Way, ...], Shares]]:
    """One way for each group, such that all fit together. Ways that fit alone may not fit together."""
    if len(chosen) == len(options):
        yield chosen, taken
        return
    for way in options[len(chosen)]:
        if not steps.spend():
            return
        alone = request.isolate and way.suffix
        if alone and any(other.suffix and not set(way.met_by).isdisjoint(other.met_by) for other in chosen):
            continue
        after = _added(taken, way)
        if all(supply.fits(uuid, after[uuid]) for uuid in way.takes):
            yield from _combinations(request, supply, options, (*chosen, way), after, steps)


def _added(taken: Shares, way: Way) -> Shares:
    after = dict(taken)
    for uuid, resources in way.takes.items():
        before = taken.get(uuid, {})
        after[uuid] = before | {name: before.get(name, 0) + amount for name, amount in resources.items()}
    return after


def _is_subtree(suffixes: frozenset[str], mappings: Mapping[str, tuple[str, ...]], supply: Supply) -> bool:
    named = {uuid for suffix in suffixes for uuid in mappings[suffix]}
    common = set.intersection(*(supply.lineage(uuid) for uuid in named))
    return not common.isdisjoint(named)


def _ways(group: Group, supply: Supply, tree: _Tree, steps: _Steps) -> Iterator[Way]:
    """The ways to meet one group within a tree and what shares with it."""
    within = None
    if group.in_tree is not None:
        within = supply.roots.get(group.in_tree)
        if within is None:
            return
    if group.suffix:
        for provider in (*tree.own, *tree.shared):
            if not steps.spend():
                return
            if (
                within in (None, supply.roots[provider.uuid])
                and group.traits.met_by(frozenset(provider.traits))
                and group.aggregates.met_by(provider.aggregates)
                and supply.fits(provider.uuid, group.resources)
            ):
                takes = {provider.uuid: group.resources} if group.resources else {}
                yield Way(suffix=group.suffix, takes=takes, met_by=(provider.uuid,))
        return
    if within not in (None, tree.root.uuid):
        return
    eligible = [
        provider for provider in _eligible(group, tree, within) if not group.traits.forbidden & set(provider.traits)
    ]
    by_class = [
        [provider for provider in eligible if supply.fits(provider.uuid, {name: amount})]
        for name, amount in group.resources.items()
    ]
    for chosen in itertools.product(*by_class):
        if not steps.spend():
            return
        if not group.traits.met_by(frozenset(trait for provider in chosen for trait in provider.traits)):
            continue
        takes_of: Shares = {}
        for provider, (name, amount) in zip(chosen, group.resources.items(), strict=True):
            takes_of.setdefault(provider.uuid, {})[name] = amount
        yield Way(suffix="", takes=takes_of, met_by=tuple(takes_of))


def _eligible(group: Group, tree: _Tree, within: str | None) -> Iterator[Provider]:
    """Providers with suitable aggregates for the group without a suffix. The root's count for its whole tree."""
    demand = group.aggregates
    if not demand.allows(tree.root.aggregates):
        return
    by_root = demand.has(tree.root.aggregates)
    for provider in tree.own:
        if demand.allows(provider.aggregates) and (by_root or demand.has(provider.aggregates)):
            yield provider
    if within is None:
        yield from (provider for provider in tree.shared if demand.met_by(provider.aggregates))
