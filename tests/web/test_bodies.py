"""Bodies of requests: what is taken, what is refused and how, and what comes in pieces."""

from __future__ import annotations

import ast
import asyncio
import json
from typing import Any

import pytest

from cumulet.errors import BadRequest
from cumulet.web import bodies
from cumulet.web.json_reader import MOST_VALUES
from tests.test_house_rules import SOURCE, modules_of
from tests.web.conftest import ACTION, Client, W, send


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "Malformed request body"),
        (b"{}", "Malformed request body"),
        (b"[]", "Malformed request body"),
        (b'{"a": 1, "b": 2}', "Malformed request body"),
        (b'{"move', "Malformed request body"),
        (b'{"move": {}, "move": {}}', "Malformed request body"),
        (b'{"jump": {}}', "There is no such action: jump"),
        (b'{"move": null}', "Invalid input for field/attribute move. Value: None. None is not of type 'object'"),
        (b'{"move": {"host": null}}', "Invalid input for field/attribute move. Value: {'host': None}. "
         "'block' is a required property"),
        (b'{"poke": 1}', "Invalid input for field/attribute poke. Value: 1. 1 is not of type 'object', 'null'"),
    ],
)  # fmt: skip
def test_a_wrong_action_body_is_400(client: Client, raw: bytes, message: str) -> None:
    answer = send(client, "POST", ACTION, raw=raw)
    assert (answer.status, answer.message) == (400, message)


@pytest.mark.parametrize("raw", [b"5", b'"x"', b"null", b"[1]", b"true"])
def test_an_action_that_is_no_object_is_404(client: Client, raw: bytes) -> None:
    assert send(client, "POST", ACTION, raw=raw).status == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"x": 1}, "'widget' is a required property"),
        (5, "5 is not of type 'object'"),
        (None, "None is not of type 'object'"),
        ({"widget": 1}, "Invalid input for field/attribute widget. Value: 1. 1 is not of type 'object'"),
        ({"widget": {"name": "a"}, "y": 2}, "Additional properties are not allowed ('y' was unexpected)"),
        ({"widget": {"name": "a\n"}}, "An invalid 'name' value was provided. The name must be: printable characters. "
         "Can not start or end with whitespace."),
        ({"widget": {"name": "a", "size": 1.0}}, "Invalid input for field/attribute size. Value: 1.0. "
         "1.0 is not of type 'integer'"),
    ],
)  # fmt: skip
def test_an_envelope_is_checked(client: Client, body: object, message: str) -> None:
    answer = send(client, "POST", W, body)
    assert (answer.status, answer.message) == (400, message)


def test_secrets_in_a_refused_body_are_not_echoed(client: Client) -> None:
    answer = send(client, "POST", W, {"widget": {"adminPass": "hunter2", "bogus": 1}})
    assert answer.status == 400
    assert b"hunter2" not in answer.body


def test_a_body_that_is_not_json_is_415(client: Client) -> None:
    xml = send(client, "POST", W, raw=b"<widget/>", headers={"Content-Type": "application/xml"})
    assert (xml.status, xml.json["badMediaType"]["message"]) == (415, "Unsupported Content-Type")
    plain = send(client, "POST", W, raw=b'{"widget": {"name": "x"}}', headers={"Content-Type": "text/plain"})
    assert plain.status == 202


def test_a_body_with_many_values_is_read_only_of_who_may_send_it(client: Client) -> None:
    many = {"names": ["a"] * (MOST_VALUES + 1)}
    answer = send(client, "POST", f"{W}/many", many)
    assert (answer.status, answer.json) == (202, {"made": MOST_VALUES + 1})
    for raw in (b"{not read", json.dumps(many).encode()):
        refused = send(client, "POST", f"{W}/many", raw=raw, token="nobody")
        assert (refused.status, refused.message) == (403, "Policy doesn't allow widgets:create to be performed.")


def test_too_large_a_body_is_413_by_its_length_and_by_its_bytes(client: Client) -> None:
    data = b'{"widget": {"name": "' + b"x" * 120_000 + b'"}}'
    assert send(client, "POST", W, raw=data).status == 413
    pieces = [data[n : n + 1000] for n in range(0, len(data), 1000)]
    assert send(client, "POST", W, pieces=pieces).status == 413


def test_a_body_may_come_in_pieces(client: Client) -> None:
    assert send(client, "POST", W, pieces=[b'{"widget": {"na', b'me": "x"}}']).status == 202


def test_streams_go_in_and_out(client: Client) -> None:
    stream = {"content-type": "application/octet-stream"}
    assert send(client, "PUT", f"{W}/w1/file", pieces=[b"x" * 100_000] * 3, headers=stream).status == 204
    answer = send(client, "GET", f"{W}/w1/file")
    assert (answer.body, answer.header("content-type")) == (b"abcdef", "application/octet-stream")


READERS_OF_BODIES = {
    "web/bodies.py",  # within BODY_SECONDS
    "web/dispatch.py",  # gives it to the others, by turns
    "image/sending.py",  # a stream, with bounds of its own
    "compute/console_door.py",  # messages of a WebSocket
}


def test_every_body_is_read_where_its_time_is_bounded() -> None:
    """Another reader would let clients keep connections for ever: operations read by `raw_body`."""
    reading = {
        str(path.relative_to(SOURCE))
        for path in modules_of(".")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and not node.args and _reads_a_body(ast.unparse(node.func))
    }
    assert reading == READERS_OF_BODIES


def _reads_a_body(called: str) -> bool:
    *of, name = called.split(".")
    return name == "receive" or (name in ("stream", "body", "json", "form") and of[-1:] == ["request"])


def test_a_client_that_goes_away_has_sent_no_body() -> None:
    """A body that arrives in part changes nothing."""

    async def story() -> None:
        messages: list[dict[str, object]] = [
            {"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"},
        ]  # fmt: skip

        async def receive() -> Any:
            return messages.pop(0)

        with pytest.raises(BadRequest, match="Malformed request body"):
            await bodies.whole_body(receive, None, 1000)

    asyncio.run(story())
