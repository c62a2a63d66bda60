"""What one client can make the front door hold in memory."""

from __future__ import annotations

import asyncio

import pytest

from cumulet.web import connections as bounds
from cumulet.web import protocols
from cumulet.web.asgi import Receive, Scope, Send
from cumulet.web.connections import CONNECTION
from tests.web.wire import (
    CHUNKED,
    HEAD,
    SHORT,
    App,
    Door,
    Waits,
    after_the_body,
    answer,
    at_once,
    passes,
)


def test_a_head_has_so_many_fields() -> None:
    """Some bytes make one, and each is many bytes in memory."""

    async def story() -> None:
        most = protocols.MOST_FIELDS - 1
        door = Door(after_the_body)
        await door.say(b"GET /x HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * most + b"\r\n")
        assert b"404" in door.wire.sent
        assert not door.wire.ended
        await door.say(b"GET /x HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * (most + 2))
        assert door.wire.sent.count(b"HTTP/1.1 400") == 1
        assert door.is_forgotten()

    asyncio.run(story())


def test_who_asks_before_sending_a_body_is_told_to_go_on() -> None:
    async def story() -> None:
        door = Door(after_the_body)
        await door.say(HEAD + b"Expect: 100-Continue\r\ncontent-length: 2\r\n\r\n")
        assert door.wire.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
        await door.say(b"{}" + SHORT)
        assert door.wire.sent.count(b"HTTP/1.1 404") == 2
        assert door.wire.sent.count(b"HTTP/1.1 100") == 1

    asyncio.run(story())


# -- bodies after their answers, and what is beside a body


@pytest.mark.parametrize("app", [at_once, after_the_body])
@pytest.mark.parametrize("trailers", [b"a:b\r\n" * 1000, b"a" * 5000])
def test_trailers_are_not_kept_and_only_so_long(app: App, trailers: bytes) -> None:
    async def story() -> None:
        door = Door(app)
        await door.say(CHUNKED)
        await door.say(b"0\r\n")
        if not trailers.endswith(b"\n"):
            await door.say(b"a: ")
        pieces = 0
        while not door.wire.ended and pieces < 100:
            await door.say(trailers)
            pieces += 1
            assert len(door.http.headers) == 2
            assert app is after_the_body or door.wire.sent.count(b"HTTP/1.1") == 1
        assert (pieces - 1) * len(trailers) <= protocols.LARGEST_HEAD < 100 * len(trailers)
        assert door.is_forgotten()

    asyncio.run(story())


def test_trailers_that_end_are_ignored_and_the_connection_goes_on() -> None:
    async def story() -> None:
        door = Door(after_the_body)
        await door.say(CHUNKED + b"2\r\n{}\r\n0\r\na: b\r\n\r\n")
        await door.say(SHORT)
        assert door.wire.sent.count(b"HTTP/1.1 404") == 2
        assert not door.wire.ended

    asyncio.run(story())


def test_trailers_do_not_go_on_into_a_started_answer() -> None:
    """A client would read the 400 as a part of the answer."""

    async def starts(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await after_the_body(scope, receive, send)

    async def story() -> None:
        door = Door(starts)
        await door.say(CHUNKED)
        await door.say(b"no chunk\r\n")
        assert door.wire.ended
        assert door.wire.sent.count(b"HTTP/1.1") == 1

    asyncio.run(story())


def test_a_body_that_goes_on_after_its_answer_is_read_so_far_and_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "DRAINED_BYTES", 10_000)

    async def story() -> None:
        door = Door(at_once)
        await door.say(HEAD + b"content-length: 1000000\r\n\r\n")
        assert b"404" in door.wire.sent
        for _ in range(10):
            await door.say(b"x" * 1000)
            assert not door.wire.ended
        await door.say(b"x")
        assert door.is_forgotten()

        monkeypatch.setattr(protocols, "DRAIN_SECONDS", 0.01)
        slow = Door(at_once)
        await slow.say(HEAD + b"content-length: 10\r\n\r\n")
        await asyncio.wait_for(slow.wire.over.wait(), 10)

    asyncio.run(story())


def test_a_body_that_ends_after_its_answer_leaves_the_connection_as_it_was() -> None:
    """Clients send head and body one after the other: an early answer costs them no new connection."""

    async def story() -> None:
        door = Door(at_once)
        await door.say(HEAD + b"content-length: 2\r\n\r\n")
        assert door.http.timeout_keep_alive_task is not None
        await door.say(b"{}")
        assert door.http._drain_timer is None
        assert door.http.timeout_keep_alive_task is not None
        await door.say(SHORT)
        assert door.wire.sent.count(b"HTTP/1.1 404") == 2
        await door.say(b"\r\n")
        assert door.http.timeout_keep_alive_task is not None
        door.http.connection_lost(None)

    asyncio.run(story())


# -- requests that wait behind another


def test_so_many_requests_wait_behind_another_and_are_answered() -> None:
    async def story() -> None:
        door = Door(waits := Waits())
        await door.say(SHORT)
        await door.say(SHORT * 1000)
        assert len(door.http.pipeline) == protocols.MOST_WAITING
        assert not door.wire.reading
        for _ in range(100):
            await door.say(SHORT * 1000)
        assert len(door.http.pipeline) == protocols.MOST_WAITING
        assert door.admitted._held <= 1100 * len(SHORT) + protocols.MOST_WAITING * 3 * protocols.REQUEST_BYTES
        waits.over.set()
        await asyncio.wait_for(door.wire.over.wait(), 10)
        await passes()
        assert door.wire.sent.count(b"HTTP/1.1 404") == protocols.MOST_WAITING + 1
        assert door.wire.sent.count(b"connection: close") == 1
        assert door.is_forgotten()

    asyncio.run(story())


def test_nothing_is_read_while_requests_wait_behind_another() -> None:
    async def story() -> None:
        seen: list[tuple[bool, bool]] = []

        async def reads(scope: Scope, receive: Receive, send: Send) -> None:
            before = door.wire.reading
            await receive()
            seen.append((before, door.wire.reading))
            await answer(send)

        door = Door(reads)
        await door.say(SHORT * 5)
        assert seen == [(False, False)] * 4 + [(True, True)]
        assert not door.wire.ended
        door.http.connection_lost(None)

    asyncio.run(story())


def test_a_body_that_comes_in_pieces_behind_other_requests_is_read() -> None:
    async def story() -> None:
        door = Door(after_the_body)
        await door.say(SHORT * 3 + SHORT[:-1])
        assert door.wire.reading
        await door.say(b"}")
        assert door.wire.sent.count(b"HTTP/1.1 404") == 4

    asyncio.run(story())


def test_a_token_of_one_request_is_none_of_those_behind_it() -> None:
    async def story() -> None:
        waits = Waits()

        async def shows_a_token(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "GET":
                scope[CONNECTION].known("project a")
            else:
                await waits.over.wait()
            await answer(send)

        door = Door(shows_a_token)
        await door.say(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n" + SHORT * 2)
        assert b"404" in door.wire.sent
        assert not door.connection.known
        await door.say(CHUNKED)
        assert door.admitted._held >= len(CHUNKED) + protocols.REQUEST_BYTES

    asyncio.run(story())


def test_where_an_address_holds_too_much_no_request_waits_behind_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        door = Door(waits := Waits())
        monkeypatch.setattr(bounds, "UNKNOWN_BYTES_OF_ONE", 2 * protocols.REQUEST_BYTES)
        await door.say(SHORT * 10)
        assert len(door.http.pipeline) == 2
        waits.over.set()
        await asyncio.wait_for(door.wire.over.wait(), 10)
        assert door.wire.sent.count(b"HTTP/1.1 404") == 3

    asyncio.run(story())


def test_a_connection_dropped_for_what_it_holds_is_parsed_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        door = Door(waits := Waits())
        await door.say(SHORT * 2)
        door.admitted.rest(door.connection)
        monkeypatch.setattr(bounds, "UNKNOWN_BYTES_OF_ONE", protocols.REQUEST_BYTES)
        await door.say(SHORT * 2)
        assert door.wire.aborted
        assert len(door.http.pipeline) == 1
        assert not door.wire.sent
        waits.over.set()
        await passes()

    asyncio.run(story())


@pytest.mark.parametrize("wrong", [b"\x00 nonsense", b"GET /" + b"x" * protocols.LARGEST_HEAD])
def test_what_is_malformed_behind_other_requests_ends_the_connection_after_their_answers(wrong: bytes) -> None:
    async def story() -> None:
        door = Door(waits := Waits())
        await door.say(SHORT * 2 + wrong)
        assert not door.wire.ended
        assert door.http._head_timer is None
        waits.over.set()
        await asyncio.wait_for(door.wire.over.wait(), 10)
        assert door.wire.sent.count(b"HTTP/1.1 404") == 2
        assert door.wire.sent.count(b"HTTP/1.1") == 2

    asyncio.run(story())
