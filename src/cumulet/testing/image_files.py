"""Images that are files of this machine, for tests and benchmarks of drivers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

from cumulet.host.driver import DriverError, Image


class ImageFiles:
    """A `host.images.ImageSource` of files, found by the checksum of their content at the time of the call."""

    def __init__(self, *paths: Path) -> None:
        self._paths = {hashlib.sha512(path.read_bytes()).hexdigest(): path for path in paths}
        self.fetched: list[str] = []
        """The checksums asked for, in order."""

    async def stream(self, image: Image) -> AsyncGenerator[bytes, None]:
        self.fetched.append(image.sha512)
        path = self._paths.get(image.sha512)
        if path is None:
            raise DriverError(f"IMAGE_UNREADABLE: image {image.id} is not to be had")
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except OSError as problem:
            raise DriverError(f"IMAGE_UNREADABLE: {problem.strerror}") from problem
        for at in range(0, len(content), 1 << 20):
            yield content[at : at + (1 << 20)]

    def give(self, sha512: str, path: Path) -> None:
        """Give this file for the checksum, even if its own checksum is another one."""
        self._paths[sha512] = path
