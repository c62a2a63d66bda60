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
from cumulet.host.images import Find, Receive

log = logging.getLogger(__name__)

MOST_TRANSFERS = 64
"""Transfers at once, of all hosts together; others wait."""
LONGEST_HEAD_BYTES = 4096
HEAD_SECONDS = 10.0
STALLED_SECONDS = 60.0
"""How many seconds a host may leave the answer unread."""
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
        self._places = asyncio.Semaphore(MOST_TRANSFERS)
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
        if host is None or len(head) > LONGEST_HEAD_BYTES:
            await say(writer, b"404 Not Found")
        elif (asked := _REQUEST.match(head)) is not None:
            async with self._places:
                await self._send(host, asked[1].decode(), writer)
        elif (brought := _BROUGHT.match(head)) is not None and (length := CONTENT_LENGTH.search(head)) is not None:
            async with self._places:
                await self._take(host, brought[1].decode(), int(length[1]), reader, writer)
        else:
            await say(writer, b"404 Not Found")

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
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                writer.write(piece)
                async with asyncio.timeout(STALLED_SECONDS):
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


async def _pieces(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    """Exactly `size` bytes."""
    while size > 0:
        async with asyncio.timeout(STALLED_SECONDS):
            piece = await reader.read(min(PIECE_BYTES, size))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(piece)
        yield piece


async def say(writer: asyncio.StreamWriter, status: bytes, words: bytes = b"") -> None:
    head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(words))
    writer.write(head + words)
    await writer.drain()
