"""How a host gets the content of an image: as a stream, by its checksum, from whoever has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from cumulet.host.driver import Image


class ImageSource(Protocol):
    """Where a host fetches images."""

    def stream(self, image: Image) -> AsyncIterator[bytes]:
        """The content, piece by piece. Whoever asks checks it. DriverError: it cannot be had."""
        ...
