"""The agent in a guest may say anything, or nothing: what is asked of it ends in time, and its words go no further."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from cumulet.drivers.qemu import guest_agent
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Intent, Role
from cumulet.host.driver import DriverError, Guest

Inside = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def channel(path: Path, guests: Iterable[Inside]) -> AsyncIterator[None]:
    """At the other end of it is one after the other of these, each time that somebody connects."""
    ended: list[asyncio.Task[None]] = []
    following = iter(guests)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ended.append(task)
        try:
            await next(following)(reader, writer)
        except OSError:
            pass  # The other side has had enough.
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connected, path)
    try:
        yield
    finally:
        server.close()
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)


def asked(tmp_path: Path, guest: Inside, command: str = "guest-fsfreeze-freeze") -> object:
    """What comes of one question, if this is at the other end of the channel."""

    async def story() -> object:
        path = tmp_path / "agent.sock"
        async with channel(path, [guest]):
            return await guest_agent.ask(path, command, {"n": 1})

    return asyncio.run(story())


async def synced(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    number = re.search(rb'"id":(\d+)', await reader.readline())
    assert number is not None
    writer.write(b"\xff" + b'{"return": %s}\n' % number[1])


def saying(answer: bytes) -> Inside:
    """Finds itself asked, as it should, and answers this."""

    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await synced(reader, writer)
        await reader.readline()
        writer.write(answer)
        await writer.drain()
        await reader.read()

    return guest


def test_it_is_asked_and_its_answer_comes_back(tmp_path: Path) -> None:
    assert asked(tmp_path, saying(b'{"return": 3}\n')) == 3
    assert asked(tmp_path, saying(b'{"return": {}}\n')) == {}


def test_what_it_was_still_saying_to_another_is_not_taken_for_the_answer(tmp_path: Path) -> None:
    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"return": 7}\n\xff{"return": 8}\n\xffno JSON\n' + b"\xff")
        await saying(b'{"return": 3}\n')(reader, writer)

    assert asked(tmp_path, guest) == 3


def test_what_it_refuses_is_told_in_words_that_can_be_shown(tmp_path: Path) -> None:
    words = '{"error": {"class": "GenericError", "desc": "no \\u001b[31m such \\u0000 user' + "x" * 5000 + '"}}\n'
    with pytest.raises(DriverError, match="AGENT_REFUSED") as refused:
        asked(tmp_path, saying(words.encode()))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "answer",
    [
        b"hello\n",
        b"\x80\x81\n",
        b'{"return": "text"}\n',
        b'{"return": 1e400}\n',
        b'{"error": "text"}\n',
        b"[" * 15_000 + b"\n",
        b'{"other": ' + b"[" * 10_000 + b"\n",
        b'{"other": ' + b'{"a":' * 2_500 + b"1" + b"}" * 2_500 + b"}\n",
    ],
)
def test_nonsense_is_refused(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(DriverError, match="AGENT_NONSENSE"):
        asked(tmp_path, saying(answer))


@pytest.mark.parametrize("piece", [b"x" * 65_536, b"\xff" * 65_536, b'\xff{"return": 1}\n' * 4096, b"\n" * 65_536])
def test_one_that_never_stops_talking_is_cut_off(tmp_path: Path, piece: bytes) -> None:
    read = 0

    async def before_it_is_asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal read
        while True:
            writer.write(piece)
            await writer.drain()
            read += len(piece)

    async def as_its_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await synced(reader, writer)
        await before_it_is_asked(reader, writer)

    for guest in (before_it_is_asked, as_its_answer):
        with pytest.raises(DriverError, match=r"AGENT_NONSENSE|AGENT_NO_ANSWER"):
            asked(tmp_path, guest)
    assert read < 16 << 20, "what it says is not read without end"


@pytest.mark.parametrize("said", [b"", b"\xff", b'\xff{"return": 1'])
def test_one_that_says_nothing_more_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(guest_agent, "ANSWER_SECONDS", 0.3)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await asyncio.Event().wait()

    with pytest.raises(DriverError, match="AGENT_NO_ANSWER"):
        asked(tmp_path, slow)


def test_one_that_says_a_byte_now_and_then_has_no_more_time_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_agent, "ANSWER_SECONDS", 0.5)

    async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await synced(reader, writer)
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    with pytest.raises(DriverError, match="AGENT_NO_ANSWER"):
        asked(tmp_path, trickles)


def test_where_nobody_listens_or_the_channel_ends_it_says_so(tmp_path: Path) -> None:
    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()

    with pytest.raises(DriverError, match="AGENT_NO_ANSWER"):
        asked(tmp_path, hangs_up)
    with pytest.raises(DriverError, match="AGENT_NO_ANSWER"):
        asyncio.run(guest_agent.ask(tmp_path / "nothing.sock", "guest-ping"))


# -- what a host asks

SERVER = "6a6a6a6a-0000-4000-8000-000000000000"


class Host:
    """As much of a host as asking a guest's agent needs."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.asked = set[str]()
        self.runs = True
        self._folder = GuestFolder(Path(), SERVER)
        self._folder.make()
        self._folder.frozen.touch()

    def folder(self, server_id: str) -> GuestFolder:
        return self._folder

    def hypervisor(self, server_id: str) -> object | None:
        return object() if self.runs else None

    def running_hypervisor(self, server_id: str) -> object:
        return object()

    def record(self, server_id: str) -> GuestRecord:
        guest = Guest(server_id=SERVER, name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None, agent=True)
        return GuestRecord(guest=guest, uid=None, role=Role.OWN, intent=Intent.RUNNING)

    def start_lasting_task(self, server_id: str, kind: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self.task = asyncio.create_task(work())


def thawed(
    guests: list[Inside], then: Callable[[Host], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[bool, bool]:
    """Whether it was asked on after the first time, and whether it counts as thawed at the end.

    `guests`: what is at the other end, each time that it is asked.
    """
    monkeypatch.chdir(tmp_path)  # The whole path would be too long for a socket.
    monkeypatch.setattr(guest_agent, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(guest_agent, "_THAW_AGAIN_SECONDS", 0.0)

    async def story() -> tuple[bool, bool]:
        host: Any = Host()
        async with channel(host.folder(SERVER).agent, guests), asyncio.timeout(10):
            await guest_agent.thaw(host, SERVER)
            then(host)
            if host.task is not None:
                await host.task
        return host.task is not None, not host.folder(SERVER).frozen.exists()

    return asyncio.run(story())


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def ends(host: Host) -> None:
    host.runs = False


def goes_on(host: Host) -> None:
    pass


@pytest.mark.parametrize(
    ("guests", "then", "outcome"),
    [
        ([saying(b'{"return": 1}\n')], goes_on, (False, True)),
        ([saying(b'{"error": {"desc": "there is no such command"}}\n')], goes_on, (False, True)),
        ([silent, silent, silent, silent, saying(b'{"return": 1}\n')], goes_on, (True, True)),
        ([silent], ends, (True, False)),
    ],
)
def test_a_guest_is_asked_to_thaw_until_it_answers_or_has_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    guests: list[Inside],
    then: Callable[[Host], None],
    outcome: tuple[bool, bool],
) -> None:
    assert thawed(guests, then, tmp_path, monkeypatch) == outcome


def test_whoever_asks_again_meanwhile_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does anybody else: no lock of the guest's is held while its agent is silent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guest_agent, "ANSWER_SECONDS", 0.3)

    async def story() -> None:
        host: Any = Host()

        async def change() -> None:
            await guest_agent.set_password(host, SERVER, user="root", password="x")

        async with channel(host.folder(SERVER).agent, [silent, saying(b'{"return": {}}\n')]):
            first = asyncio.create_task(change())
            await asyncio.sleep(0)
            with pytest.raises(DriverError, match="AGENT_BUSY"):
                await change()
            with pytest.raises(DriverError, match="AGENT_NO_ANSWER"):
                await first
            await change()

    asyncio.run(story())
