"""Allocation candidates over HTTP: where a request for resources could be met now (the search is `candidates`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest
from cumulet.placement import names, providers
from cumulet.placement.candidates import (
    MOST_CANDIDATES,
    MOST_GROUPS,
    Candidate,
    Group,
    Request,
    Supply,
    candidates,
)
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.wire import BAD_VALUE, aggregate_demand, amounts, canonical_uuid, fresh, trait_demand
from cumulet.web.operation import Call, Microversion, Query, Reply, Rule

LIST = admin_or_service("allocation_candidates:list", "List where a request for resources could be met.")

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
    if len(by_suffix) > MOST_GROUPS:
        raise BadRequest(f"Invalid query string parameters: there are more than {MOST_GROUPS} request groups.")
    groups = tuple(_read_group(suffix, by_kind, version) for suffix, by_kind in by_suffix.items())
    if not groups:
        raise BadRequest("At least one request group (`resources` or `resources{$S}`) is required.")
    subtrees = tuple(_suffixes(text) for text in query.getall("same_subtree"))
    _require_resources(groups, frozenset().union(*subtrees))
    policy = next(iter(query.getall("group_policy")), None)
    if policy not in (None, "none", "isolate"):
        raise BadRequest("Invalid query string parameters: group_policy is not one of ['none', 'isolate']")
    if policy is None and sum(bool(group.suffix) for group in groups) > 1:
        raise BadRequest(
            'The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.'
        )
    wanted_of_root = query.getall("root_required")
    if len(wanted_of_root) > 1:
        raise BadRequest(
            "The query parameter 'root_required' may be given only once.", reason="placement.query.duplicate_key"
        )
    return Request(
        groups=groups,
        isolate=policy == "isolate",
        limit=_limit(next(iter(query.getall("limit")), None)),
        root=trait_demand(wanted_of_root, forbidding=True, alternatives=False),
        same_subtrees=subtrees,
        nested=version.at_least("1.29"),
    )


def _read_group(suffix: str, by_kind: Mapping[str, list[str]], version: Microversion) -> Group:
    required = by_kind.get("required", [])
    in_tree = by_kind.get("in_tree", [])
    resources = by_kind.get("resources")
    return Group(
        suffix=suffix,
        resources=amounts(resources[-1]) if resources else {},
        traits=trait_demand(
            required if version.at_least("1.39") else required[-1:],
            forbidding=version.at_least("1.22"),
            alternatives=version.at_least("1.39"),
        ),
        aggregates=aggregate_demand(by_kind.get("member_of", []), version),
        in_tree=canonical_uuid(in_tree[-1], "in_tree") if in_tree else None,
    )


def _suffixes(text: str) -> frozenset[str]:
    """Of one ``same_subtree``."""
    found = frozenset(suffix.strip() for suffix in text.split(","))
    if "" in found:
        raise BadRequest("The group without a suffix cannot be named in 'same_subtree'.", reason=BAD_VALUE)
    return found


def _require_resources(groups: tuple[Group, ...], in_subtrees: frozenset[str]) -> None:
    """Only a group that ``same_subtree`` names may ask for no resources, and one group asks for some."""
    if not any(group.resources for group in groups):
        raise BadRequest("At least one request group must specify resources.", reason="placement.query.missing_value")
    for group in groups:
        if not group.resources and group.suffix not in in_subtrees:
            raise BadRequest(
                "All request groups must specify resources, except those that 'same_subtree' names.", reason=BAD_VALUE
            )
    unknown = in_subtrees - {group.suffix for group in groups}
    if unknown:
        listed = ", ".join(sorted(unknown))[:255]
        raise BadRequest(f"'same_subtree' names groups that are not in the request: {listed}.", reason=BAD_VALUE)


def _limit(text: str | None) -> int:
    if text is None:
        return MOST_CANDIDATES
    if not (text.isascii() and text.isdigit() and text[0] != "0"):
        raise BadRequest("Invalid query string parameters: limit is not a positive integer")
    return min(int(text[:9]), MOST_CANDIDATES)


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
    found = list(candidates(request, supply))
    asked = {name for group in request.groups for name in group.resources}
    taken_of = {uuid for candidate in found for uuid in candidate.shares}
    roots = {supply.roots[uuid] for uuid in taken_of}
    summaries = {
        uuid: _summary(uuid, supply, asked, call.version)
        for uuid, root in supply.roots.items()
        if (root in roots if request.nested else uuid in taken_of)
    }
    requests = [_allocation_request(candidate, call.version) for candidate in found]
    return fresh(call, {"allocation_requests": requests, "provider_summaries": summaries})


def _supply(tx: Tx) -> Supply:
    parents = providers.parents_by_uuid(tx)
    found = {provider.uuid: provider for provider in providers.load(tx)}
    return Supply(
        providers=found,
        roots={uuid: providers.root_of(uuid, parents) for uuid in found},
        inventories=providers.inventories_of(tx),
        used=providers.used_of(tx),
    )


def _allocation_request(candidate: Candidate, version: Microversion) -> dict[str, object]:
    shares = candidate.shares
    if not version.at_least("1.12"):
        listed = [{"resource_provider": {"uuid": uuid}, "resources": resources} for uuid, resources in shares.items()]
        return {"allocations": listed}
    request: dict[str, object] = {"allocations": {uuid: {"resources": resources} for uuid, resources in shares.items()}}
    if version.at_least("1.34"):
        request["mappings"] = candidate.mappings
    return request


def _summary(uuid: str, supply: Supply, asked: set[str], version: Microversion) -> dict[str, object]:
    provider = supply.providers[uuid]
    has, used = supply.inventories.get(provider.id, {}), supply.used.get(provider.id, {})
    summary: dict[str, object] = {
        "resources": {
            name: {"capacity": inventory.capacity, "used": used.get(name, 0)}
            for name, inventory in has.items()
            if version.at_least("1.27") or name in asked
        }
    }
    if version.at_least("1.17"):
        summary["traits"] = sorted(provider.traits, key=lambda name: (names.is_custom(name), name))
    if version.at_least("1.29"):
        summary["parent_provider_uuid"] = provider.parent_uuid
        summary["root_provider_uuid"] = supply.roots[uuid]
    return summary
