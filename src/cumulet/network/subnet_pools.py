"""Subnet pools: ``/subnetpools``. Ranges that subnets are cut from, so that they do not overlap."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from ipaddress import collapse_addresses, ip_network
from typing import Annotated

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict
from cumulet.network import bodies, limits, policy, refusals, resource, scopes, sharing_use, topology
from cumulet.network.address_scope_records import AddressScope
from cumulet.network.address_scopes import ADDRESS_SCOPES
from cumulet.network.addresses import AddressRange, overlap, range_of
from cumulet.network.bodies import either, text
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sharing import Shareable, Sharing
from cumulet.network.sight import shared_in_sight
from cumulet.network.store import (
    change,
    delete,
    find,
    get,
    insert,
    must_get,
    subnets,
    tags_of,
)
from cumulet.network.subnet_pool_records import SubnetPool, subnet_pools
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import base_rule, rule
from cumulet.web.schema import UNSET, Body, Json, Unset

base_rule("shared_subnetpools", "field:subnetpools:shared=True", "A shared subnet pool")

MAX_QUOTA = 2**31 - 1
_SEEN = f"{policy.ADMIN_OR_PROJECT_READER} or rule:shared_subnetpools"
CREATE = rule("create_subnetpool", policy.ADMIN_OR_PROJECT_MEMBER, description="Create a subnet pool")
CREATE_ATTRIBUTES = policy.attribute_rules(
    CREATE, {"shared": policy.ADMIN, "is_default": policy.ADMIN, "tags": policy.ADMIN_OR_PROJECT_MEMBER}
)
SHOW = rule("get_subnetpool", _SEEN, description="See a subnet pool")
SHOW_ATTRIBUTES = policy.attribute_rules(SHOW, {"tags": _SEEN})
UPDATE = rule("update_subnetpool", policy.ADMIN_OR_PROJECT_MEMBER, description="Change a subnet pool")
UPDATE_ATTRIBUTES = policy.attribute_rules(UPDATE, {"is_default": policy.ADMIN, "tags": policy.ADMIN_OR_PROJECT_MEMBER})
DELETE = rule("delete_subnetpool", policy.ADMIN_OR_PROJECT_MEMBER, description="Delete a subnet pool")
DELETE_TAGS = rule("delete_subnetpool:tags", policy.ADMIN_OR_PROJECT_MEMBER, description="Remove tags of a subnet pool")

QUOTA_PREFIXLEN = {4: 32, 6: 64}
"""The length of the range that is one unit of `default_quota`, by IP version."""
MIN_PREFIXLEN = {4: 8, 6: 64}
"""Upstream's default of the shortest prefix length that may be cut, by IP version."""


def subnet_pool_views(tx: Tx, records: Sequence[SubnetPool]) -> list[View]:
    """Subnet pools as the API shows them. As upstream, prefix lengths are text."""
    tags = tags_of(tx, [pool.id for pool in records])
    return [
        resource.resource_view(pool, tags.get(pool.id, []))
        | {
            "name": pool.name,
            "prefixes": pool.prefixes,
            "ip_version": pool.ip_version,
            "min_prefixlen": str(pool.min_prefixlen),
            "max_prefixlen": str(pool.max_prefixlen),
            "default_prefixlen": str(pool.default_prefixlen),
            "default_quota": pool.default_quota,
            "is_default": pool.is_default,
            "address_scope_id": pool.address_scope_id,
        }
        for pool in records
    ]


_QUERIED = (
    "name",
    "default_quota",
    "ip_version",
    "default_prefixlen",
    "min_prefixlen",
    "max_prefixlen",
    "is_default",
    "address_scope_id",
)

SHARING = Sharing(object_type=Shareable.SUBNET_POOL, column=subnet_pools.c.id)
SUBNET_POOLS = Kind(
    record=SubnetPool,
    singular="subnetpool",
    plural="subnetpools",
    title="Subnet pool",
    show=SHOW,
    sight=lambda caller: shared_in_sight(caller, SHARING),
    filters=resource.filters_on(subnet_pools, *_QUERIED) | {"shared": SHARING},
    sorts=resource.sorts_on(subnet_pools, *_QUERIED) | {"shared": SHARING.for_everybody},
    views=subnet_pool_views,
    hidden=SHOW_ATTRIBUTES,
    sharing=SHARING,
)

Prefixes = Annotated[list[bodies.IpRange], Json({"minItems": 1, "maxItems": 100})]


class NewSubnetPool(bodies.NewResource):
    name: Annotated[str, Json({"minLength": 1, "maxLength": 255})]
    prefixes: Prefixes
    min_prefixlen: bodies.Number | Unset = UNSET
    max_prefixlen: bodies.Number | Unset = UNSET
    default_prefixlen: bodies.Number | Unset = UNSET
    default_quota: bodies.Number | Unset | None = UNSET
    shared: bodies.Truth | Unset = UNSET
    is_default: bodies.Truth | Unset = UNSET
    address_scope_id: bodies.Id | Unset | None = UNSET
    tags: bodies.Tags | Unset = UNSET


class CreateSubnetPools(Body):
    subnetpool: NewSubnetPool | Unset = UNSET
    subnetpools: list[NewSubnetPool] | Unset = UNSET


class UpdateSubnetPool(bodies.ResourceChange):
    name: Annotated[str, Json({"minLength": 1, "maxLength": 255})] | Unset = UNSET
    prefixes: Prefixes | Unset = UNSET
    min_prefixlen: bodies.Number | Unset = UNSET
    max_prefixlen: bodies.Number | Unset = UNSET
    default_prefixlen: bodies.Number | Unset = UNSET
    default_quota: bodies.Number | Unset | None = UNSET
    is_default: bodies.Truth | Unset = UNSET
    address_scope_id: bodies.Id | Unset | None = UNSET


# -- cutting


_CUT = sa.select(subnets.c.project_id, subnets.c.cidr).where(subnets.c.subnetpool_id == sa.bindparam("of_pool"))


def cut(tx: Tx, pool: SubnetPool, *, cidr: AddressRange | None, prefixlen: int | None, project_id: str) -> AddressRange:
    """A free range of the pool: the wanted one, or the lowest one of a prefix length. Refused if none is free."""
    length = cidr.prefixlen if cidr is not None else (pool.default_prefixlen if prefixlen is None else prefixlen)
    if length < pool.min_prefixlen:
        raise BadRequest(
            f"Unable to allocate subnet with prefix length {length}, minimum allowed prefix is {pool.min_prefixlen}."
        )
    if length > pool.max_prefixlen:
        raise BadRequest(
            f"Unable to allocate subnet with prefix length {length}, maximum allowed prefix is {pool.max_prefixlen}."
        )
    cut_before = [(owner, range_of(text)) for owner, text in tx.all(_CUT, {"of_pool": pool.id})]
    own = [one.prefixlen for owner, one in cut_before if owner == project_id]
    if pool.default_quota and sum(_units(pool, one) for one in [*own, length]) > pool.default_quota:
        raise Conflict("Per-project subnet pool prefix quota exceeded.", reason="SubnetPoolQuotaExceeded")
    taken = [one for _, one in cut_before]
    prefixes = [range_of(prefix) for prefix in pool.prefixes]
    if cidr is not None:
        if any(_within(cidr, prefix) for prefix in prefixes) and not any(overlap(cidr, other) for other in taken):
            return cidr
        raise BadRequest(
            "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes."
        )
    ends = sorted((int(one.broadcast_address), int(one.network_address)) for one in taken)
    for prefix in prefixes:
        found = _lowest_gap(prefix, length, ends)
        if found is not None:
            return found
    raise BadRequest(
        "Failed to allocate subnet: Insufficient prefix space to allocate subnet size /" + str(length) + "."
    )


def _units(pool: SubnetPool, length: int) -> float:
    """How much of a project's quota a range takes: in IPv4 one unit for each address, in IPv6 for each /64."""
    return 2.0 ** (QUOTA_PREFIXLEN[pool.ip_version] - length)


def _within(inner: AddressRange, outer: AddressRange) -> bool:
    return inner.version == outer.version and inner.network_address in outer and inner.prefixlen >= outer.prefixlen


def _lowest_gap(prefix: AddressRange, length: int, taken: Sequence[tuple[int, int]]) -> AddressRange | None:
    """The lowest free range of this prefix length in a prefix; None without one. `taken`: the last and first address of
    each range that is not free, in order. None overlaps with another."""
    if length < prefix.prefixlen:
        return None
    size = 1 << (prefix.max_prefixlen - length)
    start, end = int(prefix.network_address), int(prefix.broadcast_address)
    for last, first in itertools.islice(taken, bisect.bisect_left(taken, (start, 0)), None):
        if start + size <= first or first > end:
            break
        start = max(start, -(-(last + 1) // size) * size)
    if start + size - 1 > end:
        return None
    return ip_network((start, length)) if prefix.version == 4 else ip_network((start.to_bytes(16, "big"), length))


# -- operations


@NETWORK.operation("GET", "/subnetpools", rules=())
def list_subnetpools(call: Call[None, None]) -> View:
    """List the project's subnet pools and shared ones; for administrators all."""
    return resource.listed(call, SUBNET_POOLS)


@NETWORK.operation(
    "POST",
    "/subnetpools",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(SUBNET_POOLS),
    body=CreateSubnetPools,
    success=201,
)
def create_subnetpools(call: Call[None, CreateSubnetPools]) -> View:
    """Create a subnet pool, or several at once."""
    return resource.created(call, SUBNET_POOLS, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewSubnetPool) -> SubnetPool:
    project_id = resource.may_create(call, new, CREATE, CREATE_ATTRIBUTES)
    limits.check(call.tx, project_id, "subnetpool")
    _check_quota(new.default_quota)
    version, prefixes = _collapsed(new.prefixes)
    scope_id = _scope(call, new.address_scope_id, None, version, prefixes)
    shortest = either(new.min_prefixlen, MIN_PREFIXLEN[version])
    lengths = {
        "min_prefixlen": shortest,
        "max_prefixlen": either(new.max_prefixlen, 32 if version == 4 else 128),
        "default_prefixlen": either(new.default_prefixlen, shortest),
    }
    _check_lengths(lengths, version)
    is_default = either(new.is_default, False)
    if is_default:
        _refuse_second_default(call.tx, version, "")
    pool = insert(
        call.tx,
        SubnetPool,
        call.cloud.clock,
        project_id=project_id,
        name=new.name,
        description=text(new.description),
        prefixes=prefixes,
        ip_version=version,
        default_quota=either(new.default_quota, None),
        is_default=is_default,
        address_scope_id=scope_id,
        **lengths,
    )
    if either(new.shared, False):
        sharing_use.set_shared(call.tx, call.cloud.clock, Shareable.SUBNET_POOL, pool, shared=True)
    topology.set_tags(call.tx, pool.id, either(new.tags, []))
    return pool


def _scope(
    call: Call[object, object], scope_id: object, pool_id: str | None, version: int, prefixes: Sequence[str]
) -> str | None:
    """The wanted address scope of a pool with these prefixes. 404 for a scope out of sight."""
    if not isinstance(scope_id, str):
        return None
    scope = resource.find_in_sight(call, ADDRESS_SCOPES, scope_id)
    scopes.check_pool(call.tx, scope, pool_id, version, prefixes)
    return scope_id


def _refuse_in_anothers_scope(call: Call[SubnetPool, object]) -> None:
    """400 for a change of a pool that is in another project's scope."""
    pool = call.target
    scope = get(call.tx, AddressScope, pool.address_scope_id)
    if scope is not None and scope.project_id != call.caller.project_id and not call.caller.is_admin:
        raise BadRequest(
            f"Illegal subnetpool update : subnetpool {pool.id} cannot be updated when associated with shared address "
            f"scope {scope.id}.",
            reason="IllegalSubnetPoolUpdate",
        )


def _check_quota(default_quota: object) -> None:
    if isinstance(default_quota, int) and not 0 <= default_quota <= MAX_QUOTA:
        raise BadRequest(f"Invalid input for default_quota. Reason: '{default_quota}' should be 0 to {MAX_QUOTA}.")


def _collapsed(prefixes: Sequence[str]) -> tuple[int, list[str]]:
    ranges = [ip_network(prefix) for prefix in prefixes]
    versions = {cidr.version for cidr in ranges}
    if len(versions) != 1:
        raise BadRequest("Cannot mix IPv4 and IPv6 prefixes in a subnet pool.", reason="PrefixVersionMismatch")
    return versions.pop(), [str(cidr) for cidr in collapse_addresses(ranges)]  # type: ignore[type-var]


def _check_lengths(lengths: dict[str, int], version: int) -> None:
    """``min <= default <= max``, within what an address has."""
    shortest, longest, usual = (lengths[name] for name in ("min_prefixlen", "max_prefixlen", "default_prefixlen"))
    most = 32 if version == 4 else 128
    pairs = (
        ("min_prefixlen", shortest, "max_prefixlen", longest),
        ("min_prefixlen", shortest, "default_prefixlen", usual),
        ("default_prefixlen", usual, "max_prefixlen", longest),
        ("max_prefixlen", longest, "the length of an address", most),
        ("0", 0, "min_prefixlen", shortest),
    )
    for lower_name, lower, upper_name, upper in pairs:
        if lower > upper:
            raise BadRequest(
                f"Illegal prefix bounds: {lower_name}={lower}, {upper_name}={upper}.",
                reason="IllegalSubnetPoolPrefixBounds",
            )


def _refuse_second_default(tx: Tx, version: int, but: str) -> None:
    others = find(
        tx, SubnetPool, subnet_pools.c.is_default, subnet_pools.c.ip_version == version, subnet_pools.c.id != but
    )
    if others:
        raise refusals.invalid(
            "A default subnetpool for this IP family has already been set. Only one default may exist per IP family."
        )


def default_pool(call: Call[object, object], version: int) -> SubnetPool | None:
    """The default pool of a version of IP; None if the caller does not see it."""
    seen = shared_in_sight(call.caller, SHARING)
    found = find(call.tx, SubnetPool, subnet_pools.c.is_default, subnet_pools.c.ip_version == version, seen)
    return found[0] if found else None


@NETWORK.operation("GET", "/subnetpools/{subnetpool_id}", rules=(), target=resource.target(SUBNET_POOLS))
def show_subnetpool(call: Call[SubnetPool, None]) -> View:
    """Show a subnet pool."""
    return resource.shown(call, SUBNET_POOLS, call.target)


@NETWORK.operation(
    "PUT",
    "/subnetpools/{subnetpool_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(SUBNET_POOLS),
    body=UpdateSubnetPool,
    body_key="subnetpool",
)
def update_subnetpool(call: Call[SubnetPool, UpdateSubnetPool]) -> View:
    """Change a subnet pool. Its prefixes can grow, but not shrink."""
    pool, body = call.target, call.body
    given = resource.given(body)
    policy.require_attributes(call, UPDATE_ATTRIBUTES, given, {"project_id": pool.project_id})
    _refuse_in_anothers_scope(call)
    _check_quota(given.get("default_quota"))
    if isinstance(body.prefixes, list):
        version, prefixes = _collapsed([*body.prefixes])
        given["prefixes"], larger = prefixes, [ip_network(prefix) for prefix in prefixes]
        if version != pool.ip_version or not all(
            any(_within(ip_network(prefix), outer) for outer in larger) for prefix in pool.prefixes
        ):
            raise BadRequest(
                "Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes.",
                reason="IllegalSubnetPoolPrefixUpdate",
            )
    present = {name: getattr(pool, name) for name in ("min_prefixlen", "max_prefixlen", "default_prefixlen")}
    _check_lengths(present | {name: given[name] for name in present if name in given}, pool.ip_version)
    if body.is_default is True:
        _refuse_second_default(call.tx, pool.ip_version, pool.id)
    prefixes_then = given.get("prefixes", pool.prefixes)
    assert isinstance(prefixes_then, list)
    scope_id = given.get("address_scope_id", pool.address_scope_id)
    given["address_scope_id"] = _scope(call, scope_id, pool.id, pool.ip_version, prefixes_then)
    change(call.tx, SubnetPool, pool.id, call.now_us, **given)
    if scope_id != pool.address_scope_id:
        scopes.check_pools_networks(call.tx, pool.id)
    return resource.shown(call, SUBNET_POOLS, must_get(call.tx, SubnetPool, pool.id))


@NETWORK.operation(
    "DELETE",
    "/subnetpools/{subnetpool_id}",
    rules=(Rule(DELETE),),
    target=resource.target(SUBNET_POOLS),
    success=204,
)
def delete_subnetpool(call: Call[SubnetPool, None]) -> None:
    """Delete a subnet pool that no subnet was cut from."""
    if call.tx.first(_CUT, {"of_pool": call.target.id}) is not None:
        raise BadRequest(
            "Unable to delete subnet pool: Subnet pool has existing allocations.", reason="SubnetPoolDeleteError"
        )
    delete(call.tx, SubnetPool, call.target.id)
