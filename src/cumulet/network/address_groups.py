"""Address groups: ``/address-groups``. Lists of addresses that rules of security groups name as their remote side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, NotFound, OverQuota
from cumulet.network import bodies, limits, policy, resource
from cumulet.network.bodies import either, text
from cumulet.network.group_records import AddressGroup, SecurityGroupRule, address_groups
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sharing import Shareable, Sharing
from cumulet.network.sight import shared_in_sight
from cumulet.network.store import change, delete, find_by, insert, must_get
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import base_rule, rule
from cumulet.web.schema import UNSET, Body, Json, Unset

base_rule("shared_address_groups", "field:address_groups:shared=True", "A shared address group")

CREATE = rule("create_address_group", policy.ADMIN_OR_PROJECT_MEMBER, description="Create an address group")
SHOW = rule(
    "get_address_group",
    f"{policy.ADMIN_OR_PROJECT_READER} or rule:shared_address_groups",
    description="See an address group",
)
UPDATE = rule("update_address_group", policy.ADMIN_OR_PROJECT_MEMBER, description="Change an address group")
ADD = rule("add_addresses", policy.ADMIN_OR_PROJECT_MEMBER, description="Add addresses to an address group")
REMOVE = rule("remove_addresses", policy.ADMIN_OR_PROJECT_MEMBER, description="Take addresses out of an address group")
DELETE = rule("delete_address_group", policy.ADMIN_OR_PROJECT_MEMBER, description="Delete an address group")

MOST_ADDRESSES = 1000
"""Of one group."""
MOST_OF_PROJECT = 5000
"""Of all groups of a project: they stand in the wirings of hosts, of which each is one message and has a bound."""
PATH = "/address-groups/{address_group_id}"

_OF_PROJECT = sa.select(address_groups.c.addresses).where(address_groups.c.project_id == sa.bindparam("of"))
Addresses = Annotated[list[bodies.SubnetRange], Json({"maxItems": MOST_ADDRESSES})]


def _views(tx: Tx, records: Sequence[AddressGroup]) -> list[View]:
    return [
        resource.resource_view(group, None) | {"name": group.name, "addresses": group.addresses} for group in records
    ]


SHARING = Sharing(object_type=Shareable.ADDRESS_GROUP, column=address_groups.c.id)
ADDRESS_GROUPS = Kind(
    record=AddressGroup,
    singular="address_group",
    plural="address_groups",
    title="Address group",
    show=SHOW,
    sight=lambda caller: shared_in_sight(caller, SHARING),
    filters=resource.filters_on(address_groups, "name") | {"shared": SHARING},
    sorts=resource.sorts_on(address_groups, "name"),
    views=_views,
    hidden={},
    sharing=SHARING,
)


class NewAddressGroup(bodies.NewNamed):
    addresses: Addresses | Unset | None = UNSET


class CreateAddressGroups(Body):
    address_group: NewAddressGroup | Unset = UNSET
    address_groups: list[NewAddressGroup] | Unset = UNSET


class UpdateAddressGroup(bodies.NamedChange):
    pass


class SomeAddresses(Body):
    """Of `add_addresses` and `remove_addresses`, which have no envelope."""

    addresses: Addresses


@NETWORK.operation("GET", "/address-groups", rules=())
def list_address_groups(call: Call[None, None]) -> View:
    """List the project's address groups; for administrators all."""
    return resource.listed(call, ADDRESS_GROUPS)


@NETWORK.operation(
    "POST",
    "/address-groups",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(ADDRESS_GROUPS),
    body=CreateAddressGroups,
    success=201,
)
def create_address_groups(call: Call[None, CreateAddressGroups]) -> View:
    """Create an address group, or several at once."""
    return resource.created(call, ADDRESS_GROUPS, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewAddressGroup) -> AddressGroup:
    project_id = resource.may_create(call, new, CREATE)
    limits.check(call.tx, project_id, "address_group")
    wanted = list(dict.fromkeys(either(new.addresses, None) or ()))
    _refuse_too_many(call.tx, project_id, len(wanted))
    return insert(
        call.tx,
        AddressGroup,
        call.cloud.clock,
        project_id=project_id,
        name=text(new.name),
        description=text(new.description),
        addresses=wanted,
    )


def _refuse_too_many(tx: Tx, project_id: str, more: int) -> None:
    """409 for `more` addresses than all groups of the project may have. Those that have too many keep them."""
    held = sum(len(row.addresses) for row in tx.all(_OF_PROJECT, {"of": project_id})) if more else 0
    if more and held + more > MOST_OF_PROJECT:
        raise OverQuota(
            f"The address groups of a project have at most {MOST_OF_PROJECT} addresses together.", reason="QUOTA"
        )


@NETWORK.operation("GET", PATH, rules=(), target=resource.target(ADDRESS_GROUPS))
def show_address_group(call: Call[AddressGroup, None]) -> View:
    """Show an address group with its addresses."""
    return resource.shown(call, ADDRESS_GROUPS, call.target)


@NETWORK.operation(
    "PUT",
    PATH,
    rules=(Rule(UPDATE),),
    target=resource.target(ADDRESS_GROUPS),
    body=UpdateAddressGroup,
    body_key="address_group",
)
def update_address_group(call: Call[AddressGroup, UpdateAddressGroup]) -> View:
    """Change an address group's name or description."""
    values = resource.given(call.body)
    return _changed(call, values)


@NETWORK.operation(
    "PUT", f"{PATH}/add_addresses", rules=(Rule(ADD),), target=resource.target(ADDRESS_GROUPS), body=SomeAddresses
)
def add_addresses(call: Call[AddressGroup, SomeAddresses]) -> View:
    """Add addresses to a group: rules that name it let them pass."""
    group = call.target
    wanted = list(dict.fromkeys(call.body.addresses))
    if there := [address for address in wanted if address in group.addresses]:
        raise BadRequest(
            f"Addresses {', '.join(there)} already exist in the address group {group.id}.",
            reason="AddressesAlreadyExist",
        )
    if len(group.addresses) + len(wanted) > MOST_ADDRESSES:
        raise OverQuota(f"An address group has at most {MOST_ADDRESSES} addresses.", reason="QUOTA")
    _refuse_too_many(call.tx, group.project_id, len(wanted))
    return _changed(call, {"addresses": [*group.addresses, *wanted]})


@NETWORK.operation(
    "PUT",
    f"{PATH}/remove_addresses",
    rules=(Rule(REMOVE),),
    target=resource.target(ADDRESS_GROUPS),
    body=SomeAddresses,
)
def remove_addresses(call: Call[AddressGroup, SomeAddresses]) -> View:
    """Remove addresses from a group. Connections that only rules naming the group let pass are cut."""
    group = call.target
    if missing := [address for address in call.body.addresses if address not in group.addresses]:
        raise NotFound(
            f"Addresses {', '.join(missing)} not found in the address group {group.id}.", reason="AddressesNotFound"
        )
    kept = [address for address in group.addresses if address not in call.body.addresses]
    return _changed(call, {"addresses": kept})


def _changed(call: Call[AddressGroup, object], values: dict[str, object]) -> View:
    change(call.tx, AddressGroup, call.target.id, call.now_us, **values)
    return resource.shown(call, ADDRESS_GROUPS, must_get(call.tx, AddressGroup, call.target.id))


@NETWORK.operation("DELETE", PATH, rules=(Rule(DELETE),), target=resource.target(ADDRESS_GROUPS), success=204)
def delete_address_group(call: Call[AddressGroup, None]) -> None:
    """Delete an address group that no rule names."""
    if find_by(call.tx, SecurityGroupRule, remote_address_group_id=call.target.id):
        raise Conflict(
            f"Address group {call.target.id} is in use on one or more security group rules.",
            reason="AddressGroupInUse",
        )
    delete(call.tx, AddressGroup, call.target.id)
