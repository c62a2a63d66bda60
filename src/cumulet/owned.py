"""Whether files and folders are their owner's alone: asked before a secret is kept in them or read from them; and how
such a file is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class Exposed(Exception):
    """Somebody else could read or replace what must be secret; says what to do about it."""


def refuse_exposed(path: Path) -> None:
    """`path` itself, no link, belongs to the user we run as and is closed to all others; else `Exposed`."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid():
        raise Exposed(f"{path} must belong to the user Cumulet runs as, and be no link: whoever owns it may read it")
    if status.st_mode & 0o077:
        raise Exposed(f"{path} is readable by others: anyone may have copied it; remove it, or chmod go= if none did")


_LOOKED_AT_BEFORE: set[int] = set()


def trust_who_has_no_number() -> None:
    """In a user namespace, root and all others of the machine look the same. Who made it has looked before."""
    _LOOKED_AT_BEFORE.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))


def refuse_foreign_path(folder: Path) -> None:
    """No folder on the way to `folder`, and no link, belongs to somebody who is neither root nor us; nor may others
    write there (sticky folders such as /tmp are fine: there, only owners rename). Else `Exposed`.

    What does not exist yet is made by us.
    """
    trusted = {0, os.geteuid(), *_LOOKED_AT_BEFORE}
    walked: set[Path] = set()
    for way in (folder.absolute(), folder.resolve()):
        for step in (*reversed(way.parents), way):
            if step in walked:
                continue
            walked.add(step)
            try:
                status = step.lstat()
            except FileNotFoundError:
                break
            if status.st_uid not in trusted:
                raise Exposed(f"{step} belongs to user {status.st_uid}, who could put other keys in this cloud's place")
            if not stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_ISVTX:
                continue
            # A user's own group is common where they are at home; for root it is one group too many.
            others = stat.S_IWOTH | (stat.S_IWGRP if os.geteuid() == 0 and status.st_gid != 0 else 0)
            if status.st_mode & others:
                raise Exposed(f"{step} may be written by others, who could put other keys in this cloud's place")


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write `path` durably and at once: whoever reads it finds what was there before, or all of this. One at a time."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(new, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
