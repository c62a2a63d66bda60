"""Images on a host, by content: fetched at first use, checked before anything opens them, removed if long unused."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cumulet.drivers.qemu import room
from cumulet.host.driver import DriverError, Image
from cumulet.host.images import ImageSource
from cumulet.host.limits import USUAL_LIMITS, HostLimits

TIDY_SECONDS = 86_400.0
_QCOW2_HEADER = struct.Struct(">4sIQIIQ")
_QCOW2_EXTERNAL_DATA = 1 << 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCache:
    """Files ``<sha512>.<format>``, each checked when it was received."""

    folder: Path
    source: ImageSource
    limits: HostLimits = USUAL_LIMITS
    _fetching: dict[str, asyncio.Lock] = field(default_factory=dict)
    _in_use: Counter[Path] = field(default_factory=Counter)
    _claiming: threading.Lock = field(default_factory=threading.Lock)
    """Held for a moment: to claim an image for use, or to remove one that nobody has claimed (`tidy`, in a thread)."""

    @contextlib.contextmanager
    def kept(self, image: Image) -> Iterator[Path]:
        """While the context lasts the image's file is not removed, where there is one or comes one."""
        cached = self.folder / f"{image.sha512}.{image.disk_format}"
        with self._claiming:
            self._in_use[cached] += 1
        try:
            yield cached
        finally:
            self._in_use[cached] -= 1
            if not self._in_use[cached]:
                del self._in_use[cached]
                self._fetching.pop(cached.name, None)

    @contextlib.asynccontextmanager
    async def hold(self, server_id: str, image: Image) -> AsyncIterator[Path]:
        """The image's file, fetched at first use, and `kept`."""
        if len(image.sha512) != 128 or set(image.sha512) - set("0123456789abcdef"):
            raise DriverError("IMAGE_CHECKSUM: not a SHA-512 in hexadecimal")
        with self.kept(image) as cached:
            async with self._fetching.setdefault(cached.name, asyncio.Lock()):
                if not cached.exists():
                    await asyncio.to_thread(self.tidy, image.size_bytes)
                    await self.require_room(image.size_bytes, besides=server_id)
                    await self._fetch(image, cached)
            os.utime(cached)
            yield cached

    async def require_room(self, size: int, *, besides: str) -> None:
        """`room.require`. Where room is missing, all images that nobody uses make way: they can be fetched again.

        The last look is in the caller's thread, so that a promise made next is seen by whoever looks after it.
        """
        try:
            room.require(self.folder.parent, size, self.limits, besides=besides)
        except DriverError:
            await asyncio.to_thread(self.tidy, self._most_bytes)
            room.require(self.folder.parent, size, self.limits, besides=besides)

    async def keep_tidy(self) -> None:
        """Once a day: an agent may run for months and fetch nothing."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await asyncio.to_thread(self.tidy)

    async def _fetch(self, image: Image, cached: Path) -> None:
        incoming = await asyncio.to_thread(_Incoming, image, cached)
        try:
            async with contextlib.aclosing(self.source.stream(image)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(incoming.write, piece)
            await asyncio.to_thread(incoming.place)
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DriverError("DISK_FULL: there is no room for the image on this host") from problem
            raise DriverError(f"IMAGE_UNREADABLE: {problem.strerror}") from problem
        finally:
            await asyncio.to_thread(incoming.discard)

    @property
    def _most_bytes(self) -> int:
        return self.limits.image_cache_gib << 30

    def remove_unfinished(self) -> None:
        """Remove what an agent that died had begun to receive. Call it before the first `hold`."""
        for path in self.folder.glob(".*"):
            path.unlink(missing_ok=True)

    def tidy(self, wanted_bytes: int = 0) -> None:
        """Remove images that nobody uses now: old ones, and while the cache is over its bound the longest unused."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in list(self.folder.iterdir()):
                with contextlib.suppress(FileNotFoundError):
                    about = path.stat()
                    found.append((about.st_mtime, about.st_blocks * 512, path))
        total = sum(size for _, size, _ in found) + wanted_bytes
        oldest = time.time() - self.limits.image_cache_days * 86_400
        for used_at, size, path in sorted(found):
            if used_at >= oldest and total <= self._most_bytes:
                return
            if not path.name.startswith(".") and self._removed(path):
                total -= size

    def _removed(self, path: Path) -> bool:
        """Remove an image unless it is used. Its name goes in a moment; what it held is freed after that."""
        with contextlib.ExitStack() as opened, self._claiming:
            if path in self._in_use:
                return False
            with contextlib.suppress(OSError):
                opened.enter_context(open(path, "rb"))
            path.unlink(missing_ok=True)
        return True


class _Incoming:
    """An image that is being received, under another name until it is whole and checked."""

    def __init__(self, image: Image, cached: Path) -> None:
        cached.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._image = image
        self._cached = cached
        self._new = cached.with_name(f".{cached.name}.{os.getpid()}.{os.urandom(4).hex()}")
        self._digest = hashlib.sha512()
        self._received = 0
        self._file = open(self._new, "wb", buffering=0)  # noqa: SIM115 - stays open from call to call

    def write(self, piece: bytes) -> None:
        self._received += len(piece)
        if self._received > self._image.size_bytes:
            raise DriverError("IMAGE_CHECKSUM: the image is longer than its record says")
        self._digest.update(piece)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    def place(self) -> None:
        os.fsync(self._file.fileno())
        if self._digest.hexdigest() != self._image.sha512:
            raise DriverError("IMAGE_CHECKSUM: the image's content is not what its record says")
        if self._image.disk_format == "qcow2":
            _refuse_other_files(self._new)
        os.chmod(self._new, 0o444)
        os.replace(self._new, self._cached)

    def discard(self) -> None:
        """Leave nothing behind. Harmless after `place`."""
        self._file.close()
        self._new.unlink(missing_ok=True)


def _refuse_other_files(image: Path) -> None:
    """DriverError for a qcow2 file that names other files of the host as its content."""
    with open(image, "rb") as file:
        header = file.read(104)
    if len(header) < 72:
        raise DriverError("IMAGE_FORMAT: not a qcow2 image")
    magic, version, backing_offset, _, _, _ = _QCOW2_HEADER.unpack_from(header)
    if magic != b"QFI\xfb" or version not in (2, 3):
        raise DriverError("IMAGE_FORMAT: not a qcow2 image")
    incompatible = int.from_bytes(header[72:80], "big") if version == 3 else 0
    if backing_offset or incompatible & _QCOW2_EXTERNAL_DATA:
        raise DriverError("IMAGE_REFERS_ELSEWHERE: the image has a backing or data file")
