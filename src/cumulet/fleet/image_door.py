"""Where hosts fetch images: HTTPS with a certificate on both sides, one request a connection, only what is the host's.

``GET /images/<sha512>`` answers the content of an image that a guest of the asking host is made from, and 404 for
everything else. The host is known by the certificate it shows, never by what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from cumulet.ca import Issued

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
LONGEST_HEAD_BYTES = 4096
HEAD_SECONDS = 10.0
STALLED_SECONDS = 60.0
"""How long a host may take no byte of what it has asked for."""
PIECE_BYTES = 1 << 20
_REQUEST = re.compile(rb"GET /images/([0-9a-f]{128}) HTTP/1\.[01]\r\n", re.ASCII)

Find = Callable[[str, str], Awaitable[Path | None]]
"""From the host's name and a SHA-512 to the file, or None."""


class ImageDoor:
    """Listens on a unix socket for the hosts of this machine."""

    def __init__(self, find: Find, certificate: Issued) -> None:
        self._find = find
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate.authority))
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        self._places = asyncio.Semaphore(MOST_CONNECTIONS)
        self._server: asyncio.Server | None = None

    async def listen(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, str(path), ssl=self._context, ssl_handshake_timeout=HEAD_SECONDS, limit=LONGEST_HEAD_BYTES
        )
        path.chmod(0o600)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._places:
                await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as problem:
            log.info("an image was not sent whole: %r", problem)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        asked = _REQUEST.match(head)
        host = _name_in(writer)
        path = await self._find(host, asked[1].decode()) if asked is not None and host is not None else None
        if path is None:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        with await asyncio.to_thread(open, path, "rb", 0) as file:
            size = os.fstat(file.fileno()).st_size
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                writer.write(piece)
                async with asyncio.timeout(STALLED_SECONDS):
                    await writer.drain()


def _name_in(writer: asyncio.StreamWriter) -> str | None:
    """The one common name of the peer's certificate, which the cloud's own authority has signed."""
    certificate = writer.get_extra_info("peercert") or {}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else None
