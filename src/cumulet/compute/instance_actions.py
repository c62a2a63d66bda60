"""What was asked of a server, by whom, and what came of it. Why something failed is told to administrators."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa

from cumulet.clock import iso_us
from cumulet.compute import attribute_types as t
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.links import Page, next_links, page
from cumulet.compute.model import Server
from cumulet.compute.moments import changed_between
from cumulet.compute.rules import ADMIN, READER
from cumulet.compute.server_views import host_id
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import get_server, instance_action_events, instance_actions
from cumulet.db.engine import Row
from cumulet.errors import BadRequest, NotFound
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Key, NonNegativeInteger, Query, Since, Single

LIST = rule("os_compute_api:os-instance-actions:list", READER)
SHOW = rule("os_compute_api:os-instance-actions:show", READER)
EVENTS = rule("os_compute_api:os-instance-actions:events", ADMIN)
EVENT_DETAILS = rule("os_compute_api:os-instance-actions:events:details", ADMIN)

PATH = "/servers/{server_id}/os-instance-actions"


class ActionsQuery(Query, closed_since="2.58"):
    limit: Annotated[NonNegativeInteger | None, Single(), Since("2.58")] = None
    marker: Annotated[str | None, Single(), Since("2.58")] = None
    changes_since: Annotated[t.Moment | None, Key("changes-since"), Single(), Since("2.58")] = None
    changes_before: Annotated[t.Moment | None, Key("changes-before"), Single(), Since("2.66")] = None


def _server(call: Call[object, object]) -> Server:
    """From 2.21 on deleted servers have actions too."""
    project_id = None if call.caller.is_admin else call.caller.project_id or ""
    return get_server(call.tx, call.path["server_id"], project_id=project_id, deleted=call.version.at_least("2.21"))


@COMPUTE.operation("GET", PATH, rules=(Rule(LIST),), target=_server, query=ActionsQuery)
def list_actions(call: Call[Server, None]) -> dict[str, object]:
    """List what was asked of a server, newest first."""
    paged = call.version.at_least("2.58")
    asked = page(call, since="2.58")
    conditions = [instance_actions.c.server_id == call.target.id]
    if paged:
        conditions += _conditions(call, asked)
    rows = call.tx.all(
        sa.select(instance_actions)
        .where(*conditions)
        .order_by(instance_actions.c.started_at_us.desc(), instance_actions.c.id.desc())
        .limit(asked.limit)
    )
    answer: dict[str, object] = {"instanceActions": [_view(call, row) for row in rows]}
    path = f"servers/{call.target.id}/os-instance-actions"
    if paged and (following := next_links(call, path, asked, len(rows), rows[-1].request_id if rows else "")):
        answer["links"] = following
    return answer


@COMPUTE.operation("GET", PATH + "/{request_id}", rules=(Rule(SHOW),), target=_server, query=ShowQuery)
def show_action(call: Call[Server, None]) -> dict[str, object]:
    """Show what a request asked of a server, and the events it caused."""
    request_id = call.path["request_id"]
    row = _find(call, request_id)
    if row is None:
        raise NotFound(f"Action {request_id} not found")
    view = _view(call, row)
    everything = call.authorise(EVENTS, None)
    if everything or call.version.at_least("2.51"):
        events = call.tx.all(
            sa.select(instance_action_events)
            .where(instance_action_events.c.action_id == row.id)
            .order_by(instance_action_events.c.started_at_us.desc(), instance_action_events.c.id.desc())
            .limit(call.cloud.settings.largest_page)
        )
        details = call.version.at_least("2.84") and call.authorise(EVENT_DETAILS, None)
        project_id = row.project_id or call.target.project_id
        view["events"] = [_event(call, event, project_id, everything=everything, details=details) for event in events]
    return {"instanceAction": view}


def _find(call: Call[Server, None], request_id: str) -> Row | None:
    return call.tx.first(
        sa.select(instance_actions)
        .where(instance_actions.c.server_id == call.target.id, instance_actions.c.request_id == request_id)
        .order_by(instance_actions.c.started_at_us.desc(), instance_actions.c.id.desc())
    )


def _conditions(call: Call[Server, None], asked: Page) -> list[sa.ColumnElement[bool]]:
    before = call.query.get("changes-before") if call.version.at_least("2.66") else None
    conditions = changed_between(instance_actions.c.updated_at_us, call.query.get("changes-since"), before)
    if asked.marker is not None:
        at = _find(call, asked.marker)
        if at is None:
            raise BadRequest(f"Marker {asked.marker} could not be found.")
        started = instance_actions.c.started_at_us
        conditions.append(
            sa.or_(
                started < at.started_at_us,
                sa.and_(started == at.started_at_us, instance_actions.c.id < at.id),
            )
        )
    return conditions


def _view(call: Call[Server, None], row: Row) -> dict[str, object]:
    view = {
        "action": row.action,
        "instance_uuid": row.server_id,
        "request_id": row.request_id,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "start_time": iso_us(row.started_at_us),
        "message": row.message,
    }
    if call.version.at_least("2.58"):
        view["updated_at"] = iso_us(row.updated_at_us)
    return view


def _event(
    call: Call[Server, None], row: Row, project_id: str, *, everything: bool, details: bool
) -> dict[str, object]:
    event: dict[str, object] = {
        "event": row.event,
        "start_time": iso_us(row.started_at_us),
        "finish_time": iso_us(row.finished_at_us),
        "result": row.result,
    }
    if everything:
        event["traceback"] = row.traceback
    if call.version.at_least("2.62"):
        event["hostId"] = host_id(project_id, row.host)
        if everything:
            event["host"] = row.host or ""
    if details:
        event["details"] = row.details
    return event
