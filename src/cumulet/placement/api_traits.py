"""Traits over HTTP: the names there are, and which of them a provider has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.placement import names, providers
from cumulet.placement.api_providers import provider_in_path
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.store import traits
from cumulet.placement.wire import fresh
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.schema import Body, Empty, Json, Query

LIST = admin_or_service("traits:list", "List traits.")
SHOW = admin_or_service("traits:show", "Show whether there is a trait.")
UPDATE = admin_or_service("traits:update", "Create a custom trait.")
DELETE = admin_or_service("traits:delete", "Delete a custom trait.")
PROVIDER_LIST = admin_or_service("resource_providers:traits:list", "List a provider's traits.")
PROVIDER_UPDATE = admin_or_service("resource_providers:traits:update", "Set a provider's traits.")
PROVIDER_DELETE = admin_or_service("resource_providers:traits:delete", "Remove a provider's traits.")


class ListTraits(Query, closed_since="1.0"):
    """Which traits."""

    name: str | None = None
    associated: str | None = None


class SetTraits(Body):
    """All of a provider's traits."""

    traits: list[Annotated[str, Json({"minLength": 1, "maxLength": 255})]]
    resource_provider_generation: int


def _associated(tx: Tx) -> set[str]:
    return {name for provider in providers.load(tx) for name in provider.traits}


@PLACEMENT.operation("GET", "/traits", rules=(Rule(LIST),), since="1.6", query=ListTraits)
def list_traits(call: Call[None, None]) -> Reply:
    """List traits, by name or those that some provider has."""
    wanted = call.asked(ListTraits)
    found: Iterable[str] = names.known_traits(call.tx)
    if wanted.name is not None:
        operator, colon, value = wanted.name.partition(":")
        if not colon or operator not in ("in", "startswith"):
            raise BadRequest("Badly formatted name parameter. Expected the form name=in:A,B or name=startswith:PREFIX.")
        if operator == "in":
            among = set(value.split(","))
            found = [name for name in found if name in among]
        else:
            found = [name for name in found if name.startswith(value)]
    if wanted.associated is not None:
        if wanted.associated.lower() not in ("true", "false"):
            raise BadRequest('The query parameter "associated" only accepts "true" or "false"')
        had, has = wanted.associated.lower() == "true", _associated(call.tx)
        found = [name for name in found if (name in has) == had]
    return fresh(call, {"traits": list(found)})


@PLACEMENT.operation("GET", "/traits/{name}", rules=(Rule(SHOW),), since="1.6", success=204)
def show_trait(call: Call[None, None]) -> Reply:
    """Show whether there is a trait of this name."""
    _require_trait(call)
    return fresh(call, None)


def _require_trait(call: Call[None, None]) -> str:
    name = call.path["name"]
    if not names.trait_exists(call.tx, name):
        raise NotFound(f"No such trait(s): {name}.")
    return name


@PLACEMENT.operation("PUT", "/traits/{name}", rules=(Rule(UPDATE),), since="1.6", body=Empty, success=204)
def create_trait(call: Call[None, Empty]) -> Reply:
    """Create a custom trait; there already is success."""
    name = call.path["name"]
    if not names.is_custom(name):
        raise BadRequest(
            "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix "
            '"CUSTOM_" and use following characters: "A"-"Z", "0"-"9" and "_"'
        )
    status = 204
    if not names.trait_exists(call.tx, name):
        call.tx.execute(sa.insert(traits).values(name=name))
        status = 201
    return fresh(call, None, status=status, location=f"/traits/{name}")


@PLACEMENT.operation("DELETE", "/traits/{name}", rules=(Rule(DELETE),), since="1.6", success=204)
def delete_trait(call: Call[None, None]) -> None:
    """Delete a custom trait that no provider has."""
    name = _require_trait(call)
    if name in names.standard_traits():
        raise BadRequest(f"Cannot delete standard trait {name}.")
    if name in _associated(call.tx):
        raise Conflict(f"The trait {name} is in use by a resource provider.")
    call.tx.execute(sa.delete(traits).where(traits.c.name == name))


@PLACEMENT.operation("GET", "/resource_providers/{uuid}/traits", rules=(Rule(PROVIDER_LIST),), since="1.6")
def list_provider_traits(call: Call[None, None]) -> Reply:
    """List a provider's traits."""
    provider = provider_in_path(call)
    return fresh(call, {"traits": list(provider.traits), "resource_provider_generation": provider.generation})


@PLACEMENT.operation(
    "PUT", "/resource_providers/{uuid}/traits", rules=(Rule(PROVIDER_UPDATE),), since="1.6", body=SetTraits
)
def set_provider_traits(call: Call[None, SetTraits]) -> Reply:
    """Replace a provider's traits."""
    provider = provider_in_path(call)
    providers.require_generation(provider, call.body.resource_provider_generation)
    wanted = sorted(set(call.body.traits))
    names.require_traits(call.tx, wanted)
    generation = providers.change(call.tx, provider, call.now_us, traits=wanted)
    return fresh(call, {"traits": wanted, "resource_provider_generation": generation})


@PLACEMENT.operation(
    "DELETE", "/resource_providers/{uuid}/traits", rules=(Rule(PROVIDER_DELETE),), since="1.6", success=204
)
def delete_provider_traits(call: Call[None, None]) -> None:
    """Remove all of a provider's traits."""
    providers.change(call.tx, provider_in_path(call), call.now_us, traits=[])
