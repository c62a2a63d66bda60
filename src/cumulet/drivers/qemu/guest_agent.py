"""What is asked of QEMU's guest agent, a program in the guest, over a virtio-serial channel. It is not trusted.

The channel is a unix socket in the agent's own folder: QEMU takes one connection at a time and passes bytes on. Whoever
is in the guest may say anything there, at any speed, or nothing. So each question has one time limit and one limit of
bytes, for all that comes until its answer is whole; an answer is one line of JSON of a few fields, and its words go no
further than an error's text, shortened and without control characters. Reference: QEMU's `qga/qapi-schema.json`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import secrets
from pathlib import Path

import msgspec

from cumulet.drivers.qemu.host import QemuHost, refuse_while_moving
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.host.driver import DriverError

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""For one question: to connect, to find the agent at the other end, and to have its answer."""
MOST_BYTES = 16 << 10
"""All that is read for one question. Answers to what is asked here have less than a hundred."""
THAW = "thaw"
"""The task that asks a guest to write again."""
_THAW_AGAIN_SECONDS = 5.0
_WORDS = 200


class _Error(msgspec.Struct, frozen=True):
    desc: str = ""


class _Answer(msgspec.Struct, frozen=True):
    """`return` of what is asked here is a number, or an empty object."""

    returned: int | dict[str, int] | None = msgspec.field(name="return", default=None)
    error: _Error | None = None


_decoder = msgspec.json.Decoder(_Answer)
_Arguments = dict[str, str | int | bool]


async def ask(path: Path, command: str, arguments: _Arguments | None = None) -> int | dict[str, int] | None:
    """One question. DriverError: NO_ANSWER in time, NONSENSE instead of one, or REFUSED in the agent's words."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await _connected(path)
            channel = _Channel(reader)
            number = secrets.randbits(31)
            # What was begun before is given up by the first byte; what was answered before by this number.
            writer.write(b"\xff" + _line("guest-sync-delimited", {"id": number}))
            await writer.drain()
            while await channel.answer_after_mark() != _Answer(returned=number):
                pass
            writer.write(_line(command, arguments or {}))
            await writer.drain()
            answer = await channel.answer()
    except TimeoutError as late:
        raise DriverError(f"AGENT_NO_ANSWER: no guest agent has answered {command} in time") from late
    except OSError as gone:
        raise DriverError(f"AGENT_NO_ANSWER: {command}: {gone.strerror or 'the channel is closed'}") from gone
    finally:
        if writer is not None:
            writer.close()
    if answer.error is not None:
        raise DriverError(f"AGENT_REFUSED: {command}: {_readable(answer.error.desc)}")
    return answer.returned


class _Channel:
    """What comes from the guest, of which no more is read than is allowed for one question."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._held = b""
        self._read = 0

    async def answer_after_mark(self) -> _Answer | None:
        """The next line, behind a byte that JSON never has; None for one that is no answer, or without it."""
        _, mark, told = (await self._line()).rpartition(b"\xff")
        return _decoded(told) if mark else None

    async def answer(self) -> _Answer:
        answer = _decoded(await self._line())
        if answer is None:
            raise DriverError("AGENT_NONSENSE: the guest agent has answered what is no answer")
        return answer

    async def _line(self) -> bytes:
        while b"\n" not in self._held:
            if self._read >= MOST_BYTES:
                raise DriverError(f"AGENT_NONSENSE: the guest agent says more than {MOST_BYTES} bytes")
            more = await self._reader.read(MOST_BYTES - self._read)
            if not more:
                raise DriverError("AGENT_NO_ANSWER: the channel was closed")
            self._read += len(more)
            self._held += more
        line, _, self._held = self._held.partition(b"\n")
        return line


def _decoded(line: bytes) -> _Answer | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


async def _connected(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """By a descriptor of its folder, for a socket's path may be no longer than 107 characters."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}", limit=MOST_BYTES)
    finally:
        os.close(folder)


def _line(command: str, arguments: _Arguments) -> bytes:
    return msgspec.json.encode({"execute": command, "arguments": arguments}) + b"\n"


def _readable(words: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in words[:_WORDS]) or "without a reason"


# -- what is asked


async def set_password(host: QemuHost, server_id: str, *, user: str, password: str) -> None:
    """One question at a time, and none that waits for another, or that a command waits for: users ask as often as they
    like, and the guest may be theirs, too."""
    folder = _channel_of(host, server_id)
    if server_id in host.asked:
        raise DriverError("AGENT_BUSY: its agent is asked already")
    encoded = base64.b64encode(password.encode()).decode()
    host.asked.add(server_id)
    try:
        await ask(folder.agent, "guest-set-user-password", {"username": user, "password": encoded, "crypted": False})
    finally:
        host.asked.discard(server_id)


def _channel_of(host: QemuHost, server_id: str) -> GuestFolder:
    record = host.record(server_id)
    refuse_while_moving(record)
    host.running_hypervisor(server_id)
    if not record.guest.agent:
        raise DriverError("NO_AGENT: its image does not say that there is a guest agent")
    return host.folder(server_id)


async def freeze(host: QemuHost, server_id: str) -> None:
    """The guest writes down what it holds and writes no more, until `thaw`. Noted first: whoever comes after a crash
    of this agent thaws it (`adoption`)."""
    folder = _channel_of(host, server_id)
    await host.stop_task(server_id, THAW)
    folder.frozen.touch()
    try:
        await ask(folder.agent, "guest-fsfreeze-freeze")
    except BaseException:
        await thaw(host, server_id)  # It may have been done all the same, or be done late.
        raise


async def thaw(host: QemuHost, server_id: str) -> None:
    """Let it write again. Where its agent does not answer, it is asked on beside all else."""
    if not await _thawed(host, server_id):
        log.warning(
            "a guest was frozen for an image, and its agent does not thaw it yet", extra={"server_id": server_id}
        )
        host.start_task(server_id, THAW, until_thawed(host, server_id))


async def until_thawed(host: QemuHost, server_id: str) -> None:
    """Ask for as long as it has a process: a guest that stays frozen is as good as lost."""
    while host.hypervisor(server_id) is not None:
        if await _thawed(host, server_id):
            return
        await asyncio.sleep(_THAW_AGAIN_SECONDS)


async def _thawed(host: QemuHost, server_id: str) -> bool:
    """Whether its agent has answered. One that refuses has nothing frozen, or nothing that it could thaw."""
    folder = host.folder(server_id)
    try:
        await ask(folder.agent, "guest-fsfreeze-thaw")
    except DriverError as problem:
        if not str(problem).startswith("AGENT_REFUSED"):
            return False
    folder.frozen.unlink(missing_ok=True)
    return True
