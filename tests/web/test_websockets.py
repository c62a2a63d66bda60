"""What one client of a WebSocket can make the front door hold in memory, also by asking for one."""

from __future__ import annotations

import asyncio

import pytest

from cumulet.web import websockets
from cumulet.web.asgi import Receive, Scope, Send
from cumulet.web.doors import LARGEST_MESSAGE
from cumulet.web.protocols import HttpConnection
from cumulet.web.websockets import AT_ONCE, WebSocketConnection
from tests.web.wire import (
    ASK_FOR_SOCKET,
    CHUNKED,
    SHORT,
    UPGRADE,
    Door,
    Waits,
    accepts,
    at_once,
    passes,
)


@pytest.mark.parametrize(
    "fields",
    [
        b"host: xn--99999999\r\n",
        b"host: xn--a-\xe9\r\n",
        b"host: x\r\nsec-websocket-protocol: \xe9\r\n",
        b"host: x\r\nsec-websocket-extensions: \xe9\r\n",
    ],
)
def test_a_malformed_request_for_a_websocket_is_400_and_leaves_nothing(
    fields: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        for before in (b"", SHORT):
            door = Door(at_once)
            await door.say(before)
            del door.wire.sent[:]
            await door.say(UPGRADE + fields + b"\r\n")
            assert door.wire.sent.startswith(b"HTTP/1.1 400 ")
            assert not door.wire.aborted
            assert door.is_forgotten()

    asyncio.run(story())
    assert caplog.records == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (UPGRADE + b"\r\n", b"400"),
        (UPGRADE + b"host: x\r\nhost: y\r\n\r\n", b"400"),
        (UPGRADE.replace(b"GET", b"PUT") + b"host: x\r\n\r\n", b"400"),
        (UPGRADE.replace(b"sec-websocket-key", b"another") + b"host: x\r\n\r\n", b"400"),
        (UPGRADE.replace(b"13", b"12") + b"host: x\r\n\r\n", b"426"),
    ],
)
def test_what_asks_for_no_websocket_is_refused_and_leaves_nothing(request_: bytes, status: bytes) -> None:
    async def story() -> None:
        door = Door(at_once)
        await door.say(request_)
        assert door.wire.sent.split()[1] == status
        assert door.is_forgotten()

    asyncio.run(story())


def test_a_websocket_does_not_begin_before_an_answer_that_is_due() -> None:
    async def story() -> None:
        door, due = Door(waits := Waits()), ASK_FOR_SOCKET
        await door.say(SHORT + due)
        assert isinstance(door.wire.protocol, HttpConnection)
        waits.over.set()
        await passes()
        assert door.wire.ended
        assert door.is_forgotten()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("broken", "method", "said"),
    [
        (HttpConnection, "_bound_body", [CHUNKED]),
        (WebSocketConnection, "handle_connect", [ASK_FOR_SOCKET]),
        (WebSocketConnection, "handle_ping", [ASK_FOR_SOCKET, b"\x89\x80\0\0\0\0"]),
    ],
)
def test_an_error_of_ours_ends_the_connection_and_is_one_kind_of_line(
    broken: type, method: str, said: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("what is new each time", object())

    monkeypatch.setattr(broken, method, fails)

    async def story() -> None:
        for _ in range(2):
            door = Door(accepts)
            for piece in said:
                await door.say(piece)
            assert door.wire.aborted
            assert door.is_forgotten()

    asyncio.run(story())
    assert len(caplog.records) == 2
    assert len({record.msg for record in caplog.records}) == 1


def test_no_timer_of_http_ends_a_websocket() -> None:
    async def story() -> None:
        door = Door(accepts)
        await door.say(SHORT)
        await door.say(ASK_FOR_SOCKET)
        assert b"HTTP/1.1 101" in door.wire.sent
        assert door.http.timeout_keep_alive_task is None
        door.wire.close()
        await passes()
        assert door.is_forgotten()

    asyncio.run(story())


PING = b"\x89\x81\0\0\0\0"
"""The head of one with a byte of its own."""
PONG = b"\x8a\x80\0\0\0\0"


def test_pings_of_a_client_who_takes_nothing_pile_no_pongs_up() -> None:
    async def story() -> None:
        door = Door(accepts)
        await door.say(ASK_FOR_SOCKET)
        socket = door.socket()
        del door.wire.sent[:]
        socket.pause_writing()
        for _ in range(100):
            await door.say((PING + b"a") * 100 + PING + b"b")
        assert not door.wire.sent
        socket.resume_writing()
        await passes()
        assert door.wire.sent == b"\x8a\x01b"
        await door.say(PING + b"c")
        assert door.wire.sent == b"\x8a\x01b\x8a\x01c"
        assert socket._stalled_timer is None
        door.wire.close()

    asyncio.run(story())


def test_no_pong_follows_the_end() -> None:
    async def story() -> None:
        closed, closing = Door(accepts), Door(accepts)
        for door in (closed, closing):
            await door.say(ASK_FOR_SOCKET)
            door.socket().pause_writing()
            await door.say(PING + b"a")
            del door.wire.sent[:]
        closed.wire.close()
        closing.socket().close_sent = True
        for door in (closed, closing):
            door.socket().resume_writing()
            await passes()
            assert not door.wire.sent
        closing.wire.close()

    asyncio.run(story())


@pytest.mark.parametrize("before", [False, True])
def test_a_websocket_s_client_who_takes_nothing_is_cut_off(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one who has not taken the answer before it."""
    monkeypatch.setattr(websockets, "STALLED_SECONDS", 0.01)

    async def story() -> None:
        door = Door(accepts)
        await door.say(SHORT)
        if before:
            door.http.pause_writing()
        await door.say(ASK_FOR_SOCKET)
        if not before:
            door.socket().pause_writing()
        assert door.http._stalled_timer is None
        await asyncio.wait_for(door.wire.over.wait(), 10)
        await passes()
        assert door.wire.aborted
        assert door.is_forgotten()

    asyncio.run(story())


def text(number: int) -> bytes:
    """A message, in the smallest frame that holds it."""
    said = b"%d" % number
    return bytes((0x81, 0x80 | len(said), 0, 0, 0, 0)) + said


def test_many_small_frames_are_read_in_pieces_and_others_are_served_between_them() -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] != "websocket.disconnect":
            if "text" in event:
                heard.append(event["text"])

    async def story() -> None:
        door = Door(app)
        await door.say(ASK_FOR_SOCKET)
        socket = door.socket()
        frames = [text(number) for number in range(8000)]
        flood, later = b"".join(frames[:7999]), frames[7999]
        socket.data_received(flood[:-3])
        sizes = []
        while socket._left:
            assert not door.wire.reading
            sizes.append(len(socket._left))
            await asyncio.sleep(0)
            door.socket().transport.resume_reading()  # As uvicorn does once the application has heard all.
        assert max(a - b for a, b in zip([len(flood) - 3, *sizes], sizes, strict=False)) <= AT_ONCE
        socket.data_received(flood[-3:])
        assert door.wire.reading
        socket.data_received(later)
        await passes()
        assert heard == [str(number) for number in range(8000)]
        door.wire.close()
        await passes()
        assert door.is_forgotten()

    asyncio.run(story())


def test_what_was_not_read_yet_is_dropped_at_the_end() -> None:
    async def story() -> None:
        door = Door(accepts)
        await door.say(ASK_FOR_SOCKET)
        socket = door.socket()
        socket.data_received(text(1) * 10_000)
        assert socket._left
        door.wire.abort()
        await passes()
        assert not socket._left
        assert door.is_forgotten()

    asyncio.run(story())


@pytest.mark.parametrize("closes", [False, True])
def test_what_is_sent_where_no_websocket_listens_is_bounded(closes: bool) -> None:
    """Before it is accepted, and after it was closed."""

    async def story() -> None:
        over = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if closes:
                await send({"type": "websocket.accept"})
                await send({"type": "websocket.close"})
            await over.wait()

        door = Door(app)
        await door.say(ASK_FOR_SOCKET)
        for _ in range(LARGEST_MESSAGE // 6000):
            await door.say(PONG * 1000)
            assert not door.wire.ended
        await door.say(PONG * 1000)
        over.set()
        await passes()
        assert door.wire.aborted
        assert door.is_forgotten()

    asyncio.run(story())
