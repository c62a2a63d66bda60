"""A guest's disk: its own qcow2 file of the flavor's size, made from a checked image, and its config drive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cumulet.confined import qemu_img
from cumulet.drivers.qemu import guest_files, room
from cumulet.drivers.qemu.image_cache import ImageCache
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.drivers.qemu.room import all_disks_bytes, disk_bytes, file_bytes
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.host.driver import DriverError, Guest, Image
from cumulet.host.patience import seconds_for, seconds_to_make

_FORMATS = ("raw", "qcow2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """Makes disks with `qemu-img`, always confined and with explicit formats."""

    images: ImageCache
    qemu_img: str
    sandbox: Sandbox

    async def make_disk(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """Make the disk from the guest's image. Half a disk that an earlier attempt left is replaced."""
        if guest.image is None:
            await self.make_empty_disk(guest, folder, uid)
            return
        with self.images.kept(guest.image):  # Others make way for its disk.
            size = await self._room_for(guest, folder)
            await self._make_from(guest, guest.image, guest_files.DISK, size, folder, uid)

    async def make_rescue_disk(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """Make a disk from the guest's image, beside its own, of the image's size. It has been promised."""
        assert guest.image is not None
        await self._make_from(guest, guest.image, guest_files.RESCUE, room.rescue_bytes(guest), folder, uid)

    async def _make_from(
        self, guest: Guest, image: Image, name: str, size: int, folder: GuestFolder, uid: int | None
    ) -> None:
        if image.disk_format not in _FORMATS:
            raise DriverError(f"IMAGE_FORMAT: {image.disk_format} is not one of {', '.join(_FORMATS)}")
        seconds = seconds_to_make(guest)
        try:
            async with asyncio.timeout(seconds), self.images.hold(guest.server_id, image) as cached:
                await self._convert(image, cached, self.inside(folder, name), size, folder, uid)
        except TimeoutError as late:
            raise DriverError(f"TOO_SLOW: no disk was made of the image within {seconds:g} s") from late

    async def _convert(
        self, image: Image, cached: Path, target: str, size: int, folder: GuestFolder, uid: int | None
    ) -> None:
        source = "/image" if self.sandbox.own_root else str(cached)
        convert = qemu_img.convert(
            self.qemu_img, source=source, source_format=image.disk_format, target=target, target_format="qcow2"
        )
        await self.run(convert, folder, uid, size, (cached, "/image", "ro"))
        await self.run([self.qemu_img, "resize", "-q", "-f", "qcow2", target, str(size)], folder, uid, size)

    async def make_empty_disk(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """A disk of the same size for a migration to fill."""
        size = await self._room_for(guest, folder)
        await self.make_empty_file(folder, guest_files.DISK, size, uid)

    async def make_empty_file(self, folder: GuestFolder, name: str, size: int, uid: int | None) -> None:
        """A disk of `size` bytes with nothing on it, in the guest's folder."""
        create = [self.qemu_img, "create", "-q", "-f", "qcow2", self.inside(folder, name), str(size)]
        await self.run(create, folder, uid, size)

    async def resize_file(self, folder: GuestFolder, name: str, size: int, uid: int | None) -> None:
        """Bring a disk that nobody uses to `size` bytes. The tool refuses to make it smaller."""
        resize = [self.qemu_img, "resize", "-q", "-f", "qcow2", self.inside(folder, name), str(size)]
        await self.run(resize, folder, uid, size)

    async def make_copy_target(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """An empty file of the disk's size, for QEMU to copy the disk to."""
        await self.make_empty_file(folder, guest_files.SNAPSHOT, disk_bytes(guest), uid)

    async def copy(
        self, guest: Guest, folder: GuestFolder, uid: int | None, *, moved: Callable[[int], None] | None = None
    ) -> None:
        """Copy the disk, which nobody uses, to a file beside it. `moved`: see `Sandbox.run_tool`."""
        source, target = (self.inside(folder, name) for name in (guest_files.DISK, guest_files.SNAPSHOT))
        convert = qemu_img.convert(
            self.qemu_img, source=source, source_format="qcow2", target=target, target_format="qcow2"
        )
        await self.run(convert, folder, uid, disk_bytes(guest), moved=moved)

    async def grow(self, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        """Bring the first disk, which nobody uses, to the size in the description. The tool refuses to make it smaller.

        DISK_FULL if this host has not the room for this and for the description's other disks.
        """
        files = (guest_files.DISK, *(guest_files.further_disk(disk.place) for disk in guest.disks))
        written = sum(room.written_bytes(folder, file) for file in files)
        await self.images.require_room(all_disks_bytes(guest) - written, besides=guest.server_id)
        await self.resize_file(folder, guest_files.DISK, disk_bytes(guest), uid)

    async def run(
        self,
        command: list[str],
        folder: GuestFolder,
        uid: int | None,
        size: int,
        *binds: tuple[Path, str, str],
        moved: Callable[[int], None] | None = None,
    ) -> None:
        """Run a tool on a disk of `size` bytes, confined to the guest's folder and `binds`."""
        await self.sandbox.run_tool(
            command,
            uid=uid,
            root=folder.root,
            binds=[(folder.vm, "/vm", "rw"), *binds],
            timeout_s=seconds_for(size),
            file_size_bytes=file_bytes(size),
            moved=moved,
        )

    def inside(self, folder: GuestFolder, name: str) -> str:
        """A file in the guest's folder as tools see it."""
        return str(self.sandbox.folder_inside(folder) / name)

    async def _room_for(self, guest: Guest, folder: GuestFolder) -> int:
        """The size of the first disk. DISK_FULL without room for all. What an earlier attempt left is removed."""
        guest_files.remove(folder, guest_files.DISK)
        await self.images.require_room(all_disks_bytes(guest), besides=guest.server_id)
        return disk_bytes(guest)
