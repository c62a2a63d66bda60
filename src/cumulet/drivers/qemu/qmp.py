"""A small QMP client: one connection to one QEMU's monitor, commands with time limits, out-of-band commands, events.

What arrives is influenced by a guest, so lines, nesting and the number of waiting events are bounded.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Arguments: TypeAlias = "dict[str, Json]"
EventHandler: TypeAlias = Callable[[str, "dict[str, Json]"], None]

_MOST_LATE = 3
"""QEMU stops reading at eight waiting commands, and then hears no out-of-band one either: never let them pile up."""

MAX_LINE_BYTES = 8 << 20
"""The longest answer we ask for is a ring buffer of 1 MiB in base64."""


class QmpError(Exception):
    """QEMU refused a command; `kind` is its error class, e.g. ``GenericError``."""

    def __init__(self, command: str, kind: str, description: str) -> None:
        super().__init__(f"{command}: {description}")
        self.kind = kind
        self.description = description


class QmpTimeout(Exception):
    """QEMU did not answer in time: it hangs, is stopped, or its main loop is blocked."""


class QmpClosed(Exception):
    """The connection has ended: the process is gone, or it did not speak QMP."""


class Qmp:
    """One connection. Make it with `Qmp.connect`; it is unusable once `closed` is set."""

    def __init__(self, sock: socket.socket, on_event: EventHandler) -> None:
        self._socket = sock
        self._on_event = on_event
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._names: dict[int, str] = {}
        self._late: set[int] = set()
        self._ids = itertools.count(1)
        self._send_lock = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._greeting: asyncio.Future[dict[str, Json]] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self.oob = False

    @classmethod
    async def connect(
        cls, path: Path, *, on_event: EventHandler = lambda _name, _data: None, timeout_s: float = 10.0
    ) -> Qmp:
        """Connect and negotiate. Raises `QmpTimeout` where nobody greets in time, `QmpClosed` where nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        self = cls(sock, on_event)
        try:
            async with asyncio.timeout(timeout_s):
                await self._open(path)
        except TimeoutError as late:
            await self.close()
            raise QmpTimeout("no greeting from QEMU in time") from late
        except OSError as refused:
            await self.close()
            raise QmpClosed(f"no QEMU listens: {refused.strerror}") from refused
        except BaseException:
            await self.close()
            raise
        return self

    async def _open(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # A socket's path is limited to 108 bytes, a folder's is not.
            await loop.sock_connect(self._socket, f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        self._reader = asyncio.create_task(self._read(), name="qmp-reader")
        greeting = await self._greeting
        qmp = greeting.get("QMP")
        capabilities = qmp.get("capabilities") if isinstance(qmp, dict) else None
        self.oob = isinstance(capabilities, list) and "oob" in capabilities
        await self.execute("qmp_capabilities", {"enable": ["oob"]} if self.oob else {})

    @property
    def behind(self) -> bool:
        """Whether QEMU owes an answer that nobody waits for any more."""
        return bool(self._late)

    async def execute(
        self,
        command: str,
        arguments: Arguments | None = None,
        *,
        timeout_s: float = 10.0,
        oob: bool = False,
        pass_fd: int | None = None,
    ) -> Json:
        """Run a command. Raises `QmpError`, `QmpTimeout` (it may still be done later) or `QmpClosed`."""
        if self.closed.is_set():
            raise QmpClosed(f"{command}: connection is closed")
        if not oob and len(self._late) >= _MOST_LATE:
            raise QmpTimeout(f"{command}: not sent, QEMU has not answered {len(self._late)} commands yet")
        number = next(self._ids)
        message = {"exec-oob" if oob else "execute": command, "arguments": arguments or {}, "id": number}
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._names[number] = command
        sent = False
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(json.dumps(message).encode() + b"\n", pass_fd)
                sent = True
                return await answer
        except TimeoutError as late:
            if not oob and not _answered(answer):
                self._late.add(number)
            raise QmpTimeout(f"{command}: no answer within {timeout_s:g} s") from late
        except asyncio.CancelledError:
            if sent and not oob and not _answered(answer):
                self._late.add(number)
            raise
        except OSError as broken:
            raise QmpClosed(f"{command}: {broken.strerror}") from broken
        finally:
            self._waiting.pop(number, None)
            self._names.pop(number, None)

    async def _send(self, data: bytes, pass_fd: int | None) -> None:
        loop = asyncio.get_running_loop()
        async with self._send_lock:
            if pass_fd is not None:
                sent = self._socket.sendmsg(
                    [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pass_fd]).tobytes())]
                )
                data = data[sent:]
            await loop.sock_sendall(self._socket, data)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        buffer = bytearray()
        why = "QEMU closed the connection"
        try:
            while True:
                chunk = await loop.sock_recv(self._socket, 65_536)
                if not chunk:
                    break
                buffer += chunk
                if b"\n" in chunk:
                    *lines, rest = buffer.split(b"\n")
                    buffer = bytearray(rest)
                    for line in lines:
                        self._take(line)
                if len(buffer) > MAX_LINE_BYTES:
                    why = "an answer was too long"
                    break
        except OSError as broken:
            why = f"connection broke: {broken.strerror}"
        except (ValueError, RecursionError):
            why = "what arrived was not QMP"
        finally:
            self._end(why)

    def _take(self, line: bytes | bytearray) -> None:
        if not line.strip():
            return
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("a QMP message is an object")
        if "QMP" in message:
            if not self._greeting.done():
                self._greeting.set_result(message)
        elif "event" in message:
            data = message.get("data")
            self._on_event(str(message["event"]), data if isinstance(data, dict) else {})
        else:
            self._answer(message)

    def _answer(self, message: dict[str, Json]) -> None:
        number = message.get("id")
        if isinstance(number, int):
            self._late.discard(number)
        answer = self._waiting.get(number) if isinstance(number, int) else None
        if answer is None or answer.done():
            return
        error = message.get("error")
        if isinstance(error, dict):
            name = self._names.get(number, "?") if isinstance(number, int) else "?"
            answer.set_exception(QmpError(name, str(error.get("class")), str(error.get("desc"))[:1000]))
        else:
            answer.set_result(message.get("return"))

    def _end(self, why: str) -> None:
        self.closed.set()
        waiting: list[asyncio.Future[Any]] = [self._greeting, *self._waiting.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(QmpClosed(why))
                future.exception()  # Nobody may be waiting for the greeting any more.
        self._socket.close()
        self._on_event("CONNECTION_CLOSED", {})

    async def close(self) -> None:
        """End the connection; the guest does not notice."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if not self.closed.is_set():
            self._end("closed")


def _answered(answer: asyncio.Future[Json]) -> bool:
    """It came at the very moment at which its asker gave up."""
    return answer.done() and not answer.cancelled()
