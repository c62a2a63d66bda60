"""Address scopes: ``/address-scopes``. Subnet pools in one scope do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict
from cumulet.network import bodies, limits, policy, resource, sharing_use
from cumulet.network.address_scope_records import AddressScope, address_scopes
from cumulet.network.bodies import either, whole_number
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sharing import EVERYBODY, Action, Shareable, Sharing, entries
from cumulet.network.sight import shared_in_sight
from cumulet.network.store import change, delete, find_by, insert, must_get
from cumulet.network.subnet_pool_records import SubnetPool
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import base_rule, rule
from cumulet.web.schema import UNSET, Body, Convert, Json, Unset

base_rule("shared_address_scopes", "field:address_scopes:shared=True", "A shared address scope")

CREATE = rule("create_address_scope", policy.ADMIN_OR_PROJECT_MEMBER, description="Create an address scope")
CREATE_ATTRIBUTES = policy.attribute_rules(CREATE, {"shared": policy.ADMIN})
SHOW = rule(
    "get_address_scope",
    f"{policy.ADMIN} or {policy.PROJECT_READER} or rule:shared_address_scopes",
    description="See an address scope",
)
UPDATE = rule("update_address_scope", policy.ADMIN_OR_PROJECT_MEMBER, description="Change an address scope")
UPDATE_ATTRIBUTES = policy.attribute_rules(UPDATE, {"shared": policy.ADMIN})
DELETE = rule("delete_address_scope", policy.ADMIN_OR_PROJECT_MEMBER, description="Delete an address scope")

PATH = "/address-scopes/{address_scope_id}"
SHARING = Sharing(object_type=Shareable.ADDRESS_SCOPE, column=address_scopes.c.id)


def _views(_tx: Tx, records: Sequence[AddressScope]) -> list[View]:
    return [
        {
            "id": record.id,
            "project_id": record.project_id,
            "tenant_id": record.project_id,
            "name": record.name,
            "ip_version": record.ip_version,
        }
        for record in records
    ]


_FILTERS = resource.filters_on(address_scopes, "name", "ip_version")
ADDRESS_SCOPES = Kind(
    record=AddressScope,
    singular="address_scope",
    plural="address_scopes",
    title="Address scope",
    show=SHOW,
    sight=lambda caller: shared_in_sight(caller, SHARING),
    filters={name: _FILTERS[name] for name in _FILTERS.keys() - {"description", "revision_number"}}
    | {"shared": SHARING},
    sorts=resource.sorts_on(address_scopes, "name", "ip_version") | {"shared": SHARING.for_everybody},
    views=_views,
    hidden={},
    sharing=SHARING,
)


def _version(value: object) -> int:
    number = whole_number(value)
    if number not in (4, 6):
        raise ValueError(f"'{number}' is not in [4, 6]")
    return number


class NewAddressScope(bodies.NewOwned):
    name: bodies.Name | Unset = UNSET
    ip_version: Annotated[int, Json({"type": ["integer", "string"], "maxLength": 19}), Convert(_version)]
    shared: bodies.Truth | Unset = UNSET


class CreateAddressScopes(Body):
    address_scope: NewAddressScope | Unset = UNSET
    address_scopes: list[NewAddressScope] | Unset = UNSET


class UpdateAddressScope(Body):
    name: bodies.Name | Unset = UNSET
    shared: bodies.Truth | Unset = UNSET


@NETWORK.operation("GET", "/address-scopes", rules=())
def list_address_scopes(call: Call[None, None]) -> View:
    """List the project's address scopes and those shared with it; for administrators all."""
    return resource.listed(call, ADDRESS_SCOPES)


@NETWORK.operation(
    "POST",
    "/address-scopes",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(ADDRESS_SCOPES),
    body=CreateAddressScopes,
    success=201,
)
def create_address_scopes(call: Call[None, CreateAddressScopes]) -> View:
    """Create an address scope, or several at once."""
    return resource.created(call, ADDRESS_SCOPES, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewAddressScope) -> AddressScope:
    project_id = resource.may_create(call, new, CREATE, CREATE_ATTRIBUTES)
    limits.check(call.tx, project_id, "address_scope")
    made = insert(
        call.tx,
        AddressScope,
        call.cloud.clock,
        project_id=project_id,
        name=either(new.name, ""),
        ip_version=new.ip_version,
    )
    if either(new.shared, False):
        sharing_use.set_shared(call.tx, call.cloud.clock, Shareable.ADDRESS_SCOPE, made, shared=True)
    return made


@NETWORK.operation("GET", PATH, rules=(), target=resource.target(ADDRESS_SCOPES))
def show_address_scope(call: Call[AddressScope, None]) -> View:
    """Show an address scope."""
    return resource.shown(call, ADDRESS_SCOPES, call.target)


@NETWORK.operation(
    "PUT",
    PATH,
    rules=(Rule(UPDATE),),
    target=resource.target(ADDRESS_SCOPES),
    body=UpdateAddressScope,
    body_key="address_scope",
)
def update_address_scope(call: Call[AddressScope, UpdateAddressScope]) -> View:
    """Change an address scope's name, or share it with everybody. Sharing cannot be undone."""
    found, body, touched = call.target, call.body, False
    given = resource.given(body)
    policy.require_attributes(call, UPDATE_ATTRIBUTES, given, {"project_id": found.project_id})
    everybodys = EVERYBODY in {entry.target_project for entry in entries(call.tx, found.id, Action.SHARED)}
    if body.shared is False and everybodys:
        raise BadRequest(
            f"Unable to update address scope {found.id} : Shared address scope can't be unshared.",
            reason="AddressScopeUpdateError",
        )
    if body.shared is True:
        touched = sharing_use.set_shared(call.tx, call.cloud.clock, Shareable.ADDRESS_SCOPE, found, shared=True)
    values = {"name": body.name} if isinstance(body.name, str) else {}
    change(call.tx, AddressScope, found.id, call.now_us, touched, **values)
    return resource.shown(call, ADDRESS_SCOPES, must_get(call.tx, AddressScope, found.id))


@NETWORK.operation("DELETE", PATH, rules=(Rule(DELETE),), target=resource.target(ADDRESS_SCOPES), success=204)
def delete_address_scope(call: Call[AddressScope, None]) -> None:
    """Delete an address scope that no subnet pool is in."""
    if find_by(call.tx, SubnetPool, address_scope_id=call.target.id):
        raise Conflict(
            f"Unable to complete operation on address scope {call.target.id}. There are one or more subnet pools in "
            "use on the address scope.",
            reason="AddressScopeInUse",
        )
    delete(call.tx, AddressScope, call.target.id)
