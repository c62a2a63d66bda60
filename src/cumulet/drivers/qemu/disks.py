"""A guest's disk: its own qcow2 file of the flavor's size, made from a checked image, and its config drive."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from cumulet.drivers.qemu import room
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.drivers.qemu.room import disk_bytes, file_bytes
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.host.driver import DriverError, Guest, Image

_FORMATS = ("raw", "qcow2")
_CONVERT_SECONDS = 600.0
_QCOW2_HEADER = struct.Struct(">4sIQIIQ")
_QCOW2_EXTERNAL_DATA = 1 << 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """Makes disks with `qemu-img`, always confined and with explicit formats."""

    images: Path
    """The cache: `<sha512>.<format>`, each checked when it came in."""
    qemu_img: str
    sandbox: Sandbox
    _fetching: dict[str, asyncio.Lock] = field(default_factory=dict)
    _in_use: Counter[Path] = field(default_factory=Counter)

    async def make_disk(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """The disk from the guest's image. Starts over where an earlier attempt left half a disk."""
        if guest.image is None:
            await self.make_empty_disk(guest, folder, uid)
            return
        image = guest.image
        if image.disk_format not in _FORMATS:
            raise DriverError(f"IMAGE_FORMAT: {image.disk_format} is not one of {', '.join(_FORMATS)}")
        async with self._cached(guest.server_id, image) as cached:
            await self._convert(guest, image, cached, folder, uid)

    async def _convert(self, guest: Guest, image: Image, cached: Path, folder: GuestFolder, uid: int | None) -> None:
        source = {
            "driver": image.disk_format,
            "read-only": True,
            "file": {"driver": "file", "filename": "/image" if self.sandbox.own_root else str(cached)},
        }
        if image.disk_format == "qcow2":
            source["backing"] = None
        target = self._inside(folder)
        size = self._room_for(guest, folder)
        convert = [self.qemu_img, "convert", "-q", "-O", "qcow2", f"json:{json.dumps(source)}", target]
        await self._tool(convert, folder, uid, size, (cached, "/image", "ro"))
        await self._tool([self.qemu_img, "resize", "-q", "-f", "qcow2", target, str(size)], folder, uid, size)

    async def make_empty_disk(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """A disk of the same size for a migration to fill."""
        size = self._room_for(guest, folder)
        create = [self.qemu_img, "create", "-q", "-f", "qcow2", self._inside(folder), str(size)]
        await self._tool(create, folder, uid, size)

    async def grow(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """Bring a disk nobody uses to the size the description says; a smaller one is refused by the tool."""
        size = disk_bytes(guest)
        room.require(self._state, size - folder.disk.stat().st_blocks * 512, besides=guest.server_id)
        await self._tool(
            [self.qemu_img, "resize", "-q", "-f", "qcow2", self._inside(folder), str(size)], folder, uid, size
        )

    async def _tool(
        self, command: list[str], folder: GuestFolder, uid: int | None, size: int, *binds: tuple[Path, str, str]
    ) -> None:
        await self.sandbox.run_tool(
            command,
            uid=uid,
            root=folder.root,
            binds=[(folder.vm, "/vm", "rw"), *binds],
            timeout_s=_CONVERT_SECONDS,
            file_size_bytes=file_bytes(size),
        )

    def _inside(self, folder: GuestFolder) -> str:
        return str(self.sandbox.folder_inside(folder) / "disk.qcow2")

    def _room_for(self, guest: Guest, folder: GuestFolder) -> int:
        """The size of the disk, which this host has room for; what an earlier attempt left of it is gone."""
        folder.disk.unlink(missing_ok=True)
        size = disk_bytes(guest)
        room.require(self._state, size, besides=guest.server_id)
        return size

    @property
    def _state(self) -> Path:
        return self.images.parent

    @contextlib.asynccontextmanager
    async def _cached(self, server_id: str, image: Image) -> AsyncIterator[Path]:
        """The image from the cache, copied there and checked at first use; it stays there while this lasts."""
        if len(image.sha512) != 128 or set(image.sha512) - set("0123456789abcdef"):
            raise DriverError("IMAGE_CHECKSUM: not a SHA-512 in hexadecimal")
        cached = self.images / f"{image.sha512}.{image.disk_format}"
        self._in_use[cached] += 1
        try:
            async with self._fetching.setdefault(cached.name, asyncio.Lock()):
                if not cached.exists():
                    await asyncio.to_thread(self._fetch, server_id, image, cached)
            os.utime(cached)
            yield cached
        finally:
            self._in_use[cached] -= 1
            if not self._in_use[cached]:
                del self._in_use[cached]
                self._fetching.pop(cached.name, None)

    def _fetch(self, server_id: str, image: Image, cached: Path) -> None:
        self.tidy_cache(image.size_bytes)
        try:
            room.require(self._state, image.size_bytes, besides=server_id)
        except DriverError:
            self.tidy_cache(room.IMAGE_CACHE_BYTES)  # Guests come before what can be fetched again.
            room.require(self._state, image.size_bytes, besides=server_id)
        _copy_checked(Path(image.path), cached, image)

    def tidy_cache(self, wanted_bytes: int = 0) -> None:
        """Remove images nobody uses now: those not used for long, and beyond the cache's bound the longest unused."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in list(self.images.iterdir()):
                with contextlib.suppress(FileNotFoundError):
                    about = path.stat()
                    found.append((about.st_mtime, about.st_blocks * 512, path))
        total = sum(size for _, size, _ in found) + wanted_bytes
        oldest = time.time() - room.IMAGE_CACHE_DAYS * 86_400
        for used_at, size, path in sorted(found):
            if used_at >= oldest and total <= room.IMAGE_CACHE_BYTES:
                return
            if path not in self._in_use and not path.name.startswith("."):
                path.unlink(missing_ok=True)
                total -= size


def _copy_checked(source: Path, cached: Path, image: Image) -> None:
    cached.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = cached.with_name(f".{cached.name}.{os.getpid()}.{os.urandom(4).hex()}")
    digest = hashlib.sha512()
    copied = 0
    try:
        with open(source, "rb") as reader, open(new, "wb") as writer:
            while chunk := reader.read(1 << 20):
                copied += len(chunk)
                if copied > image.size_bytes:
                    raise DriverError("IMAGE_CHECKSUM: the image is longer than its record says")
                digest.update(chunk)
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
        if digest.hexdigest() != image.sha512:
            raise DriverError("IMAGE_CHECKSUM: the image's content is not what its record says")
        if image.disk_format == "qcow2":
            _refuse_other_files(new)
        os.chmod(new, 0o444)
        os.replace(new, cached)
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DriverError("DISK_FULL: there is no room for the image on this host") from problem
        raise DriverError(f"IMAGE_UNREADABLE: {problem.strerror}") from problem
    finally:
        new.unlink(missing_ok=True)


def _refuse_other_files(image: Path) -> None:
    """A qcow2 file can name other files of the host as its content. None of ours does."""
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
