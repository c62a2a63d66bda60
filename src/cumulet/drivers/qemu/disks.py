"""A guest's disk: its own qcow2 file of the flavor's size, made from a checked image, and its config drive."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cumulet.drivers.qemu import guest_files, room
from cumulet.drivers.qemu.image_cache import ImageCache
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.drivers.qemu.room import disk_bytes, file_bytes
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.host.driver import DriverError, Guest, Image

_FORMATS = ("raw", "qcow2")
_CONVERT_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """Makes disks with `qemu-img`, always confined and with explicit formats."""

    images: ImageCache
    qemu_img: str
    sandbox: Sandbox

    async def make_disk(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """The disk from the guest's image. Starts over where an earlier attempt left half a disk."""
        if guest.image is None:
            await self.make_empty_disk(guest, folder, uid)
            return
        size = self._room_for(guest, folder)
        await self._make_from(guest, guest.image, guest_files.DISK, size, folder, uid)

    async def make_rescue_disk(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """A disk from the guest's image, beside its own, as large as the image says."""
        if guest.image is None:
            raise DriverError("NO_IMAGE: there is nothing to rescue it with")
        size = disk_bytes(msgspec.structs.replace(guest, disk_gib=0))
        guest_files.remove(folder, guest_files.RESCUE)
        room.require(self._state, size, besides="")
        await self._make_from(guest, guest.image, guest_files.RESCUE, size, folder, uid)

    async def _make_from(
        self, guest: Guest, image: Image, name: str, size: int, folder: GuestFolder, uid: int | None
    ) -> None:
        if image.disk_format not in _FORMATS:
            raise DriverError(f"IMAGE_FORMAT: {image.disk_format} is not one of {', '.join(_FORMATS)}")
        async with self.images.hold(guest.server_id, image) as cached:
            await self._convert(image, cached, str(self.sandbox.folder_inside(folder) / name), size, folder, uid)

    async def _convert(
        self, image: Image, cached: Path, target: str, size: int, folder: GuestFolder, uid: int | None
    ) -> None:
        source = {
            "driver": image.disk_format,
            "read-only": True,
            "file": {"driver": "file", "filename": "/image" if self.sandbox.own_root else str(cached)},
        }
        if image.disk_format == "qcow2":
            source["backing"] = None
        convert = [self.qemu_img, "convert", "-q", "-O", "qcow2", f"json:{json.dumps(source)}", target]
        await self._tool(convert, folder, uid, size, (cached, "/image", "ro"))
        await self._tool([self.qemu_img, "resize", "-q", "-f", "qcow2", target, str(size)], folder, uid, size)

    async def make_empty_disk(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """A disk of the same size for a migration to fill."""
        size = self._room_for(guest, folder)
        create = [self.qemu_img, "create", "-q", "-f", "qcow2", self._inside(folder), str(size)]
        await self._tool(create, folder, uid, size)

    async def make_copy_target(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """An empty file of the disk's size, for QEMU to copy the disk to."""
        size = disk_bytes(guest)
        await self._tool(
            [self.qemu_img, "create", "-q", "-f", "qcow2", self._copy(folder), str(size)], folder, uid, size
        )

    async def copy(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """The disk that nobody uses, copied beside it."""
        file = {"driver": "file", "filename": self._inside(folder)}
        source = {"driver": "qcow2", "read-only": True, "file": file, "backing": None}
        convert = [self.qemu_img, "convert", "-q", "-O", "qcow2", f"json:{json.dumps(source)}", self._copy(folder)]
        await self._tool(convert, folder, uid, disk_bytes(guest))

    async def grow(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """Bring a disk nobody uses to the size the description says; a smaller one is refused by the tool."""
        size = disk_bytes(guest)
        present = guest_files.look(folder, guest_files.DISK)
        written = present.st_blocks * 512 if present is not None else 0
        room.require(self._state, size - written, besides=guest.server_id)
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

    def _copy(self, folder: GuestFolder) -> str:
        return str(self.sandbox.folder_inside(folder) / guest_files.SNAPSHOT)

    def _inside(self, folder: GuestFolder) -> str:
        return str(self.sandbox.folder_inside(folder) / guest_files.DISK)

    def _room_for(self, guest: Guest, folder: GuestFolder) -> int:
        """The size of the disk, which this host has room for; what an earlier attempt left of it is gone."""
        guest_files.remove(folder, guest_files.DISK)
        size = disk_bytes(guest)
        room.require(self._state, size, besides=guest.server_id)
        return size

    @property
    def _state(self) -> Path:
        return self.images.folder.parent
