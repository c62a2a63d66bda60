"""A made-up compute service with every kind of operation, and a made-up network service for the other error shapes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cumulet.compute.dialect import ComputeDialect
from cumulet.errors import Conflict, NotFound, OverQuota
from cumulet.network.dialect import NetworkDialect
from cumulet.testing import JsonObject
from cumulet.web.operation import Call, Microversion, Reply, Rule, Service
from cumulet.web.policy import base_rule, rule
from cumulet.web.schema import Anything, Body, Empty, Json, LooseBool, Query, Since, Until

GAPS = Path(__file__).with_name("widgets_gaps.txt")

WIDGETS = Service(
    name="compute",
    type="compute",
    prefix="/compute/v2.1",
    versions=(Microversion(2, 1), Microversion(2, 104)),
    microversioned=True,
    dialect=ComputeDialect(),
    gaps=GAPS,
)
PIPES = Service(
    name="network",
    type="network",
    prefix="/network/v2.0",
    versions=(Microversion(2, 0), Microversion(2, 0)),
    dialect=NetworkDialect(),
)
SERVICES = (WIDGETS, PIPES)

base_rule("widgets_reader", "role:reader and project_id:%(project_id)s")
SHOW = rule("widgets:show", "rule:widgets_reader")
CREATE = rule("widgets:create", "role:member")
MOVE = rule("widgets:move", "role:member and project_id:%(project_id)s")
MOVE_HOST = rule("widgets:move:host", "role:admin")
PIPE = rule("create_pipe", "role:admin")

OWN_PROJECT = "a" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Widget:
    id: str
    project_id: str
    user_id: str = "user-1"


def widget_in_sight(call: Call[object, object]) -> Widget:
    name = call.path["widget_id"]
    if name != "w1" or not (call.caller.is_admin or call.caller.project_id == OWN_PROJECT):
        raise NotFound(f"Widget {name} could not be found.")
    return Widget(id="w1", project_id=OWN_PROJECT)


class NewWidget(Body):
    name: Annotated[str, Json({"minLength": 1, "maxLength": 255, "format": "name"})]
    adminPass: str | None = None
    size: int = 1


class ManyWidgets(Body, most_values=1_000_000):
    names: list[str]


class Move(Body):
    host: Annotated[str | None, Json({"minLength": 1})]
    block: LooseBool | Annotated[Literal["auto"], Since("2.25")]
    force: Annotated[LooseBool, Since("2.30"), Until("2.67")] = False


class ListWidgets(Query, closed_since="2.75"):
    limit: Annotated[int, Json({"minimum": 0})] = 1000
    name: str | None = None


@WIDGETS.operation("GET", "/widgets", rules=(Rule(SHOW),), query=ListWidgets)
def list_widgets(call: Call[None, None]) -> JsonObject:
    """List widgets."""
    return {"widgets": [], "limit": call.asked(ListWidgets).limit}


@WIDGETS.operation("POST", "/widgets", rules=(Rule(CREATE),), body=NewWidget, body_key="widget", success=202)
def create_widget(call: Call[None, NewWidget]) -> Reply:
    """Create a widget."""
    if call.body.name == "one too many":
        raise OverQuota("Quota exceeded for widgets.")
    return Reply(body={"widget": {"name": call.body.name}}, headers={"Location": f"{call.service_url}/widgets/w1"})


@WIDGETS.operation("POST", "/widgets/many", rules=(Rule(CREATE),), body=ManyWidgets, success=202)
def create_widgets(call: Call[None, ManyWidgets]) -> JsonObject:
    """Create as many widgets as have room in a body."""
    return {"made": len(call.body.names)}


@WIDGETS.operation("GET", "/widgets/detail", rules=(Rule(SHOW),))
def detail_widgets(call: Call[None, None]) -> JsonObject:
    """List widgets with details."""
    return {"widgets": ["detail"]}


@WIDGETS.operation("GET", "/widgets/{widget_id}", rules=(Rule(SHOW),), target=widget_in_sight, until="2.50")
def show_widget(call: Call[Widget, None]) -> JsonObject:
    """Show a widget."""
    return {"widget": {"id": call.target.id, "shape": "old"}}


@WIDGETS.operation("GET", "/widgets/{widget_id}", rules=(Rule(SHOW),), target=widget_in_sight, since="2.51")
def show_widget_newer(call: Call[Widget, None]) -> JsonObject:
    """Show a widget."""
    return {"widget": {"id": call.target.id, "shape": "new", "host": call.authorise(MOVE_HOST, None)}}


@WIDGETS.operation("DELETE", "/widgets/{widget_id}", rules=(Rule(MOVE),), target=widget_in_sight, success=204)
def delete_widget(call: Call[Widget, None]) -> None:
    """Delete a widget."""
    if not call.tx.writable:
        raise AssertionError("a DELETE runs in a write transaction")


@WIDGETS.operation(
    "POST",
    "/widgets/{widget_id}/action",
    action="move",
    rules=(Rule(MOVE), Rule(MOVE_HOST, when="host")),
    target=widget_in_sight,
    body=Move,
    success=202,
)
def move_widget(call: Call[Widget, Move]) -> None:
    """Move a widget."""
    if call.body.host == "full":
        raise Conflict("The host is full.", reason="HOST_FULL")
    if call.body.host == "boom":
        raise RuntimeError("password=hunter2 in an unexpected place")


@WIDGETS.operation(
    "POST", "/widgets/{widget_id}/action", action="poke", rules=(Rule(MOVE),), target=widget_in_sight, body=Empty
)
def poke_widget(call: Call[Widget, Empty]) -> None:
    """Poke a widget."""


@WIDGETS.operation(
    "POST",
    "/widgets/{widget_id}/action",
    action="late",
    since="2.90",
    rules=(),
    target=widget_in_sight,
    body=Anything,
    success=202,
)
async def late_widget(call: Call[Widget, Anything]) -> JsonObject:
    """An action of later microversions, on the event loop."""
    return {"target": call.target.id, "transaction": call.tx is not None}


@WIDGETS.operation("PUT", "/widgets/{widget_id}/file", rules=(Rule(MOVE),), raw_body=True, success=204)
async def put_file(call: Call[None, None]) -> None:
    """Take a stream."""
    assert call.request is not None
    size = 0
    async for piece in call.request.stream():
        size += len(piece)
    if size != 300_000:
        raise Conflict(f"{size} bytes")


@WIDGETS.operation("GET", "/widgets/{widget_id}/file", rules=(Rule(SHOW),))
async def get_file(call: Call[None, None]) -> Reply:
    """Give a stream."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"def"

    return Reply(body=pieces(), headers={"Content-Length": "6"})


@WIDGETS.operation("GET", "/widgets/{widget_id}/large", rules=(Rule(SHOW),))
async def get_large_file(call: Call[None, None]) -> Reply:
    """Give a stream that is larger than every buffer between server and client."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"0123456789abcdef" * 4096

    return Reply(body=pieces())


@WIDGETS.operation("GET", "/widgets/{widget_id}/long", rules=(Rule(SHOW),))
def get_long_text(call: Call[None, None]) -> JsonObject:
    """Give an answer that is whole, and larger than every buffer between server and client."""
    return {"text": "0123456789abcdef" * (1 << 20)}


@WIDGETS.operation("GET", "/front", public=True)
def front(call: Call[None, None]) -> JsonObject:
    """What everybody may see."""
    return {"user": call.caller.user_id, "client": call.client, "agent": call.headers.get("User-Agent")}


@PIPES.operation("GET", "/pipes", rules=())
def list_pipes(call: Call[None, None]) -> JsonObject:
    """List pipes."""
    return {"pipes": [call.caller.project_id]}


@PIPES.operation("POST", "/pipes", rules=(Rule(PIPE),), body=NewWidget, body_key="pipe", success=201)
def create_pipe(call: Call[None, NewWidget]) -> JsonObject:
    """Create a pipe."""
    if call.body.name == "one too many":
        raise OverQuota("Quota exceeded for resources: ['pipe'].")
    return {"pipe": {"name": call.body.name}}
