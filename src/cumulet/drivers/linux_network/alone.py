"""The lock on a network namespace: one agent at most makes the network there, since it removes what it does not know.

It is a file of the machine, not of a host's state folder: two hosts have two of these, and one network.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cumulet.host.driver import DriverError

FOLDER = Path("/run/cumulet/networks")
OWN = Path("/proc/self/ns/net")


class NotAlone(DriverError):
    """Another agent makes this network. The message is one sentence."""


@contextlib.contextmanager
def alone(who: str, namespace: Path = OWN) -> Iterator[None]:
    """Until the block ends, only this process makes the network in `namespace`. `who`: for those it keeps out.

    Raises NotAlone, at once. Nothing is left behind, except by a process that is killed: a file without a lock.
    """
    try:
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = FOLDER / str(os.stat(namespace).st_ino)
        lock = _locked(file)
    except OSError as problem:
        raise NotAlone(f"the network here cannot be locked: {problem.filename}: {problem.strerror}") from None
    try:
        os.truncate(lock, 0)
        os.pwrite(lock, f"{who} (process {os.getpid()})".encode(errors="surrogateescape"), 0)
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(lock)


def _locked(file: Path) -> int:
    """A descriptor that has the lock, and goes with this process. Raises NotAlone and OSError."""
    while True:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(lock, file):
                return lock
        except BlockingIOError:
            holder = os.pread(lock, 4096, 0).decode(errors="surrogateescape")
            os.close(lock)
            raise NotAlone(
                f"this machine's network is in use by {holder}, whose guests would lose it: end that first; if a "
                "machine is to be more than one host, only one of them has a network (`cumulet agent --no-networks`)"
            ) from None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # Who had it has removed it meanwhile.


def _is(lock: int, file: Path) -> bool:
    try:
        there = os.stat(file)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(lock), there)


def own_number() -> int:
    """The inode of this process's network namespace."""
    return os.stat(OWN).st_ino
