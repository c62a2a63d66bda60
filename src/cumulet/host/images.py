"""How content travels between a host and the Image service: images to a host by checksum, its guests' disks back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from cumulet.host.driver import Image


class ImageSource(Protocol):
    """From where a host fetches images."""

    def stream(self, image: Image) -> AsyncIterator[bytes]:
        """The content in pieces, which the caller must check. DriverError: there is none for this host."""
        ...


class ImageSink(Protocol):
    """To where a host sends the content of new images."""

    async def send(self, image_id: str, size_bytes: int, pieces: AsyncIterator[bytes]) -> None:
        """Send the content of an image that waits for it. Returns once it is stored and checked.

        DriverError: it was refused, or did not arrive.
        """
        ...
