"""Network namespaces by name, as `ip netns` keeps them, and how a thread works in another one for a while."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/run/netns")
_OWN = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def identity() -> int:
    """The inode of the calling thread's namespace. No two namespaces have the same at one time."""
    return os.stat(_OWN).st_ino


def named(beginning: str) -> set[str]:
    """The names of the namespaces whose names begin so."""
    return {path.name for path in FOLDER.glob(f"{beginning}*")}


def make(name: str) -> None:
    """Make a namespace of this name. One that exists stays as it is."""
    from pyroute2 import netns

    if not (FOLDER / name).exists():
        netns.create(name)


def remove(name: str) -> None:
    """Remove the name of a namespace. The namespace ends with the last process in it."""
    from pyroute2 import netns

    try:
        netns.remove(name)
    except OSError as gone:
        if gone.errno not in (errno.ENOENT, errno.EINVAL):
            raise


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """The calling thread is in that namespace during the block. OSError where it cannot enter."""
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(own)
    finally:
        os.close(own)


def enter_new() -> None:
    """The calling thread is in a new namespace without a name, which ends with the thread. OSError where it cannot."""
    _check(_libc.unshare(_CLONE_NEWNET))


def _enter(descriptor: int) -> None:
    _check(_libc.setns(descriptor, _CLONE_NEWNET))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
