"""Resource providers over HTTP: create, list, show, rename and re-parent, delete."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.placement import names, providers
from cumulet.placement.providers import Provider
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.store import allocations, inventories, resource_providers
from cumulet.placement.wire import Uuid, aggregate_demand, amounts, canonical_uuid, fresh, trait_demand
from cumulet.web.operation import Call, Microversion, Reply, Rule
from cumulet.web.schema import UNSET, Body, Json, Query, Since, Unset

LIST = admin_or_service("resource_providers:list", "List resource providers.")
CREATE = admin_or_service("resource_providers:create", "Create a resource provider.")
SHOW = admin_or_service("resource_providers:show", "Show a resource provider.")
UPDATE = admin_or_service("resource_providers:update", "Change a resource provider.")
DELETE = admin_or_service("resource_providers:delete", "Delete a resource provider.")

_Name = Annotated[str, Json({"maxLength": 200})]


class CreateProvider(Body):
    """A new provider."""

    name: _Name
    uuid: Uuid | Unset = UNSET
    parent_provider_uuid: Annotated[Uuid | None, Since("1.14")] = None


class UpdateProvider(Body):
    """A provider's new name and parent."""

    name: _Name
    parent_provider_uuid: Annotated[Uuid | Unset | None, Since("1.14")] = UNSET


class ListProviders(Query, closed_since="1.0"):
    """Filters of a list of providers."""

    name: str | None = None
    uuid: Uuid | None = None
    member_of: Annotated[list[str] | None, Since("1.3")] = None
    resources: Annotated[str | None, Since("1.4")] = None
    in_tree: Annotated[Uuid | None, Since("1.14")] = None
    required: Annotated[list[str] | None, Since("1.18")] = None


_RELATIONS = (
    ("inventories", "1.0"),
    ("usages", "1.0"),
    ("aggregates", "1.1"),
    ("traits", "1.6"),
    ("allocations", "1.11"),
)


def view(provider: Provider, root: str, version: Microversion) -> dict[str, object]:
    """A provider at a microversion."""
    url = f"{PLACEMENT.prefix}/resource_providers/{provider.uuid}"
    links = [{"rel": "self", "href": url}]
    links += [{"rel": name, "href": f"{url}/{name}"} for name, since in _RELATIONS if version.at_least(since)]
    shown: dict[str, object] = {
        "uuid": provider.uuid,
        "name": provider.name,
        "generation": provider.generation,
        "links": links,
    }
    if version.at_least("1.14"):
        shown["parent_provider_uuid"] = provider.parent_uuid
        shown["root_provider_uuid"] = root
    return shown


def provider_in_path(call: Call[object, object]) -> Provider:
    return providers.get(call.tx, call.path["uuid"])


def _show(call: Call[object, object], provider: Provider, **options: Any) -> Reply:
    body = view(provider, providers.root_uuid(call.tx, provider), call.version)
    return fresh(call, body, modified_us=provider.updated_at_us, **options)


@PLACEMENT.operation("POST", "/resource_providers", rules=(Rule(CREATE),), body=CreateProvider)
def create_provider(call: Call[None, CreateProvider]) -> Reply:
    """Create a resource provider."""
    body = call.body
    uuid = call.cloud.clock.uuid() if body.uuid is UNSET else canonical_uuid(body.uuid, "uuid")
    parent = body.parent_provider_uuid
    if parent is not None:
        parent = canonical_uuid(parent, "parent_provider_uuid")
        if parent == uuid:
            raise BadRequest("parent provider UUID cannot be same as UUID.")
        _require_parent(call.tx, parent)
    for column, value in (("uuid", uuid), ("name", body.name)):
        if providers.load(call.tx, resource_providers.c[column] == value):
            raise Conflict(
                f"Conflicting resource provider {column}: {value} already exists.", reason=providers.DUPLICATE_NAME
            )
    _require_name(call, uuid, body.name)
    call.tx.touch(body.name)
    call.tx.execute(
        sa.insert(resource_providers).values(
            uuid=uuid,
            name=body.name,
            generation=0,
            parent_uuid=parent,
            traits=[],
            aggregates=[],
            created_at_us=call.now_us,
            updated_at_us=call.now_us,
        )
    )
    location = f"/resource_providers/{uuid}"
    if not call.version.at_least("1.20"):
        return Reply(status=201, headers={"Location": f"{call.service_url}{location}"})
    return _show(call, providers.get(call.tx, uuid), location=location)


def _require_name(call: Call[object, object], uuid: str, name: str) -> None:
    """Hosts find their providers by name, and these have their hypervisors' ids: no other has the one or the other."""
    for host, hypervisor_id in call.cloud.hypervisors(call.tx, name, uuid).items():
        if (host, hypervisor_id) != (name, uuid):
            raise _is_a_hosts(host)


def _is_a_hosts(name: str) -> Conflict:
    return Conflict(f"The resource provider {name} is that of the host of this name.", reason=providers.DUPLICATE_NAME)


def _require_parent(tx: Tx, uuid: str) -> None:
    if providers.find(tx, uuid) is None:
        raise BadRequest("parent provider UUID does not exist.")


@PLACEMENT.operation("GET", "/resource_providers", rules=(Rule(LIST),), query=ListProviders)
def list_providers(call: Call[None, None]) -> Reply:
    """List resource providers, filtered by name, tree, aggregates, traits and room."""
    wanted = call.asked(ListProviders)
    conditions = []
    if wanted.name is not None:
        conditions.append(resource_providers.c.name == wanted.name)
    if wanted.uuid is not None:
        conditions.append(resource_providers.c.uuid == canonical_uuid(wanted.uuid, "uuid"))
    found = providers.load(call.tx, *conditions)
    parents = providers.parents_by_uuid(call.tx)
    if wanted.in_tree is not None:
        member = canonical_uuid(wanted.in_tree, "in_tree")
        root = providers.root_of(member, parents) if member in parents else ""
        found = [p for p in found if providers.root_of(p.uuid, parents) == root]
    found = _matching(call, wanted, found)
    body = {"resource_providers": [view(p, providers.root_of(p.uuid, parents), call.version) for p in found]}
    return fresh(call, body, modified_us=max((p.updated_at_us for p in found), default=None))


def _matching(call: Call[None, None], wanted: ListProviders, found: list[Provider]) -> list[Provider]:
    version = call.version
    if wanted.member_of is not None:
        aggregates = aggregate_demand(wanted.member_of, version)
        found = [p for p in found if aggregates.met_by(p.aggregates)]
    if wanted.required is not None:
        texts = wanted.required if version.at_least("1.39") else wanted.required[-1:]
        demand = trait_demand(texts, forbidding=version.at_least("1.22"), alternatives=version.at_least("1.39"))
        names.require_traits(call.tx, demand.names())
        found = [p for p in found if demand.met_by(frozenset(p.traits))]
    if wanted.resources is not None:
        asked = amounts(wanted.resources)
        names.require_classes(call.tx, asked, "Invalid resource class in resources parameter")
        has, used = providers.inventories_of(call.tx), providers.used_of(call.tx)
        found = [
            p
            for p in found
            if all(
                name in has.get(p.id, {}) and has[p.id][name].fits(amount, used.get(p.id, {}).get(name, 0))
                for name, amount in asked.items()
            )
        ]
    return found


@PLACEMENT.operation("GET", "/resource_providers/{uuid}", rules=(Rule(SHOW),))
def show_provider(call: Call[None, None]) -> Reply:
    """Show a resource provider."""
    return _show(call, provider_in_path(call))


@PLACEMENT.operation("PUT", "/resource_providers/{uuid}", rules=(Rule(UPDATE),), body=UpdateProvider)
def update_provider(call: Call[None, UpdateProvider]) -> Reply:
    """Rename a resource provider, or give it another parent."""
    provider, body = provider_in_path(call), call.body
    others = providers.load(call.tx, resource_providers.c.name == body.name, resource_providers.c.id != provider.id)
    if others:
        raise Conflict(f"Conflicting resource provider {body.name} already exists.", reason=providers.DUPLICATE_NAME)
    if body.name != provider.name:
        if provider.name in call.cloud.hypervisors(call.tx, provider.name, provider.uuid):
            raise _is_a_hosts(provider.name)
        _require_name(call, provider.uuid, body.name)
    parent = provider.parent_uuid
    if body.parent_provider_uuid is not UNSET:
        parent = body.parent_provider_uuid
        if parent is not None:
            parent = canonical_uuid(parent, "parent_provider_uuid")
        _check_new_parent(call, provider, parent)
    providers.change(call.tx, provider, call.now_us, generations=0, name=body.name, parent_uuid=parent)
    return _show(call, providers.get(call.tx, provider.uuid))


def _check_new_parent(call: Call[None, UpdateProvider], provider: Provider, parent: str | None) -> None:
    if parent == provider.parent_uuid:
        return
    if provider.parent_uuid is not None and not call.version.at_least("1.37"):
        what = "un-parenting" if parent is None else "re-parenting"
        raise BadRequest(f"{what} a provider is not currently allowed.")
    if parent is None:
        return
    _require_parent(call.tx, parent)
    parents = providers.parents_by_uuid(call.tx)
    ancestor: str | None = parent
    while ancestor is not None:
        if ancestor == provider.uuid:
            raise BadRequest("creating loop in the provider tree is not allowed.")
        ancestor = parents.get(ancestor)


@PLACEMENT.operation("DELETE", "/resource_providers/{uuid}", rules=(Rule(DELETE),), success=204)
def delete_provider(call: Call[None, None]) -> None:
    """Delete a resource provider that nobody uses and that has no children."""
    provider = providers.find(call.tx, call.path["uuid"])
    if provider is None:
        raise NotFound(f"No resource provider with uuid {call.path['uuid']} found for delete")
    if call.tx.first(sa.select(allocations.c.used).where(allocations.c.provider_id == provider.id)) is not None:
        raise Conflict(
            f"Unable to delete resource provider {provider.uuid}: Resource provider has allocations.",
            reason=providers.PROVIDER_IN_USE,
        )
    if providers.load(call.tx, resource_providers.c.parent_uuid == provider.uuid):
        raise Conflict(
            f"Unable to delete parent resource provider {provider.uuid}: It has child resource providers.",
            reason=providers.CANNOT_DELETE_PARENT,
        )
    call.tx.touch(provider.name)
    call.tx.execute(sa.delete(inventories).where(inventories.c.provider_id == provider.id))
    call.tx.execute(sa.delete(resource_providers).where(resource_providers.c.id == provider.id))
