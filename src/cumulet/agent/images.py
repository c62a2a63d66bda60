"""A host's client of the Image service: it fetches images and sends guests' disks, with the host's certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from cumulet.host.driver import DriverError, Image
from cumulet.host.images import MOST_OF_ONE, WAIT_SECONDS
from cumulet.host.joining import DOOR_NAME

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
STALLED_SECONDS = 60.0
PIECE_BYTES = 1 << 20


class ImagesOfControlPlane:
    """`host.images.ImageSource` and `ImageSink`. `tls`: the host's folder of `CertificateAuthority.issue_host`."""

    def __init__(self, way: Path | str, tls: Path) -> None:
        """`way`: a unix socket of the control plane on this machine, or the URL of its door."""
        self._socket = way if isinstance(way, Path) else None
        self._url = "https://localhost" if isinstance(way, Path) else way
        self._extensions = {} if isinstance(way, Path) else {"sni_hostname": DOOR_NAME}
        self._tls = tls
        self._places = asyncio.Semaphore(MOST_OF_ONE)  # Those that wait here keep no connection for it.

    async def stream(self, image: Image) -> AsyncGenerator[bytes, None]:
        import httpx

        try:
            async with (
                self._places,
                self._client(STALLED_SECONDS) as client,
                client.stream("GET", f"{self._url}/images/{image.sha512}", extensions=self._extensions) as answer,
            ):
                if answer.status_code != 200:
                    raise DriverError(f"IMAGE_UNREADABLE: image {image.id} is not to be had: {answer.status_code}")
                async for piece in answer.aiter_raw(PIECE_BYTES):
                    yield piece
        except httpx.HTTPError as problem:
            raise DriverError(f"IMAGE_UNREADABLE: image {image.id} did not arrive: {problem!r}") from problem

    async def send(self, image_id: str, size_bytes: int, pieces: AsyncIterator[bytes]) -> None:
        import httpx

        try:
            async with self._places, self._client(WAIT_SECONDS + STALLED_SECONDS) as client:
                headers = {"Content-Length": str(size_bytes)}
                answer = await client.put(
                    f"{self._url}/images/{image_id}", content=pieces, headers=headers, extensions=self._extensions
                )
        except httpx.HTTPError as problem:
            raise DriverError(f"IMAGE_NOT_TAKEN: image {image_id} was not taken: {problem!r}") from problem
        if answer.status_code != 201:
            raise DriverError(f"IMAGE_NOT_TAKEN: image {image_id} was refused: {answer.status_code} {answer.text}")

    def _client(self, write_seconds: float) -> httpx.AsyncClient:
        """`write_seconds`: for a piece. One that waits for its turn is not read, and cannot be told that it waits."""
        import httpx  # Imported here: it takes 100 ms, which an agent need not spend at its start.

        context = ssl.create_default_context(cafile=str(self._tls / "ca-cert.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._tls / "client-cert.pem", self._tls / "client-key.pem")
        transport = httpx.AsyncHTTPTransport(verify=context, uds=None if self._socket is None else str(self._socket))
        limits = httpx.Timeout(STALLED_SECONDS, connect=CONNECT_SECONDS, write=write_seconds)
        return httpx.AsyncClient(transport=transport, timeout=limits, trust_env=False)
