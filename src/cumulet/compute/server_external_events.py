"""What other services tell Compute about a server. Our Network shares our database, so there is never news in it."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.rules import SERVICE
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import servers
from cumulet.errors import NotYet
from cumulet.web.operation import Call, Microversion, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset, Versions

CREATE = rule("os_compute_api:os-server-external-events:create", SERVICE)

MOST_VALUES = 10_240
"""As many as there are in the shortest events that have room in a body, 1,082 of them."""
_NETWORK = ["network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"]
_LATER = {
    "2.51": "volume-extended",
    "2.76": "power-update",
    "2.82": "accelerator-request-bound",
    "2.93": "volume-reimaged",
}
"""Names of events beside those of networks, each from a microversion on."""


def _names_at(version: str) -> Json:
    at = Microversion.parse(version)
    return Json({"enum": [*_NETWORK, *(name for since, name in _LATER.items() if at.at_least(since))]})


Name = Annotated[str, Versions(*((version, Annotated[str, _names_at(version)]) for version in ("2.1", *_LATER)))]
_TAGGED = frozenset({"volume-extended", "power-update", "accelerator-request-bound"})
_NEEDING_VOLUMES = frozenset({"volume-extended", "volume-reimaged", "accelerator-request-bound"})


class Event(Body):
    name: Name
    server_uuid: t.Uuid
    status: Annotated[str, Json({"enum": ["failed", "completed", "in-progress"]})] = "completed"
    tag: Annotated[str | Unset, Json({"maxLength": 255, "format": "one line"})] = UNSET


class CreateEvents(Body, most_values=MOST_VALUES):
    events: Annotated[list[Event], Json({"minItems": 1})]


@COMPUTE.operation("POST", "/os-server-external-events", rules=(Rule(CREATE),), body=CreateEvents, success=200)
def create_events(call: Call[None, CreateEvents]) -> Reply:
    """Take in events of servers: each is answered with a code, and the whole with 207 where one was refused."""
    for event in call.body.events:
        if event.name in _NEEDING_VOLUMES:
            raise NotYet(f"There are no volumes or accelerators for {event.name} to be about.")
    ids = {event.server_uuid.lower() for event in call.body.events}
    hosts = {
        row.id: row.host
        for row in call.tx.all(
            sa.select(servers.c.id, servers.c.host).where(servers.c.id.in_(ids), servers.c.deleted_at_us.is_(None))
        )
    }
    answers = [_answer(event, hosts) for event in call.body.events]
    refused = any(answer["code"] != 200 for answer in answers)
    return Reply(body={"events": answers}, status=207 if refused else 200)


def _answer(event: Event, hosts: dict[str, str | None]) -> dict[str, object]:
    server_id = event.server_uuid.lower()
    if server_id not in hosts:
        code = 404
    elif event.name in _TAGGED and event.tag is UNSET:
        code = 400
    else:
        code = 200 if hosts[server_id] else 422
    answer: dict[str, object] = {"name": event.name, "server_uuid": event.server_uuid}
    if event.tag is not UNSET:
        answer["tag"] = event.tag
    return {**answer, "status": "completed" if code == 200 else "failed", "code": code}
