"""The guests' own voice, from outside: what each QEMU's serial console says, read beside agents and control plane.

A tick is `tick N <server id>`, ten a second, counted in the guest's memory: N goes on after a move, and begins anew
only with a boot. Two copies of one guest would both print the numbers that follow the one at which they parted.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.05
_LINE = re.compile(rb"(?:(tick) (\d+) (\S+)|(seq) (\d+)|(cumulet-tiny: kernel) .*)\r?$")


@dataclass(slots=True)
class Voice:
    """What one QEMU process has printed since it was first heard; a boot begins a new life."""

    host: str
    process: int
    lives: list[list[int]] = field(default_factory=lambda: [[]])
    written: list[list[int]] = field(default_factory=lambda: [[]])
    strange: list[str] = field(default_factory=list)
    other: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    """Its newest lines that are none of these: of a guest that has booted, perhaps why."""
    _rest: bytes = b""

    @property
    def booted(self) -> bool:
        return len(self.lives) > 1

    def hear(self, data: bytes, server_id: str) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            match = _LINE.search(line)
            if match is None or match[6]:
                self.other.append(line.decode(errors="replace").rstrip())
            if match is None:
                continue
            if match[6]:
                self.lives.append([])
                self.written.append([])
            elif match[4]:
                self.written[-1].append(int(match[5]))
            elif match[3].decode() != server_id:
                self.strange.append(line.decode(errors="replace"))
            else:
                self.lives[-1].append(int(match[2]))


class SerialWatch:
    """Listens to one server on all hosts, in a thread of its own, through the second monitor of each QEMU."""

    def __init__(self, server_id: str, folders: dict[str, Path]) -> None:
        self.server_id = server_id
        self._folders = folders
        self.voices: list[Voice] = []
        self.stands_still = {host: threading.Event() for host in folders}
        """Set while the guest's process on a host says that it has stopped it, as in the switchover."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    def __enter__(self) -> SerialWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _listen(self) -> None:
        tasks = [asyncio.create_task(self._listen_to(host, folder)) for host, folder in self._folders.items()]
        await asyncio.to_thread(self._stop.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen_to(self, host: str, folder: Path) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError, EOFError, KeyError):
                await self._listen_to_process(host, folder)
            await asyncio.sleep(LOOK_SECONDS)

    async def _listen_to_process(self, host: str, folder: Path) -> None:
        place = os.open(folder, os.O_PATH | os.O_DIRECTORY)  # The path as a whole may be too long for a socket's name.
        try:
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{place}/monitor2.sock", limit=8 << 20)
        finally:
            os.close(place)
        monitor = Monitor(reader, writer, self.stands_still[host])
        try:
            await monitor.ask("qmp_capabilities")
            # Only now: the socket is there before the process, and the number of an earlier process until then.
            process = int(json.loads((folder / "process.json").read_bytes())["pid"])
            voice = next((one for one in self.voices if (one.host, one.process) == (host, process)), None)
            if voice is None:
                voice = Voice(host, process)
                self.voices.append(voice)
            while True:
                said = await monitor.ask("ringbuf-read", device="console0", size=1 << 20, format="base64")
                voice.hear(base64.b64decode(said), self.server_id)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            monitor.close()

    # -- the judgement

    def double(self) -> list[str]:
        """Signs that two copies ran: a number that was printed in two places, or one that came after it was left."""
        found = [f"{voice.host} printed of another server: {line}" for voice in self.voices for line in voice.strange]
        for n, first in enumerate(self.voices):
            for second in self.voices[n + 1 :]:
                if second.booted and not second.lives[0]:
                    continue  # It began anew, from its disk: its numbers are of another life.
                before, after = first.lives[-1], second.lives[0]
                if both := sorted(set(before) & set(after)):
                    found.append(f"ticks {both[:5]} were printed on {first.host} and on {second.host}")
                elif before and after and max(before) > min(after) and min(before) < max(after):
                    found.append(f"{first.host} and {second.host} took turns: {before[-3:]}, {after[:3]}")
        for voice in self.voices:
            for life in voice.lives:
                if life != sorted(set(life)):
                    found.append(f"{voice.host} counted backwards: {life}")
        return found

    def heard_from(self, process: int) -> bool:
        """Whether this process has printed a tick: whether it has booted is known then, too."""
        return any(voice.process == process and any(voice.lives) for voice in self.voices)

    def newest_written(self) -> list[int]:
        """The newest records the guest said were on its disk, in the life that has printed last."""
        said = [records for voice in self.voices for records in voice.written if records]
        return sorted(said[-1])[-100:] if said else []

    def heard(self) -> str:
        return "; ".join(
            f"{voice.host}[{voice.process}] "
            + " | ".join(f"ticks {life[0]}-{life[-1]} ({len(life)})" if life else "silent" for life in voice.lives)
            for voice in self.voices
        )


class Monitor:
    """A QMP connection that also hears, the moment it happens, that the guest was stopped or runs again."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stands_still: threading.Event
    ) -> None:
        self._writer = writer
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(reader, stands_still))

    async def ask(self, command: str, **arguments: Any) -> Any:
        self._writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        await self._writer.drain()
        answer = await self._answers.get()
        if answer is None:
            raise EOFError(command)
        return answer["return"]

    async def _read(self, reader: asyncio.StreamReader, stands_still: threading.Event) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                message = json.loads(line)
                if message.get("event") == "STOP":
                    stands_still.set()
                elif message.get("event") == "RESUME":
                    stands_still.clear()
                elif "return" in message or "error" in message:
                    self._answers.put_nowait(message)
        self._answers.put_nowait(None)

    def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
