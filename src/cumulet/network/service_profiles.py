"""Service profiles: ``/service_profiles``. What flavors of services are made of. No service here has drivers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, NotFound, OverQuota
from cumulet.network import bodies, filtering, policy, resource
from cumulet.network.bodies import either, text
from cumulet.network.filtering import Column
from cumulet.network.flavor_records import (
    LONGEST_DESCRIPTION,
    LONGEST_METAINFO,
    ServiceProfile,
    flavor_profiles,
    service_profiles,
)
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.store import change, delete, find, insert, must_get
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

CREATE = rule("create_service_profile", policy.ADMIN, description="Create a service profile")
SHOW = rule("get_service_profile", policy.ADMIN, description="See a service profile")
UPDATE = rule("update_service_profile", policy.ADMIN, description="Change a service profile")
DELETE = rule("delete_service_profile", policy.ADMIN, description="Delete a service profile")

MOST = 100
"""Service profiles of the whole cloud."""

Description = Annotated[str, Json({"maxLength": LONGEST_DESCRIPTION})]
_P = service_profiles.c
_SORTS: dict[str, Column] = {name: _P[name] for name in ("id", "description", "metainfo", "enabled")}
_SORTS["driver"] = sa.literal("")


def _views(_tx: Tx, records: Sequence[ServiceProfile]) -> list[View]:
    return [
        {
            "id": one.id,
            "description": one.description,
            "driver": "",
            "metainfo": one.metainfo,
            "enabled": one.enabled,
        }
        for one in records
    ]


SERVICE_PROFILES = Kind(
    record=ServiceProfile,
    singular="service_profile",
    plural="service_profiles",
    title="Service Profile",
    show=SHOW,
    sight=None,
    filters={name: filtering.by_column(_P[name], name) for name in ("id", "description", "enabled")}
    | {"driver": filtering.constant("")},
    sorts=_SORTS,
    views=_views,
    hidden={},
    place="service_profiles",
)


class ChangeServiceProfile(Body):
    """A profile. No service here has drivers, so each one is unknown, and `metainfo` is what a profile has."""

    description: Description | Unset | None = UNSET
    driver: Description | Unset = UNSET
    metainfo: Annotated[str, Json({"maxLength": LONGEST_METAINFO})] | Unset = UNSET
    enabled: bodies.Truth | Unset = UNSET


class NewServiceProfile(ChangeServiceProfile):
    project_id: bodies.ProjectId | Unset = UNSET
    tenant_id: bodies.ProjectId | Unset = UNSET


class CreateServiceProfiles(Body):
    service_profile: NewServiceProfile | Unset = UNSET
    service_profiles: list[NewServiceProfile] | Unset = UNSET


@NETWORK.operation("GET", "/service_profiles", rules=())
def list_service_profiles(call: Call[None, None]) -> View:
    """List service profiles, for administrators."""
    return resource.listed(call, SERVICE_PROFILES)


@NETWORK.operation(
    "POST",
    "/service_profiles",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(SERVICE_PROFILES),
    body=CreateServiceProfiles,
    success=201,
)
def create_service_profiles(call: Call[None, CreateServiceProfiles]) -> View:
    """Create a service profile, or several at once."""
    return resource.created(call, SERVICE_PROFILES, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewServiceProfile) -> ServiceProfile:
    resource.may_create(call, new, CREATE)
    _refuse_driver(new.driver)
    _refuse_empty(metainfo := text(new.metainfo))
    if len(find(call.tx, ServiceProfile)) >= MOST:
        raise OverQuota("Quota exceeded for resources: ['service_profile'].", reason="QUOTA")
    return insert(
        call.tx,
        ServiceProfile,
        call.cloud.clock,
        project_id="",
        description=text(new.description),
        metainfo=metainfo,
        enabled=either(new.enabled, True),
    )


def _refuse_driver(driver: object) -> None:
    if text(driver):
        raise NotFound(
            f"Service Profile driver {text(driver)} could not be found.", reason="ServiceProfileDriverNotFound"
        )


def _refuse_empty(metainfo: str) -> None:
    if not metainfo:
        raise BadRequest("Service Profile needs either a driver or metainfo.", reason="ServiceProfileEmpty")


@NETWORK.operation("GET", "/service_profiles/{service_profile_id}", rules=(), target=resource.target(SERVICE_PROFILES))
def show_service_profile(call: Call[ServiceProfile, None]) -> View:
    """Show a service profile."""
    return resource.shown(call, SERVICE_PROFILES, call.target)


@NETWORK.operation(
    "PUT",
    "/service_profiles/{service_profile_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(SERVICE_PROFILES),
    body=ChangeServiceProfile,
    body_key="service_profile",
)
def update_service_profile(call: Call[ServiceProfile, ChangeServiceProfile]) -> View:
    """Change a service profile that no flavor has."""
    one = call.target
    _refuse_driver(call.body.driver)
    _refuse_empty(either(call.body.metainfo, one.metainfo))
    _refuse_in_use(call.tx, one)
    values = {name: value for name, value in resource.given(call.body).items() if name != "driver"}
    change(call.tx, ServiceProfile, one.id, call.now_us, **values)
    return resource.shown(call, SERVICE_PROFILES, must_get(call.tx, ServiceProfile, one.id))


@NETWORK.operation(
    "DELETE",
    "/service_profiles/{service_profile_id}",
    rules=(Rule(DELETE),),
    target=resource.target(SERVICE_PROFILES),
    success=204,
)
def delete_service_profile(call: Call[ServiceProfile, None]) -> None:
    """Delete a service profile that no flavor has."""
    _refuse_in_use(call.tx, call.target)
    delete(call.tx, ServiceProfile, call.target.id)


def _refuse_in_use(tx: Tx, one: ServiceProfile) -> None:
    of_flavors = sa.select(flavor_profiles.c.flavor_id).where(flavor_profiles.c.service_profile_id == one.id).limit(1)
    if tx.first(of_flavors) is not None:
        raise Conflict(f"Service Profile {one.id} is used by some service instance.", reason="ServiceProfileInUse")
