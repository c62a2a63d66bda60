"""Questions to QEMU's guest agent, a program in the guest, over a virtio-serial channel. It is not trusted.

The channel is a unix socket in the host agent's own folder. QEMU takes one connection at a time and passes bytes on.
The guest may write anything there, at any speed, or nothing. So each question has one time limit and one limit of
bytes, for all that is read until its answer is whole. An answer is one line of JSON with a few fields. Its words go
only into an error's text, shortened and without control characters. Reference: QEMU's `qga/qapi-schema.json`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import secrets
from functools import partial
from pathlib import Path

import msgspec

from cumulet.drivers.qemu.host import QemuHost, refuse_while_moving
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.host.driver import DriverError
from cumulet.host.record import NOT_UNDERSTOOD

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""For one question: to connect, to find the agent at the other end, and to read its answer."""
MOST_BYTES = 16 << 10
"""The most that is read for one question. The answers that we expect have less than a hundred bytes."""
THAW = "thaw"
"""The name of the task that asks a guest to write again."""
_THAW_AGAIN_SECONDS = 5.0
_WORDS = 200


class _Error(msgspec.Struct, frozen=True):
    desc: str = ""


class _Answer(msgspec.Struct, frozen=True):
    """`returned` is a number or an empty object for the questions below."""

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
            # The first byte ends a half question of before. The number tells our answer from older ones.
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
    """Reads what the guest writes, and no more than `MOST_BYTES`."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._held = b""
        self._read = 0

    async def answer_after_mark(self) -> _Answer | None:
        """The next line, after its byte 0xff, which JSON never has; None if it has none, or is no answer."""
        _, mark, told = (await self._line()).rpartition(b"\xff")
        return _decoded(told) if mark else None

    async def answer(self) -> _Answer:
        answer = _decoded(await self._line())
        if answer is None:
            raise DriverError("AGENT_NONSENSE: the guest agent's answer was not understood")
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
    except NOT_UNDERSTOOD:
        return None


async def _connected(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect by way of its folder's descriptor: a socket's path may have at most 107 characters."""
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
    """AGENT_BUSY while another question is open. It takes no lock, so no command waits for it.

    Users may ask as often as they like, and the guest that does not answer may be theirs.
    """
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
    """Let the guest write its caches to disk and then write nothing until `thaw`.

    It is noted first: after a crash of this host's agent the next one thaws the guest (`adoption`).
    """
    folder = _channel_of(host, server_id)
    await host.stop_task(server_id, THAW)
    folder.frozen.touch()
    try:
        await ask(folder.agent, "guest-fsfreeze-freeze")
    except BaseException:
        await thaw(host, server_id)  # It may be frozen all the same, or freeze late.
        raise


async def thaw(host: QemuHost, server_id: str) -> None:
    """Let it write again. If its agent does not answer, a task goes on asking."""
    if not await _thawed(host, server_id):
        log.warning(
            "a guest was frozen for an image, and its agent does not thaw it yet", extra={"server_id": server_id}
        )
        thaw_later(host, server_id)


def thaw_later(host: QemuHost, server_id: str) -> None:
    host.start_lasting_task(server_id, THAW, partial(until_thawed, host, server_id))


async def until_thawed(host: QemuHost, server_id: str) -> None:
    """Ask until it is thawed or its process has ended: a guest that stays frozen is as good as lost."""
    while host.hypervisor(server_id) is not None:
        if await _thawed(host, server_id):
            return
        await asyncio.sleep(_THAW_AGAIN_SECONDS)


async def _thawed(host: QemuHost, server_id: str) -> bool:
    """Whether its agent has answered. One that refuses has nothing frozen, or cannot thaw."""
    folder = host.folder(server_id)
    try:
        await ask(folder.agent, "guest-fsfreeze-thaw")
    except DriverError as problem:
        if not str(problem).startswith("AGENT_REFUSED"):
            return False
    folder.frozen.unlink(missing_ok=True)
    return True
