"""Bodies that have more values than others may have: as many as their operation has use for."""

from __future__ import annotations

import json

import pytest

from cumulet.testing import Client, TestCloud
from cumulet.web.json_reader import LARGEST_BODY, MOST_VALUES

NOBODY = "5b0e4ba0-5d1b-4a5c-9e4e-4f6a6b8d7c21"
EVENT = {"name": "network-changed", "server_uuid": NOBODY, "status": "failed", "tag": ""}


def _events(number: int) -> dict[str, object]:
    return {"events": [EVENT] * number}


def _length(body: object) -> int:
    return len(json.dumps(body, separators=(",", ":")))


def test_as_many_events_are_taken_as_have_room_in_a_body(admin: Client) -> None:
    room = _length(_events(0))
    most = (LARGEST_BODY - room) // (_length(EVENT) + 1)
    assert 9 * most > MOST_VALUES
    answer = admin.request("POST", "/compute/v2.1/os-server-external-events", _events(most))
    assert answer.status == 207, answer.text
    assert [event["code"] for event in answer["events"]] == [404] * most


def test_a_namespace_is_made_with_all_the_properties_it_may_hold(admin: Client) -> None:
    one = {
        "type": "string",
        "title": "A title",
        "description": "What it is.",
        "operators": ["<or>"],
        "enum": ["a", "b"],
    }
    body = {"namespace": "many", "properties": {f"property-{n}": one for n in range(512)}}
    assert _length(body) < LARGEST_BODY
    answer = admin.request("POST", "/image/v2/metadefs/namespaces", body)
    assert answer.status == 201, answer.text
    assert len(answer["properties"]) == 512


@pytest.mark.parametrize("path", ["/compute/v2.1/os-server-external-events", "/image/v2/metadefs/namespaces"])
def test_of_who_may_not_such_a_body_is_not_read(member: Client, path: str) -> None:
    assert member.request("POST", path, {"not": "read"}).status == 403


def test_other_bodies_have_fewer(cloud: TestCloud, admin: Client) -> None:
    assert admin.request("POST", "/network/v2.0/ports", {"ports": [0] * MOST_VALUES}).status == 413
