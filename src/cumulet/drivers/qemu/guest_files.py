"""Files in the folder that a guest's user may write: by descriptor only, and never through a link.

A hostile QEMU may replace a file there by a link at any moment, and the agent is root. So all that the agent does below
such a folder is done here, relative to the folder's own descriptor (a test reads the sources for it).
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from cumulet.drivers.qemu.record import GuestFolder

DISK = "disk.qcow2"
CONFIG_DRIVE = "config.iso"
SNAPSHOT = "snapshot.qcow2"
RESCUE = "rescue.qcow2"
RAW = "new.raw"
"""A further disk while it is made."""


def further_disk(place: int) -> str:
    """The file of a disk beside the first."""
    return f"disk{place}.qcow2"


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def hand_over(folder: GuestFolder, uid: int | None) -> None:
    """Make the folder its guest's."""
    with _opened(folder) as vm:
        if uid is not None:
            os.fchown(vm, uid, uid)


def write(folder: GuestFolder, name: str, content: bytes, *, mode: int, uid: int | None) -> None:
    """Put a whole file there; it replaces what has its name."""
    with _opened(folder) as vm:
        new = f".{name}.{secrets.token_hex(8)}"
        _write_new(vm, new, content, mode, uid)
        os.replace(new, name, src_dir_fd=vm, dst_dir_fd=vm)


def write_folder(folder: GuestFolder, name: str, files: Mapping[str, bytes], *, uid: int | None) -> None:
    """Put a folder with `files` there, for the guest's user only; it replaces what has its name."""
    remove_folder(folder, name)
    with _opened(folder) as vm:
        os.mkdir(name, 0o700, dir_fd=vm)
        inner = os.open(name, _FOLDER, dir_fd=vm)
        try:
            for file, content in files.items():
                _write_new(inner, file, content, 0o600, uid)
            if uid is not None:
                os.fchown(inner, uid, uid)
        finally:
            os.close(inner)


def remove_folder(folder: GuestFolder, name: str) -> None:
    """Remove a folder with its content, a file, or a link itself (never what the link leads to)."""
    with suppress(FileNotFoundError), _opened(folder) as vm:
        if stat.S_ISDIR(os.stat(name, dir_fd=vm, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=vm, ignore_errors=True)
        else:
            os.unlink(name, dir_fd=vm)


def remove(folder: GuestFolder, name: str) -> None:
    """Remove a file, or a link itself (never what it leads to)."""
    with suppress(FileNotFoundError), _opened(folder) as vm:
        os.unlink(name, dir_fd=vm)


def look(folder: GuestFolder, name: str) -> os.stat_result | None:
    """The status of the file itself, also of a link; None where there is none."""
    try:
        with _opened(folder) as vm:
            return os.stat(name, dir_fd=vm, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextmanager
def opened(folder: GuestFolder, name: str) -> Iterator[int]:
    """A plain file there, for reading. OSError for anything else: no link is followed, no pipe is waited for."""
    with _opened(folder) as vm:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=vm)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", name)
        yield file
    finally:
        os.close(file)


@contextmanager
def _opened(folder: GuestFolder) -> Iterator[int]:
    # All folders above `vm` are the agent's own, so no guest can redirect this path.
    vm = os.open(folder.vm, _FOLDER)
    try:
        yield vm
    finally:
        os.close(vm)


def _write_new(parent: int, name: str, content: bytes, mode: int, uid: int | None) -> None:
    with open(os.open(name, _NEW, mode, dir_fd=parent), "wb") as file:
        file.write(content)
        if uid is not None:
            os.fchown(file.fileno(), uid, uid)
