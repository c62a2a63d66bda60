"""A host's way to the images of its guests: fetched from the control plane with the host's certificate."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from cumulet.host.driver import DriverError, Image

CONNECT_SECONDS = 10.0
STALLED_SECONDS = 60.0
PIECE_BYTES = 1 << 20


class ImagesOfControlPlane:
    """`host.images.ImageSource`. `tls`: the host's folder of `CertificateAuthority.issue_host`."""

    def __init__(self, socket: Path, tls: Path) -> None:
        self._socket = socket
        self._tls = tls

    async def stream(self, image: Image) -> AsyncIterator[bytes]:
        import httpx  # 100 ms that an agent need not spend at its start

        context = ssl.create_default_context(cafile=str(self._tls / "ca-cert.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._tls / "client-cert.pem", self._tls / "client-key.pem")
        transport = httpx.AsyncHTTPTransport(verify=context, uds=str(self._socket))
        limits = httpx.Timeout(STALLED_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with (
                httpx.AsyncClient(transport=transport, timeout=limits, trust_env=False) as client,
                client.stream("GET", f"https://localhost/images/{image.sha512}") as answer,
            ):
                if answer.status_code != 200:
                    raise DriverError(f"IMAGE_UNREADABLE: image {image.id} is not to be had: {answer.status_code}")
                async for piece in answer.aiter_raw(PIECE_BYTES):
                    yield piece
        except httpx.HTTPError as problem:
            raise DriverError(f"IMAGE_UNREADABLE: image {image.id} did not arrive: {problem!r}") from problem
