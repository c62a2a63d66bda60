"""The state folder of a cloud: its default place, and the lock that lets one process at a time use it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


def default() -> Path:
    """The user's state folder, as the XDG base directory specification says."""
    home = os.environ.get("XDG_STATE_HOME") or ""
    return (Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state") / "cumulet"


def driver_of(folder: Path) -> str | None:
    """The driver of the state in `folder`; None: there is no state yet."""
    try:
        return (folder / "driver").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


WITHOUT_ROOM = (
    "its disk is full (No space left on device): free 16 MiB there, by moving other files away, and start again"
)
RESTORING = ".restoring"
"""The folder inside a state folder that is being restored; the same name as in `cumulet.backup`."""


@contextmanager
def held(folder: Path, *, to_restore: bool = False) -> Iterator[None]:
    """Make `folder` (mode 0700) if it is missing, and hold its lock in the block. An error if another process holds it,
    or if a restore into it did not end."""
    from cumulet.owned import Exposed, refuse_foreign_path

    try:
        refuse_foreign_path(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        # Close-on-exec: agents and guests outlive this process, and must not keep the lock.
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except Exposed as error:
        raise click.ClickException(f"cannot use the state folder {folder}: {error}") from error
    except OSError as error:
        words = WITHOUT_ROOM if error.errno == errno.ENOSPC else error.strerror
        raise click.ClickException(f"cannot use the state folder {folder}: {words}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise click.ClickException(
                f"the state folder {folder} is in use by another cumulet (process {holder}); stop it, or name another "
                "folder with --state"
            ) from error
        _name_holder(lock, folder)
        if not to_restore and (folder / RESTORING).exists():
            raise click.ClickException(f"a restore into {folder} did not end; empty the folder and restore again")
        yield
    finally:
        os.close(lock)


def _name_holder(lock: int, folder: Path) -> None:
    """Over the name before: a full disk has no room for another block, if the one that is there was given up first."""
    words = f"{os.getpid()}\n".encode()
    with room_told(folder):
        os.pwrite(lock, words, 0)
        os.ftruncate(lock, len(words))


@contextmanager
def room_told(*folders: Path | None) -> Iterator[None]:
    """Turn the error of a full disk into one line. It names the folder which has the least room."""
    try:
        yield
    except Exception as error:
        from cumulet.db.full_disk import is_full_here
        from cumulet.space import free_bytes

        there = [folder for folder in folders if folder is not None and folder.exists()]
        if not is_full_here(error) or not there:
            raise
        raise click.ClickException(
            f"cannot use the state folder {min(there, key=free_bytes)}: {WITHOUT_ROOM}"
        ) from error


def write_private(path: Path, text: str) -> None:
    """Write `path` atomically, readable by its owner only (mode 0600)."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with open(unfinished, "w", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o600)) as file:
        file.write(text)
    os.replace(unfinished, path)
