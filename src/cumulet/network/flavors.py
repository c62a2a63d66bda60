"""Flavors of services: ``/flavors``, and their service profiles.

Administrators describe them, as upstream. Nothing here is made by one: a router with a flavor is refused (`routers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Conflict, NotFound, OverQuota
from cumulet.network import bodies, filtering, policy, resource
from cumulet.network.bodies import either, text
from cumulet.network.filtering import Column
from cumulet.network.flavor_records import ServiceFlavor, flavor_profiles, network_flavors
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.service_profiles import SERVICE_PROFILES, Description
from cumulet.network.store import change, delete, erase, find, insert, inserting, must_get
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

CREATE = rule("create_flavor", policy.ADMIN, description="Create a flavor of a service")
SHOW = rule("get_flavor", "role:reader", description="See a flavor of a service")
UPDATE = rule("update_flavor", policy.ADMIN, description="Change a flavor of a service")
DELETE = rule("delete_flavor", policy.ADMIN, description="Delete a flavor of a service")
ASSOCIATE = rule("create_flavor_service_profile", policy.ADMIN, description="Add a service profile to a flavor")
SHOW_ASSOCIATED = rule(
    "get_flavor_service_profile", policy.ADMIN_OR_PROJECT_READER, description="See that a flavor has a service profile"
)
DISSOCIATE = rule("delete_flavor_service_profile", policy.ADMIN, description="Take a service profile from a flavor")

MOST = 100
"""Flavors of services of the whole cloud."""
ASSOCIATED = "/flavors/{flavor_id}/service_profiles"
_COLUMNS: dict[str, Column] = {
    name: network_flavors.c[name] for name in ("id", "name", "description", "service_type", "enabled")
}


def _views(tx: Tx, records: Sequence[ServiceFlavor]) -> list[View]:
    profiles: dict[str, list[str]] = {one.id: [] for one in records}
    of_flavors = sa.select(flavor_profiles).where(flavor_profiles.c.flavor_id.in_(list(profiles)))
    for flavor_id, profile_id in map(tuple, tx.all(of_flavors.order_by(flavor_profiles.c.service_profile_id))):
        profiles[flavor_id].append(profile_id)
    return [{name: getattr(one, name) for name in _COLUMNS} | {"service_profiles": profiles[one.id]} for one in records]


FLAVORS = Kind(
    record=ServiceFlavor,
    singular="flavor",
    plural="flavors",
    title="Flavor",
    show=SHOW,
    sight=None,
    filters=filtering.by_columns(_COLUMNS),
    sorts=_COLUMNS,
    views=_views,
    hidden={},
)


class ChangeFlavor(Body):
    name: bodies.Name | Unset = UNSET
    description: Description | Unset | None = UNSET
    enabled: bodies.Truth | Unset = UNSET


class NewFlavor(ChangeFlavor):
    """A new flavor. Profiles are added to it later; upstream does not heed them here."""

    service_type: Literal["CORE", "FLAVORS", "L3_ROUTER_NAT", "METERING", "PORTFORWARDING", "QOS"]
    service_profiles: Annotated[list[bodies.Id], Json({"maxItems": 0})] | Unset = UNSET
    project_id: bodies.ProjectId | Unset = UNSET
    tenant_id: bodies.ProjectId | Unset = UNSET


class CreateFlavors(Body):
    flavor: NewFlavor | Unset = UNSET
    flavors: list[NewFlavor] | Unset = UNSET


@NETWORK.operation("GET", "/flavors", rules=())
def list_service_flavors(call: Call[None, None]) -> View:
    """List flavors of services."""
    return resource.listed(call, FLAVORS)


@NETWORK.operation(
    "POST",
    "/flavors",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(FLAVORS),
    body=CreateFlavors,
    success=201,
)
def create_service_flavors(call: Call[None, CreateFlavors]) -> View:
    """Create a flavor of a service, or several at once."""
    return resource.created(call, FLAVORS, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewFlavor) -> ServiceFlavor:
    resource.may_create(call, new, CREATE)
    if len(find(call.tx, ServiceFlavor)) >= MOST:
        raise OverQuota("Quota exceeded for resources: ['flavor'].", reason="QUOTA")
    return insert(
        call.tx,
        ServiceFlavor,
        call.cloud.clock,
        project_id="",
        name=text(new.name),
        description=text(new.description),
        service_type=new.service_type,
        enabled=either(new.enabled, True),
    )


@NETWORK.operation("GET", "/flavors/{flavor_id}", rules=(), target=resource.target(FLAVORS))
def show_service_flavor(call: Call[ServiceFlavor, None]) -> View:
    """Show a flavor of a service."""
    return resource.shown(call, FLAVORS, call.target)


@NETWORK.operation(
    "PUT",
    "/flavors/{flavor_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(FLAVORS),
    body=ChangeFlavor,
    body_key="flavor",
)
def update_service_flavor(call: Call[ServiceFlavor, ChangeFlavor]) -> View:
    """Change a flavor of a service."""
    change(call.tx, ServiceFlavor, call.target.id, call.now_us, **resource.given(call.body))
    return resource.shown(call, FLAVORS, must_get(call.tx, ServiceFlavor, call.target.id))


@NETWORK.operation(
    "DELETE", "/flavors/{flavor_id}", rules=(Rule(DELETE),), target=resource.target(FLAVORS), success=204
)
def delete_service_flavor(call: Call[ServiceFlavor, None]) -> None:
    """Delete a flavor of a service. Its profiles stay."""
    erase(call.tx, flavor_profiles, flavor_id=call.target.id)
    delete(call.tx, ServiceFlavor, call.target.id)


class Associated(Body):
    id: bodies.Id


@NETWORK.operation(
    "POST",
    ASSOCIATED,
    rules=(Rule(ASSOCIATE),),
    target=resource.target(FLAVORS),
    body=Associated,
    body_key="service_profile",
    success=201,
)
def add_service_profile(call: Call[ServiceFlavor, Associated]) -> View:
    """Add a service profile to a flavor."""
    flavor, profile = call.target, resource.find_in_sight(call, SERVICE_PROFILES, call.body.id)
    if _has(call.tx, flavor, profile.id):
        raise Conflict(
            f"Service Profile {profile.id} is already associated with flavor {flavor.id}.",
            reason="FlavorServiceProfileBindingExists",
        )
    call.tx.run(inserting(flavor_profiles), {"flavor_id": flavor.id, "service_profile_id": profile.id})
    return {"service_profile": {"id": profile.id}}


def _has(tx: Tx, flavor: ServiceFlavor, profile_id: str) -> bool:
    both = (flavor_profiles.c.flavor_id == flavor.id, flavor_profiles.c.service_profile_id == profile_id)
    return tx.first(sa.select(flavor_profiles).where(*both)) is not None


def _with_profile(call: Call[object, object]) -> ServiceFlavor:
    """The flavor in the path. 404 unless it has the profile there, and for who may not see that."""
    flavor, profile_id = resource.find_in_sight(call, FLAVORS, call.path["flavor_id"]), call.path["service_profile_id"]
    if not _has(call.tx, flavor, profile_id) or not call.authorise(SHOW_ASSOCIATED, {}):
        raise NotFound(
            f"Service Profile {profile_id} is not associated with flavor {flavor.id}.",
            reason="FlavorServiceProfileBindingNotFound",
        )
    return flavor


@NETWORK.operation(
    "DELETE",
    ASSOCIATED + "/{service_profile_id}",
    rules=(Rule(DISSOCIATE),),
    target=_with_profile,
    success=204,
)
def remove_service_profile(call: Call[ServiceFlavor, None]) -> None:
    """Take a service profile from a flavor."""
    erase(call.tx, flavor_profiles, flavor_id=call.target.id, service_profile_id=call.path["service_profile_id"])
