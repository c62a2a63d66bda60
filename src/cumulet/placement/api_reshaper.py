"""Reshaping over HTTP: what providers have, and who holds what of it, moved between providers all or nothing."""

from __future__ import annotations

from typing import Annotated

from cumulet.errors import BadRequest, Conflict
from cumulet.placement import api_inventories, providers
from cumulet.placement.api_allocations import ConsumerAllocations, holdings_of, replace
from cumulet.placement.api_inventories import SetInventories
from cumulet.placement.providers import Provider
from cumulet.placement.service import PLACEMENT
from cumulet.placement.wire import UUID_KEY_PATTERN, canonical_uuid
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json

RESHAPE = rule(
    "placement:reshaper:reshape",
    "rule:service_api",
    description="Move inventories between providers together with what is held of them.",
)

MOST_PROVIDERS = 1000
MOST_CONSUMERS = 10_000

_Key = Annotated[str, Json({"pattern": UUID_KEY_PATTERN})]


class Reshape(Body):
    """All that these providers are to have, and all that these consumers are to hold."""

    inventories: Annotated[dict[_Key, SetInventories], Json({"minProperties": 1, "maxProperties": MOST_PROVIDERS})]
    allocations: Annotated[dict[_Key, ConsumerAllocations], Json({"maxProperties": MOST_CONSUMERS})]


@PLACEMENT.operation("POST", "/reshaper", rules=(Rule(RESHAPE),), since="1.30", body=Reshape, success=204)
def reshape(call: Call[None, Reshape]) -> None:
    """Replace what providers have and what consumers hold, in one step.

    New inventories are added first, then the consumers' shares are replaced, then the other inventories are removed.
    In this order a share always has its inventory. An inventory that another consumer still uses cannot go (409).
    """
    tx, body = call.tx, call.body
    shapes = {canonical_uuid(uuid, "resource provider uuid"): shape for uuid, shape in body.inventories.items()}
    if len(shapes) != len(body.inventories):
        raise BadRequest("A provider is given twice.")
    holdings = holdings_of(body.allocations)
    wanted = {}
    for uuid, shape in shapes.items():
        provider = _provider(call, uuid)
        if provider.generation != shape.resource_provider_generation:
            raise Conflict(
                f"resource provider generation conflict for provider {uuid}: "
                f"actual: {provider.generation}, given: {shape.resource_provider_generation}",
                reason=providers.CONCURRENT_UPDATE,
            )
        wanted[uuid] = api_inventories.records(call, provider, shape)
        if wanted[uuid]:
            api_inventories.write(tx, provider, wanted[uuid])
            providers.change(tx, provider, call.now_us)
    replace(call, holdings)
    for uuid, inventories in wanted.items():
        provider = _provider(call, uuid)
        api_inventories.remove_others(tx, provider, inventories)
        providers.change(tx, provider, call.now_us)


def _provider(call: Call[None, Reshape], uuid: str) -> Provider:
    provider = providers.find(call.tx, uuid)
    if provider is None:
        raise BadRequest(
            f"Resource provider {uuid} in inventories not found.", reason="placement.resource_provider.not_found"
        )
    return provider
