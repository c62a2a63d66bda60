"""How content travels between a host and the Image service: images to a host by checksum, its guests' disks back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from cumulet.host.driver import Image


class ImageSource(Protocol):
    """Where a host fetches images."""

    def stream(self, image: Image) -> AsyncIterator[bytes]:
        """The content, piece by piece. Whoever asks checks it. DriverError: it cannot be had."""
        ...


class ImageSink(Protocol):
    """Where a host brings what an image is to be made of."""

    async def send(self, image_id: str, size_bytes: int, pieces: AsyncIterator[bytes]) -> None:
        """The content of an image that waits for it. Returns once it is stored and checked.

        DriverError: it was refused, or did not arrive.
        """
        ...
