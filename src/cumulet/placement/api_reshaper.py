"""Reshaping over HTTP: what providers have, and who holds what of it, moved between providers all or nothing."""

from __future__ import annotations

from typing import Annotated

from cumulet.errors import BadRequest, Conflict
from cumulet.placement import api_inventories, names, providers
from cumulet.placement.api_allocations import ConsumerAllocations, holdings_of, replace
from cumulet.placement.api_inventories import SetInventories
from cumulet.placement.service import PLACEMENT
from cumulet.placement.store import resource_providers
from cumulet.placement.wire import UUID_KEY_PATTERN, canonical_uuid
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json

RESHAPE = rule(
    "placement:reshaper:reshape",
    "rule:service_api",
    description="Move inventories between providers together with what is held of them.",
)

_Key = Annotated[str, Json({"pattern": UUID_KEY_PATTERN})]


class Reshape(Body):
    """All that these providers are to have, and all that these consumers are to hold.

    The bound of values in a body (`json_reader.MOST_VALUES`) bounds both: to some 400 providers, or 200 consumers.
    """

    inventories: Annotated[dict[_Key, SetInventories], Json({"minProperties": 1})]
    allocations: dict[_Key, ConsumerAllocations]


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
    found = {provider.uuid: provider for provider in providers.load(tx, resource_providers.c.uuid.in_(shapes))}
    classes = set(names.known_classes(tx))
    wanted = []
    for uuid, shape in shapes.items():
        provider = found.get(uuid)
        if provider is None:
            raise BadRequest(
                f"Resource provider {uuid} in inventories not found.", reason="placement.resource_provider.not_found"
            )
        if provider.generation != shape.resource_provider_generation:
            raise Conflict(
                f"resource provider generation conflict for provider {uuid}: "
                f"actual: {provider.generation}, given: {shape.resource_provider_generation}",
                reason=providers.CONCURRENT_UPDATE,
            )
        wanted.append((provider, api_inventories.records(call, provider, shape, classes)))
    api_inventories.write(tx, wanted)
    providers.change_all(tx, [provider for provider, inventories in wanted if inventories], call.now_us)
    replace(call, holdings)
    api_inventories.remove_others(tx, wanted)
    providers.change_all(tx, [provider for provider, _ in wanted], call.now_us)
