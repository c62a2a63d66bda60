"""The state folder of a cloud: its default place, and the lock that lets one process at a time use it."""

from __future__ import annotations

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
        raise click.ClickException(f"cannot use the state folder {folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise click.ClickException(
                f"the state folder {folder} is in use by another cumulet (process {holder}); stop it, or name another "
                "folder with --state"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        if not to_restore and (folder / RESTORING).exists():
            raise click.ClickException(f"a restore into {folder} did not end; empty the folder and restore again")
        yield
    finally:
        os.close(lock)


def write_private(path: Path, text: str) -> None:
    """Write `path` atomically, readable by its owner only (mode 0600)."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with open(unfinished, "w", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o600)) as file:
        file.write(text)
    os.replace(unfinished, path)
