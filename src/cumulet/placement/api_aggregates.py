"""A provider's aggregates over HTTP: sets of providers, known by nothing but their uuids."""

from __future__ import annotations

from typing import Annotated

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest
from cumulet.placement import providers
from cumulet.placement.api_providers import provider_in_path
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.wire import Uuid, canonical_uuid, fresh
from cumulet.web.bodies import raw_body
from cumulet.web.json_reader import read_json
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.schema import Body, Json

LIST = admin_or_service("resource_providers:aggregates:list", "List a provider's aggregates.")
UPDATE = admin_or_service("resource_providers:aggregates:update", "Set a provider's aggregates.")


class SetAggregates(Body):
    """All of a provider's aggregates."""

    aggregates: Annotated[list[Uuid], Json({"uniqueItems": True})]
    resource_provider_generation: int


def _show(call: Call[object, object], aggregates: list[str], generation: int) -> Reply:
    body: dict[str, object] = {"aggregates": aggregates}
    if call.version.at_least("1.19"):
        body["resource_provider_generation"] = generation
    return fresh(call, body)


@PLACEMENT.operation("GET", "/resource_providers/{uuid}/aggregates", rules=(Rule(LIST),), since="1.1")
def list_aggregates(call: Call[None, None]) -> Reply:
    """List a provider's aggregates."""
    provider = provider_in_path(call)
    return _show(call, list(provider.aggregates_as_sent), provider.generation)


@PLACEMENT.operation(
    "PUT", "/resource_providers/{uuid}/aggregates", rules=(Rule(UPDATE),), since="1.19", body=SetAggregates
)
def set_aggregates(call: Call[None, SetAggregates]) -> Reply:
    """Replace a provider's aggregates."""
    provider = provider_in_path(call)
    providers.require_generation(provider, call.body.resource_provider_generation)
    wanted = _checked(call.body.aggregates)
    generation = providers.change(call.tx, provider, call.now_us, aggregates=wanted)
    return _show(call, wanted, generation)


@PLACEMENT.operation(
    "PUT", "/resource_providers/{uuid}/aggregates", rules=(Rule(UPDATE),), since="1.1", until="1.18", raw_body=True
)
async def set_aggregates_without_generation(call: Call[None, None]) -> Reply:
    """Replace a provider's aggregates, whatever its generation: the body is the list itself."""
    body = read_json(await raw_body(call))
    if not isinstance(body, list) or not all(isinstance(item, str) for item in body):
        raise BadRequest("Aggregates are a list of uuids.")
    wanted = _checked(body)

    def write(tx: Tx) -> Reply:
        call.tx = tx
        provider = provider_in_path(call)
        generation = providers.change(tx, provider, call.now_us, generations=0, aggregates=wanted)
        return _show(call, wanted, generation)

    return await call.cloud.db.write_async(write)


def _checked(aggregates: list[str]) -> list[str]:
    """The uuids as they were sent, because they are shown so. 400 for what is no uuid, or is there twice."""
    wanted = [canonical_uuid(aggregate, "aggregate") for aggregate in aggregates]
    if len(set(wanted)) != len(wanted):
        raise BadRequest("Aggregates are given twice.")
    return aggregates
