"""A host agent in its own process on the same machine: JSON messages over a unix socket in a 0700 directory.

A frame is a 4-byte big-endian length and that many bytes of JSON, at most `FRAME_LIMIT`. Requests carry a number,
answers repeat it, so many can be under way at once. A lost connection fails what was under way; the next send makes a
new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TypeVar

from cumulet.host import codec
from cumulet.host import messages as m
from cumulet.host.codec import Answer, NotUnderstood, Request
from cumulet.host.link import Answers

log = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT")

FRAME_LIMIT = 4 * 1024 * 1024


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > FRAME_LIMIT:
        raise ConnectionError("frame too long")
    return await reader.readexactly(length)


def write_frame(writer: asyncio.StreamWriter, payload: bytes) -> None:
    writer.write(len(payload).to_bytes(4, "big") + payload)


class UnixSocketLink:
    """A `host.link.Link` that connects to an agent's socket when it has something to say."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def send(self, message: m.Message[AnswerT]) -> AnswerT:
        writer = await self._connected()
        self._number += 1
        number = self._number
        frame = codec.encode(Request(number, message))
        if len(frame) > FRAME_LIMIT:
            raise m.MessageTooLong(FRAME_LIMIT)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            write_frame(writer, frame)
            await writer.drain()
            answer = await future
        except OSError as error:
            raise m.HostUnreachable(f"connection to agent lost: {error}") from error
        finally:
            self._waiting.pop(number, None)
        return codec.value_of(answer, message)

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None or self._writer.is_closing():
                try:
                    reader, self._writer = await asyncio.open_unix_connection(str(self._path), limit=FRAME_LIMIT)
                except OSError as error:
                    raise m.HostUnreachable(f"agent does not listen: {error}") from error
                self._reading = asyncio.create_task(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                answer = codec.decode_answer(await read_frame(reader))
                future = self._waiting.get(answer.number)
                if future is not None and not future.done():
                    future.set_result(answer)
        except (OSError, asyncio.IncompleteReadError, NotUnderstood) as error:
            writer.close()
            if self._writer is writer:
                self._writer = None
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(m.HostUnreachable(f"connection to agent lost: {error!r}"))

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()


async def serve_agent(agent: Answers, path: Path) -> asyncio.Server:
    """Listen on `path` (its directory is 0700) and answer with `agent`."""
    path.unlink(missing_ok=True)

    async def answer(writer: asyncio.StreamWriter, request: Request) -> None:
        reply = codec.encode_answer(await codec.answer(agent, request), most=FRAME_LIMIT)
        if not writer.is_closing():
            write_frame(writer, reply)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        work: set[asyncio.Task[None]] = set()
        try:
            while True:
                request = codec.decode_request(await read_frame(reader))
                task = asyncio.create_task(answer(writer, request))
                work.add(task)
                task.add_done_callback(work.discard)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The control plane or this agent ends. What was asked for is finished; the control plane asks again.
        except NotUnderstood as error:
            log.warning("a request was not understood: %s", error)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, str(path), limit=FRAME_LIMIT)
    path.chmod(0o600)
    return server
