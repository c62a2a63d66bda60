"""What is used, over HTTP: of a provider, and by a project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import sqlalchemy as sa

from cumulet.placement import providers
from cumulet.placement.api_providers import provider_in_path
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.store import allocations, consumers
from cumulet.placement.wire import fresh
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Json, Query, Since

PROVIDER_USAGES = admin_or_service("resource_providers:usages", "Show what is used of a provider.")
TOTAL_USAGES = rule(
    "placement:usages", "rule:admin_or_project_reader_or_service_api", description="Show what a project uses."
)

UNKNOWN_TYPE = "unknown"
_Id = Json({"minLength": 1, "maxLength": 255})


class TotalUsages(Query, closed_since="1.0"):
    """Whose usage."""

    project_id: Annotated[str, _Id]
    user_id: Annotated[str | None, _Id] = None
    consumer_type: Annotated[
        str | None, Json({"pattern": "^[A-Z0-9_]+$|^all$|^unknown$", "maxLength": 255}), Since("1.38")
    ] = None


@PLACEMENT.operation("GET", "/resource_providers/{uuid}/usages", rules=(Rule(PROVIDER_USAGES),))
def show_provider_usages(call: Call[None, None]) -> Reply:
    """Show what is used of a provider, by resource class."""
    provider = provider_in_path(call)
    has = providers.inventories_of(call.tx, provider.id).get(provider.id, {})
    used = providers.used_of(call.tx, provider.id).get(provider.id, {})
    usages = {name: used.get(name, 0) for name in has}
    return fresh(call, {"resource_provider_generation": provider.generation, "usages": usages})


def _facts_of_query(call: Call[None, None]) -> Mapping[str, object]:
    return {"project_id": call.asked(TotalUsages).project_id}


@PLACEMENT.operation(
    "GET", "/usages", rules=(Rule(TOTAL_USAGES),), since="1.9", query=TotalUsages, facts=_facts_of_query
)
def show_total_usages(call: Call[None, None]) -> Reply:
    """Show what a project, or a user in it, uses; since 1.38 by type of consumer."""
    wanted = call.asked(TotalUsages)
    kind = sa.case((consumers.c.type == "", UNKNOWN_TYPE), else_=consumers.c.type)
    where = [consumers.c.project_id == wanted.project_id]
    if wanted.user_id is not None:
        where.append(consumers.c.user_id == wanted.user_id)
    if wanted.consumer_type not in (None, "all"):
        where.append(kind == wanted.consumer_type)
    joined = sa.join(consumers, allocations, consumers.c.uuid == allocations.c.consumer_uuid)
    if not call.version.at_least("1.38"):
        query = sa.select(allocations.c.resource_class, sa.func.sum(allocations.c.used).label("used"))
        rows = call.tx.all(query.select_from(joined).where(*where).group_by(allocations.c.resource_class))
        return fresh(call, {"usages": {row.resource_class: int(row.used) for row in rows}})
    group = sa.literal("all").label("kind") if wanted.consumer_type == "all" else kind.label("kind")
    lines = sa.select(group, allocations.c.resource_class, allocations.c.used, consumers.c.uuid)
    usages: dict[str, dict[str, int]] = {}
    counted: dict[str, set[str]] = {}
    for row in call.tx.all(lines.select_from(joined).where(*where)):
        of_kind = usages.setdefault(row.kind, {})
        of_kind[row.resource_class] = of_kind.get(row.resource_class, 0) + row.used
        counted.setdefault(row.kind, set()).add(row.uuid)
    for name, uuids in counted.items():
        usages[name]["consumer_count"] = len(uuids)
    return fresh(call, {"usages": usages})
