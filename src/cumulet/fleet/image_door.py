"""Where hosts fetch and bring images: HTTPS with certificates on both sides. A host gets only its own images.

``GET /images/<sha512>`` answers the content of an image that a guest of the asking host is made from. ``PUT
/images/<id>`` takes the content of an image that a snapshot of one of its guests waits for: 201 once it is stored.
Everything else is 404. The certificate names the host; nothing in a request does. A connection has one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from cumulet.ca import Issued
from cumulet.errors import ApiError
from cumulet.fleet.places import Busy, Places
from cumulet.host.images import MOST_OF_ONE, WAIT_SECONDS, Find, Receive

log = logging.getLogger(__name__)

MOST_TRANSFERS = 64
"""Transfers at once, of all hosts together and, of one, `MOST_OF_ONE`; others wait."""
MOST_WAITING_OF_ONE = 64
"""Transfers of one host that wait; more are refused with 503, as is one that waits for longer than `WAIT_SECONDS`."""
SAY_SECONDS = 20.0
"""How often a host that waits is told that it does: an agent gives up who says nothing for a minute."""
LONGEST_HEAD_BYTES = 4096
HEAD_SECONDS = 10.0
STALLED_SECONDS = 60.0
"""How many seconds a host may leave the answer unread, or send nothing."""
LEAST_BYTES_A_SECOND = 256 * 1024
"""A transfer is waited for, in all, `STALLED_SECONDS` and as long as its bytes take at this rate. What this side takes
itself, for its disk, does not count."""
PIECE_BYTES = 1 << 20
_REQUEST = re.compile(rb"GET /images/([0-9a-f]{128}) HTTP/1\.[01]\r\n", re.ASCII)
_BROUGHT = re.compile(rb"PUT /images/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) HTTP/1\.[01]\r\n", re.ASCII)
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,18})\r\n", re.ASCII | re.IGNORECASE)


class ImageDoor:
    """Listens on a unix socket for the hosts of this machine."""

    def __init__(self, find: Find, receive: Receive, certificate: Issued) -> None:
        self._find = find
        self._receive = receive
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate.authority))
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        self.show(certificate)
        self._places = Places(
            most=MOST_TRANSFERS,
            most_of_one=MOST_OF_ONE,
            most_waiting_of_one=MOST_WAITING_OF_ONE,
            wait_seconds=WAIT_SECONDS,
        )
        self._server: asyncio.Server | None = None

    def show(self, certificate: Issued) -> None:
        """To hosts that connect from now on. OSError: it cannot be read."""
        self._context.load_cert_chain(certificate.certificate, certificate.key)

    async def listen(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, str(path), ssl=self._context, ssl_handshake_timeout=HEAD_SECONDS, limit=PIECE_BYTES
        )
        path.chmod(0o600)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as problem:
            log.info("an image did not travel whole: %r", problem)
            writer.transport.abort()  # Its end is not waited for by who does not read.
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        if len(head) <= LONGEST_HEAD_BYTES and await self._other(head, reader, writer):
            return
        host = await self._host(writer)
        asked, brought, length = _REQUEST.match(head), _BROUGHT.match(head), CONTENT_LENGTH.search(head)
        if host is None or len(head) > LONGEST_HEAD_BYTES or (asked is None and (brought is None or length is None)):
            await say(writer, b"404 Not Found")
            return
        try:
            async with self._places.place(host, say_seconds=SAY_SECONDS, say=lambda: _say_that_it_waits(writer)):
                if asked is not None:
                    await self._send(host, asked[1].decode(), writer)
                elif brought is not None and length is not None:
                    await self._take(host, brought[1].decode(), int(length[1]), reader, writer)
        except Busy as busy:
            log.warning("an image does not travel: %s", busy)
            await say(writer, b"503 Service Unavailable", b"too many images travel at once: try again later")

    async def _host(self, writer: asyncio.StreamWriter) -> str | None:
        """The host that asks: the one common name in its certificate, which the cloud's own authority signed."""
        certificate = writer.get_extra_info("peercert") or {}
        names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        return names[0] if len(names) == 1 else None

    async def _other(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request that is not about images. False: it is about images, and was not answered."""
        return False

    async def _send(self, host: str, sha512: str, writer: asyncio.StreamWriter) -> None:
        path = await self._find(host, sha512)
        if path is None:
            await say(writer, b"404 Not Found")
            return
        with await asyncio.to_thread(open, path, "rb", 0) as file:
            size = os.fstat(file.fileno()).st_size
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
            patience = _Patience(size)
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                writer.write(piece)
                async with patience.wait():
                    await writer.drain()

    async def _take(
        self, host: str, image_id: str, size: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._receive(host, image_id, size, _pieces(reader, size))
        except ApiError as refused:
            log.info("%s: image %s was not taken: %r", host, image_id, refused)
            await say(writer, b"%d Refused" % refused.status, str(refused).encode())
        else:
            await say(writer, b"201 Created")


class _Patience:
    """How long a host is waited for in a transfer: in all, and each time. TimeoutError."""

    def __init__(self, size: int) -> None:
        self._left = STALLED_SECONDS + size / LEAST_BYTES_A_SECOND

    @contextlib.asynccontextmanager
    async def wait(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        before = loop.time()
        async with asyncio.timeout(min(STALLED_SECONDS, self._left)):
            yield
        self._left -= loop.time() - before


async def _pieces(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    """Exactly `size` bytes."""
    patience = _Patience(size)
    while size > 0:
        async with patience.wait():
            piece = await reader.read(min(PIECE_BYTES, size))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(piece)
        yield piece


async def _say_that_it_waits(writer: asyncio.StreamWriter) -> None:
    """Then its client goes on waiting; one that has left loses its turn."""
    writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
    async with asyncio.timeout(STALLED_SECONDS):
        await writer.drain()


async def say(writer: asyncio.StreamWriter, status: bytes, words: bytes = b"") -> None:
    head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(words))
    writer.write(head + words)
    await writer.drain()
