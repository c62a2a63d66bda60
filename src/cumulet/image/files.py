"""Image data on disk: STATE/images/<id>, moved into place only when it is whole, checked and durable."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import msgspec

from cumulet.image.inspection import Inspection, OpaqueContent, check_tables

UPLOAD_FOLDER = ".uploads"
STAGE_FOLDER = ".staged"
"""Data that waits to be imported, by the id of its image."""
CONVERT_FOLDER = ".converting"
"""Folders in which imports are converted, by the id of the upload."""
CHUNK_BYTES = 1 << 20
"""What is read from a file at once."""
BLOCK_BYTES = 4 << 20
"""What is hashed and written at once."""
UPLOAD_THREADS = 4
"""How many blocks are written at the same time, of all uploads together, each hashed on two threads meanwhile."""
ALIGNED_BYTES = 4096
"""What bypasses the system's cache must be a multiple of this, in length and in its places in memory and file."""


class Threads:
    """Threads for all uploads of this process. They begin with the first that is under way, and end with the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploads = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._uploads == 0:
                self.writers = ThreadPoolExecutor(UPLOAD_THREADS, "image-write")
                self.hashers = ThreadPoolExecutor(2 * UPLOAD_THREADS, "image-hash")
            self._uploads += 1

    def __exit__(self, *_failure: object) -> None:
        with self._lock:
            self._uploads -= 1
            if self._uploads == 0:
                self.writers.shutdown(wait=False)
                self.hashers.shutdown(wait=False)


threads = Threads()


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was stored. Sizes in bytes, hashes in hex."""

    size: int
    virtual_size: int | None
    """None: unknown."""
    md5: str
    sha512: str


def image_folder(state_dir: Path) -> Path:
    """The image store."""
    return state_dir / "images"


def prepare(folder: Path) -> None:
    """Make the store, for the cloud's own user only."""
    for name in (UPLOAD_FOLDER, STAGE_FOLDER, CONVERT_FOLDER):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


class Upload:
    """One upload: hashed, inspected and written on the way. Not for the event loop's thread: it touches the disk.

    Used while `threads` is entered.

    Raises `qcow2.Refused` for content that may not be stored and OSError for a disk that is full or broken.
    """

    def __init__(self, folder: Path, upload_id: str, inspection: Inspection | OpaqueContent) -> None:
        prepare(folder)
        self._folder = folder
        self.path = folder / UPLOAD_FOLDER / upload_id
        self._inspection = inspection
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha512 = hashlib.sha512()
        self._size = 0
        self._file = open(  # noqa: SIM115 - stays open from call to call; `discard` and `place` close it
            os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b", buffering=0
        )
        # The system lets go of it when this process ends: others see by it whether somebody is at the upload. A file
        # system without locks leaves them the sign that the file grows.
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)
        # Copying into the system's cache takes as long as both hashes, and drives out what the database has there.
        self._direct = self._set_direct(True)

    def write(self, chunk: bytes | memoryview) -> None:
        """One block: hashed on threads beside this one, which inspects and writes it."""
        hashed = [threads.hashers.submit(hasher.update, chunk) for hasher in (self._md5, self._sha512)]
        try:
            self._inspection.feed(chunk)
            self._size += len(chunk)
            self._write(memoryview(chunk))
        finally:
            for one in hashed:
                one.result()

    def _write(self, view: memoryview) -> None:
        while view:
            if self._direct and len(view) % ALIGNED_BYTES:
                self._direct = self._set_direct(False)
            try:
                view = view[_write_some(self._file, view) :]
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                # This file system cannot, or the block in memory is not aligned.
                self._direct = self._set_direct(False)

    def _set_direct(self, wanted: bool) -> bool:
        """Bypass the system's cache or not. Returns whether it is bypassed: not every file system can."""
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
        except OSError:
            if not wanted:
                raise
            return False
        return wanted

    def whole(self) -> Written:
        """All has come: check it and make it durable, under the upload's own name."""
        virtual_size = self._inspection.finish()
        self._direct = self._direct and self._set_direct(False)
        check_tables(self._inspection, self._file)
        os.fsync(self._file.fileno())
        self._file.close()
        return Written(
            size=self._size,
            virtual_size=virtual_size,
            md5=self._md5.hexdigest(),
            sha512=self._sha512.hexdigest(),
        )

    def place(self, image_id: str, *, staged: bool = False) -> Written:
        """`whole`, and give it its name: the image's data or, `staged`, data to be imported."""
        written = self.whole()
        place(self.path, place_of(self._folder, image_id, staged=staged))
        return written

    def discard(self) -> None:
        """Leave nothing behind. Harmless after `place`."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def place_of(folder: Path, image_id: str, *, staged: bool = False) -> Path:
    """Where an image's data is or, `staged`, data to be imported."""
    return (folder / STAGE_FOLDER if staged else folder) / image_id


def place(made: Path, where: Path) -> None:
    """Give a durable file its name."""
    # A link, not a rename: it never replaces data that is already there, such as that of a later upload.
    os.link(made, where)
    made.unlink()
    _sync_folder(where.parent)


def is_under_way(folder: Path, upload_id: str) -> bool:
    """Whether a process, of any machine that shares the store, has the upload's file open and writes it."""
    try:
        descriptor = os.open(folder / UPLOAD_FOLDER / upload_id, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # No locks here.
    finally:
        os.close(descriptor)
    return False


def last_change(folder: Path, upload_id: str) -> tuple[int, int] | None:
    """Size of an upload's file, and when it was written last, in nanoseconds; None: there is no file."""
    try:
        found = (folder / UPLOAD_FOLDER / upload_id).stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _write_some(file: FileIO, view: memoryview) -> int:
    """How many bytes of it were written."""
    return file.write(view)


def remove(folder: Path, image_id: str) -> None:
    """Remove an image's data. A host that has it open reads on to the end."""
    place_of(folder, image_id).unlink(missing_ok=True)


def remove_staged(folder: Path, image_id: str) -> None:
    """Remove what is staged for an image."""
    place_of(folder, image_id, staged=True).unlink(missing_ok=True)


def remove_upload(folder: Path, upload_id: str) -> None:
    """Remove what an upload has written, and the folder in which it was converted."""
    remove_at(folder / UPLOAD_FOLDER / upload_id)
    remove_at(folder / CONVERT_FOLDER / upload_id)


def remove_at(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def stored(folder: Path) -> frozenset[str]:
    """All files that there are, and folders of conversions, by their paths below the store."""
    prepare(folder)
    folders = (folder, folder / UPLOAD_FOLDER, folder / STAGE_FOLDER)
    found = [path for one in folders for path in one.iterdir() if path.is_file()]
    return frozenset(str(path.relative_to(folder)) for path in (*found, *(folder / CONVERT_FOLDER).iterdir()))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
