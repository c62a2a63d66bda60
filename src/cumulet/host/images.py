"""How content travels between a host and the Image service: images to a host by checksum, its guests' disks back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

from cumulet.host.driver import Image

MOST_OF_ONE = 4
"""Images of one host that travel at once, to it and from it together; others wait."""
WAIT_SECONDS = 1800.0
"""So long an image waits at most, at the control plane, until others have travelled."""

Find = Callable[[str, str], Awaitable[Path | None]]
"""The file of an image, from the host's name and a SHA-512. None: the host may not have it."""
Receive = Callable[[str, str, int, AsyncIterator[bytes]], Awaitable[None]]
"""Stores an image, from the host's name, the image's id, its size and its content. ApiError: it is refused."""


class ImageSource(Protocol):
    """From where a host fetches images."""

    def stream(self, image: Image) -> AsyncGenerator[bytes, None]:
        """The content in pieces, which the caller must check. DriverError: there is none for this host."""
        ...


class ImageSink(Protocol):
    """To where a host sends the content of new images."""

    async def send(self, image_id: str, size_bytes: int, pieces: AsyncIterator[bytes]) -> None:
        """Send the content of an image that waits for it. Returns once it is stored and checked.

        DriverError: it was refused, or did not arrive.
        """
        ...
