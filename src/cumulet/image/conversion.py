"""An import's data in the disk format that the operator wishes: raw becomes qcow2, or qcow2 raw. As Glance's import
plugin `image_conversion`, but only where inspection knows the format of the data.

The data is whole and inspected before `qemu-img` sees it, and what `qemu-img` wrote is inspected and hashed before it
becomes the image's. Room for the largest file that it may write is reserved before it begins, of the project's quota
and of the disk, and no larger file can be written. It works in a folder that is removed whatever happens: by this
process, by the next attempt, or by the next start.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from io import FileIO
from pathlib import Path
from weakref import WeakKeyDictionary

from cumulet.confined import qemu_img, tools, user_ids, users
from cumulet.confined.tools import ToolFailed, ToolTimeout
from cumulet.errors import TooLarge
from cumulet.image import files
from cumulet.image.files import BLOCK_BYTES, CONVERT_FOLDER, Written
from cumulet.image.inspection import Inspection, check_tables, is_bootable
from cumulet.image.store import Image
from cumulet.image.uploads import GIB, Place, Receiver
from cumulet.part import SettingRefused
from cumulet.settings import Settings
from cumulet.space import Promise, Space

log = logging.getLogger(__name__)

LONGEST_SECONDS = 1800
"""How long `qemu-img` may take, and how much CPU time it may use."""
WATCH_SECONDS = 1.0
"""How often is looked at how much it has written, and whether its image is still there, also while it waits."""
WATCH_BLOCKS = 64
"""After so many blocks is looked again, while they are hashed."""
_TOOL = "qemu-img"

_turns: WeakKeyDictionary[Space, asyncio.Lock] = WeakKeyDictionary()
"""One conversion at a time in a process, which has one `Space`."""


class NotConverted(Exception):
    """The data cannot be converted. The text is shown to whoever imports it."""


def require(settings: Settings) -> None:
    """At a start: refuse the setting where conversion is not possible. Raises `SettingRefused`."""
    if settings.image_conversion_output_format is None:
        return
    if shutil.which(_TOOL) is None:
        raise SettingRefused(f"image_conversion_output_format: {_TOOL} is not installed (Debian package: qemu-utils)")
    if os.geteuid() != 0:
        return
    uids = user_ids.of(settings.guest_uids)
    if not uids and user_ids.are_the_machines_own():
        raise SettingRefused(f"image_conversion_output_format: {_TOOL} would run as root; set `guest_uids`")
    if uids and (problem := user_ids.problem(uids)) is not None:
        raise SettingRefused(f"image_conversion_output_format: {problem}; set `guest_uids` to others")
    if (problem := tools.problem(uids[-1] if uids else None)) is not None:
        raise SettingRefused(f"image_conversion_output_format: {_TOOL} cannot be confined on this machine: {problem}")


def wanted(settings: Settings, image: Image) -> str | None:
    """The format that the data of this image is to be converted to; None: it stays as it comes."""
    output = settings.image_conversion_output_format
    return output if is_bootable(image.disk_format, image.container_format) and output != image.disk_format else None


def largest_bytes(output: str, virtual_size: int) -> int:
    """The size of a raw file; the most that a qcow2 file takes with its tables (64 KiB clusters, 16-bit refcounts)."""
    whole = -(-virtual_size // 512) * 512
    return whole if output == "raw" else whole + (whole >> 12) + (1 << 20)


async def convert(cloud: Place, receiver: Receiver, output: str, source: Path, found: Written) -> Written:
    """Convert `source`, which was inspected with the result `found`, and make it the data of the receiver's image.

    Raises `NotConverted`, `TooLarge`, `InsufficientStorage`, `qcow2.Refused`, and `Gone` if the image is deleted.
    """
    async with _turn(cloud.space, receiver):
        most = largest_bytes(output, found.virtual_size or 0)
        limit = min(most, await receiver.reserve(most))
        if output == "raw" and limit < most:
            raise TooLarge(f"As raw the image has {most} bytes, which is more than it or its project may have.")
        promise = cloud.space.promise(cloud.state_dir, limit, floor_mib=cloud.settings.free_space_floor_mib)
        folder = files.image_folder(cloud.state_dir)
        work = _Work(folder / CONVERT_FOLDER / receiver.upload_id, source, user_ids.of(cloud.settings.guest_uids))
        try:
            await asyncio.to_thread(work.begin)
            try:
                await _run(work, receiver, promise, output, limit)
            except ToolTimeout:
                raise NotConverted(f"The conversion to {output} took more than {LONGEST_SECONDS} seconds.") from None
            except ToolFailed as failed:
                log.warning("a conversion to %s failed: %s", output, failed, extra={"image_id": receiver.image.id})
                if limit < most:
                    raise TooLarge(f"As {output} the image is larger than it or its project may be.") from None
                raise NotConverted(f"The data could not be converted to {output}.") from None
            return await _take(work, receiver, output, cloud.settings.image_virtual_size_limit_gib * GIB)
        finally:
            promise.end()
            await asyncio.to_thread(work.remove)


@asynccontextmanager
async def _turn(space: Space, receiver: Receiver) -> AsyncIterator[None]:
    """Wait until those that came before have ended. Raises `Gone` as soon as the image is deleted."""
    lock = _turns.setdefault(space, asyncio.Lock())
    taken = asyncio.ensure_future(lock.acquire())
    try:
        while not taken.done():
            await asyncio.wait((taken,), timeout=WATCH_SECONDS)
            await receiver.require_ours()
        yield
    finally:
        if not taken.cancel():
            lock.release()


async def _run(work: _Work, receiver: Receiver, promise: Promise, output: str, limit: int) -> None:
    """Let qemu-img write the file. What it has written is no longer promised: it is seen on the disk."""
    tool = asyncio.ensure_future(work.run(receiver.image.disk_format or "", output, limit))
    seen = 0
    try:
        while not tool.done():
            await asyncio.wait((tool,), timeout=WATCH_SECONDS)
            written = await asyncio.to_thread(work.written_bytes)
            promise.written(max(0, written - seen))
            seen = max(seen, written)
            await receiver.require_ours()
        tool.result()
    finally:
        tool.cancel()
        await asyncio.gather(tool, return_exceptions=True)


async def _take(work: _Work, receiver: Receiver, output: str, virtual_size_limit: int) -> Written:
    """Inspect and hash what qemu-img wrote, block by block, make it durable, and give it the image's name."""
    inspection = Inspection(output, virtual_size_limit=virtual_size_limit)
    md5, sha512 = hashlib.md5(usedforsecurity=False), hashlib.sha512()

    def next_block(file: FileIO) -> int:
        block = file.read(BLOCK_BYTES)
        for take in (md5.update, sha512.update, inspection.feed):
            take(block)
        return len(block)

    def finish(file: FileIO) -> int:
        virtual_size = inspection.finish()
        check_tables(inspection, file)
        os.fsync(file.fileno())
        work.place(receiver.image.id)
        return virtual_size

    size = 0
    with await asyncio.to_thread(work.open_made) as file:
        while length := await asyncio.to_thread(next_block, file):
            size += length
            if size % (WATCH_BLOCKS * BLOCK_BYTES) == 0:
                await receiver.require_ours()
        virtual_size = await asyncio.to_thread(finish, file)
    return Written(size=size, virtual_size=virtual_size, md5=md5.hexdigest(), sha512=sha512.hexdigest())


class _Work:
    """The folder of one conversion. Confined by root, qemu-img can write to the file `disk` and to nothing else: not to
    other files, whose room nobody has reserved. Not for the event loop's thread."""

    def __init__(self, folder: Path, source: Path, uids: range) -> None:
        self._folder = folder
        self._source = source
        self._vm = folder / "vm"
        self._made = folder / "disk"
        self._as_root = os.geteuid() == 0
        self._uids = uids
        self._uid: int | None = None

    def begin(self) -> None:
        """Make the folder and the file. Raises `NotConverted` if there is no user for qemu-img."""
        files.prepare(self._folder.parents[1])
        self._folder.mkdir(mode=0o700)
        self._vm.mkdir()
        self._vm.chmod(0o755)  # Whatever our mask is: qemu-img begins there.
        (self._folder / "root").mkdir()
        self._made.touch(mode=0o600, exist_ok=False)
        if self._as_root and self._uids:
            try:
                self._uid = users.take(self._uids, self._folder)
            except users.NoUserLeft:
                raise NotConverted("The cloud has no user left to convert with.") from None
            os.chown(self._made, self._uid, self._uid)
            # Only who may enter the store's folder can read it, and qemu-img, to whom it is shown.
            self._source.chmod(0o444)

    async def run(self, source_format: str, output: str, limit: int) -> None:
        """Raises `ToolFailed`."""
        source, made = ("/image", "/disk") if self._as_root else (str(self._source), str(self._made))
        program = shutil.which(_TOOL)
        if program is None:
            raise ToolFailed(f"TOOL_FAILED: {_TOOL} is not installed")
        await tools.run(
            qemu_img.convert(program, source=source, source_format=source_format, target=made, target_format=output),
            uid=self._uid,
            root=self._folder / "root" if self._as_root else None,
            binds=[(self._vm, "/vm", "ro"), (self._made, "/disk", "rw"), (self._source, "/image", "ro")],
            timeout_s=LONGEST_SECONDS,
            file_size_bytes=limit,
            cpu_seconds=LONGEST_SECONDS,
        )

    def written_bytes(self) -> int:
        with suppress(FileNotFoundError):
            return os.lstat(self._made).st_blocks * 512
        return 0

    def open_made(self) -> FileIO:
        """The file that qemu-img made, which is ours from now on. Raises `NotConverted` if it is anything else."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = FileIO(os.open(self._made, flags), "rb")
        except OSError:
            raise NotConverted("The conversion made no file.") from None
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size == 0:
            file.close()
            raise NotConverted("The conversion made no file.")
        os.fchown(file.fileno(), os.geteuid(), os.getegid())
        os.fchmod(file.fileno(), 0o600)
        return file

    def place(self, image_id: str) -> None:
        files.place(self._made, files.place_of(self._folder.parents[1], image_id))

    def remove(self) -> None:
        files.remove_upload(self._folder.parents[1], self._folder.name)
        if self._uid is not None:
            users.give_back(self._folder)
