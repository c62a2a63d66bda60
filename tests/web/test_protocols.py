"""What one client can make the front door hold in memory, with the real protocols on a transport that only notes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvicorn

from cumulet.web import protocols
from cumulet.web.asgi import Receive, Scope, Send
from cumulet.web.connections import Connections
from cumulet.web.protocols import HttpConnection, WebSocketConnection

App = Callable[[Scope, Receive, Send], Awaitable[None]]
HEAD = b"POST /x HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
SHORT = HEAD + b"content-length: 2\r\n\r\n{}"
UPGRADE = (
    b"GET /console/x HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n"
)


class Wire(asyncio.Transport):
    """A client's end: what was sent to it, and whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.ended = False
        self.over = asyncio.Event()
        self.aborted = False
        self.reading = True
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self.over.set()
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(lambda: self.protocol.connection_lost(None))  # type: ignore[union-attr]

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Door:
    """A front door with one connection."""

    def __init__(self, app: App) -> None:
        config = uvicorn.Config(app, ws=WebSocketConnection, lifespan="off", log_config=None, access_log=False)
        config.load()
        self.server = uvicorn.Server(config)
        self.server.lifespan = config.lifespan_class(config)
        self.admitted = Connections(most=10, most_of_one=10)
        self.wire = Wire()
        connection = self.admitted.admit("192.0.2.1", self.wire.abort)
        assert connection is not None
        self.connection = connection
        self.http = HttpConnection(self.server, self.admitted, connection)
        self.wire.protocol = self.http
        self.http.connection_made(self.wire)

    async def say(self, data: bytes) -> None:
        """One piece from the client, and what the loop then does at once."""
        if not self.wire.ended:
            assert isinstance(self.wire.protocol, asyncio.Protocol)
            self.wire.protocol.data_received(data)
        await passes()

    def is_forgotten(self) -> bool:
        return not self.server.server_state.connections and not self.admitted._count


async def passes() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without the body."""
    await answer(send)


async def after_the_body(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await answer(send)


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


async def accepts(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await after_the_body(scope, receive, send)
    else:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass


class Waits:
    """Answers once it may."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.over.wait()
        await answer(send)


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


# -- WebSockets


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
        door, due = Door(waits := Waits()), UPGRADE + b"host: x\r\n\r\n"
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
        (WebSocketConnection, "handle_connect", [UPGRADE + b"host: x\r\n\r\n"]),
        (WebSocketConnection, "handle_ping", [UPGRADE + b"host: x\r\n\r\n", b"\x89\x80\0\0\0\0"]),
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
        await door.say(UPGRADE + b"host: x\r\n\r\n")
        assert b"HTTP/1.1 101" in door.wire.sent
        assert door.http.timeout_keep_alive_task is None
        door.wire.close()
        await passes()
        assert door.is_forgotten()

    asyncio.run(story())
