"""Connections are bounded, and idle ones keep no other client out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
import ssl
from pathlib import Path

import pytest

from cumulet.web import connections as bounds
from cumulet.web import protocols
from cumulet.web import server as listener
from cumulet.web.connections import Connection, Connections, Link
from cumulet.web.context import Cloud
from cumulet.web.protocols import HttpConnection
from cumulet.web.server import Server
from tests.web.test_server import certificate, serving

__all__ = ["certificate"]

ASK = b"GET /compute/v2.1/widgets/w1 HTTP/1.1\r\nhost: x\r\nx-auth-token: member\r\n\r\n"


async def status(running: Server, context: ssl.SSLContext, *, source: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context, local_addr=(source, 0))
    writer.write(ASK)
    answer = await reader.readline()
    writer.close()
    return answer.split()[1]


async def silent(running: Server, *, source: str = "127.0.0.1") -> asyncio.StreamReader:
    """A connection that never says a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, local_addr=(source, 0))
    KEPT.append(writer)
    return reader


KEPT: list[asyncio.StreamWriter] = []


def newcomer(place: Connections, peer: str, log: list[str], name: str) -> Connection:
    """A connection that is admitted. Its name is in `log` once it is dropped."""
    connection = place.admit(peer, lambda: log.append(name))
    assert connection is not None
    return connection


def test_silent_connections_keep_nobody_out(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        readers = [await silent(running) for _ in range(30)]
        assert await status(running, context) == b"200"
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(readers[0].read(), 5) == b""  # the oldest made room

    serving(cloud, certificate, test, connections_per_address=5)


def test_whose_connections_all_have_requests_keeps_no_idle_one_of_others() -> None:
    place, log = Connections(most=4, most_of_one=3), list[str]()
    for number in range(3):
        place.serve(newcomer(place, "busy", log, f"busy {number}"), known=True)
    newcomer(place, "idle", log, "idle")
    newcomer(place, "another", log, "another")
    assert log == ["idle"]


def test_silent_connections_that_are_dropped_leave_nothing_to_the_garbage_collector(
    cloud: Cloud, certificate: tuple[Path, Path]
) -> None:
    """The garbage collector stops all threads while it runs."""
    many = 60

    async def test(running: Server, context: ssl.SSLContext) -> None:
        with contextlib.ExitStack() as stack:
            gc.collect()
            gc.disable()
            stack.callback(gc.enable)
            address = ("127.0.0.1", running.port)
            clients = [stack.enter_context(socket.create_connection(address)) for _ in range(many)]
            async with asyncio.timeout(30):
                for dropped in clients[:-5]:
                    dropped.setblocking(False)
                    with contextlib.suppress(ConnectionError):
                        await asyncio.get_running_loop().sock_recv(dropped, 1)
            assert gc.collect() < many

    serving(cloud, certificate, test, connections_per_address=5)


def test_many_addresses_together_keep_nobody_out_either(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        for n in range(30):
            await silent(running, source=f"127.0.1.{n % 6 + 1}")
        assert await status(running, context, source="127.0.2.1") == b"200"

    serving(cloud, certificate, test, connections=10)


def test_a_handshake_that_does_not_come_is_cut_off(
    cloud: Cloud, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 0.05)

    async def test(running: Server, context: ssl.SSLContext) -> None:
        reader = await silent(running)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""

    serving(cloud, certificate, test)
    assert caplog.messages == []  # a flood must not fill a disk


def test_unfinished_bodies_without_a_token_are_bounded_in_bytes(
    cloud: Cloud, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "UNKNOWN_BYTES_OF_ONE", 50_000)

    async def test(running: Server, context: ssl.SSLContext) -> None:
        head = b"POST /compute/v2.1/widgets HTTP/1.1\r\nhost: x\r\ncontent-length: 30000\r\nx-pad: "
        first, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        writer.write(head + b"y" * 20_000)
        for _ in range(3):
            _, other = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
            other.write(head + b"y" * 20_000)
            KEPT.append(other)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(first.read(), 5) == b""
        assert await status(running, context) == b"200"

    serving(cloud, certificate, test)


def test_who_takes_no_answer_is_cut_off(
    cloud: Cloud, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "STALLED_SECONDS", 0.05)
    over = asyncio.Event()
    lost = HttpConnection.connection_lost

    def connection_lost(protocol: HttpConnection, error: Exception | None) -> None:
        lost(protocol, error)
        over.set()

    monkeypatch.setattr(HttpConnection, "connection_lost", connection_lost)

    async def test(running: Server, context: ssl.SSLContext) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context, limit=1024)
        writer.write(ASK.replace(b"w1 ", b"w1/large ") * 8)
        await asyncio.wait_for(over.wait(), 10)
        writer.close()

    serving(cloud, certificate, test)


def test_the_silent_go_first_then_those_who_rest_and_nobody_who_is_served() -> None:
    log: list[str] = []
    place = Connections(most=100, most_of_one=3)
    served, resting, _ = (newcomer(place, "192.0.2.1", log, name) for name in ("served", "resting", "quiet"))
    place.serve(served, known=True)
    place.serve(resting, known=False)
    place.rest(resting)
    for n in range(2):
        another = newcomer(place, "192.0.2.1", log, f"another {n}")
        place.serve(another, known=False)
    assert log == ["quiet", "resting"]
    assert place.admit("192.0.2.1", list) is None
    newcomer(place, "192.0.2.2", log, "elsewhere")


def test_bodies_that_do_not_come_keep_nobody_out(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    """Whoever sends them: with a live token, too."""

    async def test(running: Server, context: ssl.SSLContext) -> None:
        readers, writers = [], []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
            writer.write(b"POST /compute/v2.1/widgets HTTP/1.1\r\nhost: x\r\nx-auth-token: member\r\n")
            writer.write(b"content-length: 100\r\nexpect: 100-continue\r\n\r\n")
            assert b"100" in await reader.readline(), "its body is being read"
            readers.append(reader)
            writers.append(writer)
        assert await status(running, context) == b"200"
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in await asyncio.wait_for(readers[0].read(), 5), "the oldest is dropped"
        for writer in writers:
            writer.transport.abort()

    serving(cloud, certificate, test, connections_per_address=3)


def test_answers_that_nobody_takes_keep_nobody_out(
    cloud: Cloud, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    all_wait, pause = asyncio.Event(), Connections.pause

    def paused(place: Connections, connection: Connection) -> None:
        pause(place, connection)
        if len(connection.share.waiting) == 3:
            all_wait.set()

    monkeypatch.setattr(Connections, "pause", paused)

    async def test(running: Server, context: ssl.SSLContext) -> None:
        writers = []
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context, limit=1024)
            writer.write(ASK.replace(b"w1 ", b"w1/large ") * 8)
            writers.append(writer)
        await asyncio.wait_for(all_wait.wait(), 20)
        assert await status(running, context) == b"200"
        for writer in writers:
            writer.transport.abort()

    serving(cloud, certificate, test, connections_per_address=3)


def test_who_takes_some_of_its_answer_goes_to_the_end_of_those_who_give_way() -> None:
    log: list[str] = []
    place = Connections(most=100, most_of_one=3)
    slow, steady, sends = (newcomer(place, "192.0.2.1", log, name) for name in ("slow", "steady", "sends"))
    for connection in (slow, steady):
        place.serve(connection, known=True)
        place.pause(connection)
    place.know(sends)
    place.go_on(sends)
    for _ in range(3):
        place.go_on(steady)
        place.pause(steady)
    for _ in range(3):
        place.serve(newcomer(place, "192.0.2.1", log, "served"), known=True)
    assert log == ["slow", "sends", "steady"], "that it takes more makes no body whole"
    place.go_on(slow)
    place.pause(slow)
    assert slow.place is None


def test_who_sends_a_body_gives_way_where_nobody_is_idle_but_not_who_streams_or_has_sent_it() -> None:
    log: list[str] = []
    place = Connections(most=6, most_of_one=4)
    streams, whole, first, second = (
        newcomer(place, "192.0.2.1", log, name) for name in ("streams", "whole", "first", "second")
    )
    for connection in (streams, whole, first, second):
        Link(place, connection).known("project p1")
    Link(place, streams).stream(True)
    place.serve(whole, known=True)
    for n in range(2):
        Link(place, newcomer(place, "192.0.2.1", log, f"third {n}")).known("project p1")
    assert log == ["first", "second"]
    for n in range(2):
        Link(place, newcomer(place, "192.0.2.2", log, f"elsewhere {n}")).known("project p2")
    newcomer(place, "192.0.2.3", log, "all together")
    assert log[2:] == ["third 0"]
    Link(place, streams).stream(False)
    for _ in range(3):
        place.serve(newcomer(place, "192.0.2.1", log, "served"), known=True)
    assert log[3:] == ["all together", "third 1", "streams"]


def test_among_many_that_rest_a_newcomer_is_not_cut_off_in_its_handshake() -> None:
    log: list[str] = []
    place = Connections(most=100, most_of_one=10)
    for n in range(10):
        place.rest(newcomer(place, "192.0.2.1", log, f"resting {n}"))
    greeted = [newcomer(place, "192.0.2.1", log, f"greeted {n}") for n in range(3)]
    assert log == ["resting 0", "resting 1", "resting 2"]
    assert all(connection.place is not None for connection in greeted)


def test_a_flood_of_silent_connections_leaves_half_of_those_that_rest() -> None:
    log: list[str] = []
    place = Connections(most=100, most_of_one=10)
    for n in range(10):
        place.rest(newcomer(place, "192.0.2.1", log, f"resting {n}"))
    for _ in range(100):
        newcomer(place, "192.0.2.1", log, "silent")
    assert [name for name in log if name != "silent"] == [f"resting {n}" for n in range(5)]


def test_where_all_together_are_too_many_the_address_with_most_gives_way() -> None:
    log: list[str] = []
    place = Connections(most=5, most_of_one=4)
    for peer in ("192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2", "192.0.2.3", "192.0.2.4"):
        newcomer(place, peer, log, peer)
    assert log == ["192.0.2.2"]


def test_what_is_held_for_the_unknown_is_let_go_when_they_are_known_answered_or_gone() -> None:
    log: list[str] = []
    place = Connections(most=10, most_of_one=10)
    three = [newcomer(place, "192.0.2.1", log, str(n)) for n in range(3)]
    for connection in three:
        place.hold(connection, bounds.UNKNOWN_BYTES_OF_ONE // 3)
    known, answered, gone = three
    place.serve(known, known=True)
    place.rest(answered)
    place.gone(gone)
    assert place._held == known.share.held == 0
    place.hold(known, bounds.UNKNOWN_BYTES)
    assert place._held == 0
    assert log == []


def test_whoever_was_known_in_one_request_is_not_in_the_next() -> None:
    """A connection may carry requests of several callers."""
    log: list[str] = []
    place = Connections(most=10, most_of_one=10)
    one = newcomer(place, "192.0.2.1", log, "one")
    place.serve(one, known=True)
    place.rest(one)
    place.hold(one, bounds.UNKNOWN_BYTES_OF_ONE)
    assert (place._held, log) == (bounds.UNKNOWN_BYTES_OF_ONE, [])
    place.hold(one, 1)
    assert (place._held, log) == (0, ["one"])


def test_the_limit_of_open_files_is_raised_and_some_are_kept_back() -> None:
    most = Connections(most=1_000_000, most_of_one=1)._most
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 2 * most + bounds.DESCRIPTORS_KEPT_BACK <= soft
