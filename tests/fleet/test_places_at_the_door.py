"""One host, a slow or a hostile one, keeps neither all places for transfers nor any of them for as long as it likes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cumulet.agent.images import ImagesOfControlPlane
from cumulet.ca import CertificateAuthority
from cumulet.fleet import image_door
from cumulet.fleet.image_door import ImageDoor
from cumulet.fleet.places import Busy, Places
from cumulet.host.driver import DriverError
from cumulet.host.images import MOST_OF_ONE
from tests.fleet.test_image_door import CONTENT, IMAGE_ID, SHA512, SOCKET, bring, fetch, image, with_door


@pytest.fixture(autouse=True)
def _in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # A socket's name must be short.


async def quiet() -> None:
    pass


@contextlib.asynccontextmanager
async def asking(tls: Path, head: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that has asked for something, and reads nothing."""
    context = ssl.create_default_context(cafile=str(tls / "ca-cert.pem"))
    context.load_cert_chain(tls / "client-cert.pem", tls / "client-key.pem")
    reader, writer = await asyncio.open_unix_connection(
        str(SOCKET), ssl=context, server_hostname="localhost", limit=1024
    )
    writer.write(f"{head} HTTP/1.1\r\n".encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


ANSWERED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
GET = f"GET /images/{SHA512}"


class Counted:
    """How many transfers are under way at the door."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.under_way = self.most = 0
        self._changed = asyncio.Event()
        send = ImageDoor._send

        async def counted(door: ImageDoor, host: str, sha512: str, writer: asyncio.StreamWriter) -> None:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self._changed.set()
            try:
                await send(door, host, sha512, writer)
            finally:
                self.under_way -= 1

        monkeypatch.setattr(ImageDoor, "_send", counted)

    async def until(self, number: int) -> None:
        while self.under_way != number:
            self._changed.clear()
            await self._changed.wait()


def test_a_host_that_takes_all_that_it_can_leaves_places_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_door, "MOST_TRANSFERS", 6)
    counted = Counted(monkeypatch)

    async def story(authority: CertificateAuthority) -> None:
        hostile = authority.issue_host("host1")
        async with asyncio.timeout(30), contextlib.AsyncExitStack() as stack:
            for _ in range(10):
                _, writer = await stack.enter_async_context(asking(hostile, GET))
                writer.write(b"\r\n")
            await counted.until(MOST_OF_ONE)
            assert await fetch(authority.issue_host("host3"), image()) == CONTENT
            await counted.until(MOST_OF_ONE)  # Who has all may know it before the door does.

    with_door(story)


def test_a_place_goes_to_the_host_that_has_the_fewest_and_to_nobody_who_has_left() -> None:
    async def story() -> list[str]:
        places = Places(most=2, most_of_one=2, most_waiting_of_one=3, wait_seconds=60)
        served: list[str] = []
        leave = asyncio.Event()

        async def have(host: str, until: asyncio.Event | None = None) -> None:
            async with places.place(host, say_seconds=60, say=quiet):
                served.append(host)
                await (until or leave).wait()

        first = asyncio.Event()
        tasks = [asyncio.create_task(have("a", one)) for one in (first, leave)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(have("a")) for _ in range(3)]
        gone = asyncio.create_task(have("b"))
        tasks += [asyncio.create_task(have(host)) for host in ("b", "c")]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="3 of a wait already"):
            await have("a")
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        first.set()
        await tasks[0]
        await asyncio.sleep(0)
        assert served == ["a", "a", "b"]
        leave.set()
        await asyncio.gather(*tasks)
        assert (places._waiting, +places._held) == ({}, {}), "nothing is kept of hosts that have gone"
        return served

    assert asyncio.run(story()) == ["a", "a", "b", "a", "c", "a", "a"]


@pytest.mark.parametrize("brings", [False, True])
def test_a_host_that_waits_is_told_so_and_then_has_its_turn(brings: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_door, "MOST_OF_ONE", 1)
    monkeypatch.setattr(image_door, "SAY_SECONDS", 0.0)
    counted, said, tell = Counted(monkeypatch), 0, image_door._say_that_it_waits
    taken: list[bytes] = []
    enough = asyncio.Event()

    async def told(writer: asyncio.StreamWriter) -> None:
        nonlocal said
        said += 1
        await tell(writer)
        if said == 5:
            enough.set()

    monkeypatch.setattr(image_door, "_say_that_it_waits", told)

    async def story(authority: CertificateAuthority) -> None:
        tls = authority.issue_host("host1")
        async with asyncio.timeout(30):
            async with asking(tls, GET) as (_, writer):
                writer.write(b"\r\n")
                await counted.until(1)
                travels = bring(tls, IMAGE_ID, CONTENT) if brings else fetch(tls, image())
                waits = asyncio.create_task(travels)
                await enough.wait()
                assert not waits.done()
            assert await waits == (None if brings else CONTENT)

    with_door(story, taken)
    assert taken == ([CONTENT] if brings else [])


def test_a_host_that_waits_too_long_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_door, "MOST_OF_ONE", 1)
    monkeypatch.setattr(image_door, "WAIT_SECONDS", 0.0)
    counted = Counted(monkeypatch)

    async def story(authority: CertificateAuthority) -> None:
        tls = authority.issue_host("host1")
        async with asyncio.timeout(30), asking(tls, GET) as (_, writer):
            writer.write(b"\r\n")
            await counted.until(1)
            with pytest.raises(DriverError, match=r"IMAGE_UNREADABLE: .* is not to be had: 503"):
                await fetch(tls, image())
            with pytest.raises(DriverError, match="IMAGE_NOT_TAKEN"):
                await bring(tls, IMAGE_ID, CONTENT)

    with_door(story)


def test_a_transfer_at_less_than_the_least_rate_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece comes well within the time for one, which was all that counted."""
    monkeypatch.setattr(image_door, "LEAST_BYTES_A_SECOND", len(CONTENT) * 10)
    wait = image_door._Patience.__init__

    def less_for_all(self: image_door._Patience, size: int) -> None:
        wait(self, size)
        self._left -= image_door.STALLED_SECONDS

    monkeypatch.setattr(image_door._Patience, "__init__", less_for_all)
    taken: list[bytes] = []

    async def story(authority: CertificateAuthority) -> None:
        tls = authority.issue_host("host1")
        put = f"PUT /images/{IMAGE_ID}"
        async with asyncio.timeout(60), asking(tls, GET) as (got, fetches), asking(tls, put) as (answer, brings):
            fetches.write(b"\r\n")
            brings.write(b"Content-Length: 2000\r\n\r\n")
            over = asyncio.create_task(answer.read())
            sent = 0
            while not over.done() and sent < 2000:
                brings.write(b"x")
                sent += 1
                await asyncio.sleep(0.01)
            [found] = await asyncio.gather(over, return_exceptions=True)
            assert found != ANSWERED, "it was taken"
            received = 0
            with contextlib.suppress(ConnectionError):
                while piece := await got.read(4096):
                    received += len(piece)
                    await asyncio.sleep(0.005)
            assert received < len(CONTENT), "it was sent whole"

    with_door(story, taken)
    assert taken == []


def test_an_agent_asks_for_no_more_at_once_than_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_door, "MOST_OF_ONE", 64)
    counted = Counted(monkeypatch)

    async def story(authority: CertificateAuthority) -> None:
        images = ImagesOfControlPlane(SOCKET, authority.issue_host("host1"))

        async def whole() -> bytes:
            return b"".join([piece async for piece in images.stream(image())])

        assert await asyncio.gather(*(whole() for _ in range(8))) == [CONTENT] * 8

    with_door(story)
    assert counted.most == MOST_OF_ONE
