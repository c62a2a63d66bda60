"""A backup: one tar file with what a cloud cannot make again (database, keys, images, audit trail) and a manifest.

It is consistent while the cloud runs. The database is copied in one step of SQLite's backup. Image data never changes
under its name, so a hard link keeps it until it is copied. A file that others replace is read once. Not part of it are
guests' disks (`hosts/`), the audit trails of other APIs (`trails_elsewhere`), and what a start makes anew (certificates
of hosts and API, `reserve`).
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Literal

import msgspec
from sqlalchemy.exc import DBAPIError

from cumulet.conductor import presence
from cumulet.db.clock import time_of
from cumulet.db.engine import Tx, opened
from cumulet.db.schema import HEAD, MIGRATIONS, MOVED
from cumulet.image.files import image_folder
from cumulet.owned import refuse_exposed
from cumulet.web.audit import Broken, copy_while_written

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "cumulet.db"
LARGEST_MANIFEST = 64 << 20
"""Bytes. Enough for some 400,000 files."""
BLOCK_BYTES = 1 << 20
RESTORING = ".restoring"
"""A folder in the state folder during a restore. While it exists, no cloud starts there."""
LINKS = ".backup"
"""A folder in the state folder during a backup."""
SINGLE_FILES = ("clouds.yaml", "driver", "seeded", "metrics-token", "ca/ca-key.pem", "ca/ca-cert.pem")
NEEDED = ("driver", "ca/ca-key.pem", "ca/ca-cert.pem")
_IMAGE = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAMES = re.compile(
    r"clouds\.yaml|driver|seeded|metrics-token|ca/ca-(key|cert)\.pem|(fernet|credential)-keys/[0-9]{1,9}|cumulet\.db"
    rf"|audit(-[0-9]{{12}})?\.jsonl|audit\.(key|head|start)|images/{_IMAGE}",
    re.ASCII,
)


class Refused(Exception):
    """A backup or a restore is not possible; the message says what to do."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One file: its size in bytes, and its SHA-256 in hex."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The last file of a backup: the version that made it, when (ISO 8601, UTC), and every other file."""

    format: int
    version: str
    schema: str
    made_at: str
    database: Literal["sqlite", "postgresql"]
    files: dict[str, Stored]
    without_data: tuple[str, ...] = ()
    """The ids of images whose data was missing."""


# -- backup


def write_backup(state: Path, target: Path, database: Path | None) -> Manifest:
    """Back up the cloud in `state` to the new file `target` (mode 0600). `database`: SQLite's file; None: PostgreSQL.

    Raises Refused, Exposed, and OSError.
    """
    _check(state, target, database)
    with (
        _links(state) as links,
        tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work,
    ):
        whole = Path(work, "backup.tar")
        with open(whole, "xb", opener=_private) as file:
            manifest = _write(file, state, links, Path(work), database)
            file.flush()
            os.fsync(file.fileno())
        if os.path.lexists(target):
            raise Refused(f"{target} has come to be meanwhile, and is left alone")
        os.rename(whole, target)
    _sync_folder(target.parent)
    return manifest


def _check(state: Path, target: Path, database: Path | None) -> None:
    try:
        owner = state.stat().st_uid
        there = all((state / name).exists() for name in NEEDED)
    except FileNotFoundError:
        raise Refused(f"there is no folder {state}; name the cloud's with --state") from None
    except PermissionError:
        raise Refused(f"{state} may not be read by you; run this as the user that the cloud runs as") from None
    if owner != os.geteuid():
        raise Refused(f"{state} belongs to user {owner}; run this as that user, as the cloud does")
    if not there:
        raise Refused(f"there is no cloud in {state}; name its folder with --state")
    if (state / RESTORING).exists():
        raise Refused(f"{state} holds a restore that did not end; empty the folder and restore again")
    if os.path.lexists(target):
        raise Refused(f"{target} exists, and a backup replaces nothing; name a new file")
    if database is not None and not database.is_file():
        raise Refused(f"there is no database {database}; name it as you name it to `cumulet up`")


@contextmanager
def _links(state: Path) -> Iterator[Path]:
    """A folder for hard links, on the file system of `state`. One backup at a time has it; its end removes it."""
    folder = state / LINKS
    folder.mkdir(mode=0o700, exist_ok=True)
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another backup of {state} is under way; wait for its end") from None
        try:
            for left in folder.iterdir():  # of a backup that was killed
                left.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)


def _write(file: BinaryIO, state: Path, links: Path, work: Path, database: Path | None) -> Manifest:
    files: dict[str, Stored] = {}
    without_data: tuple[str, ...] = ()
    schema = HEAD
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, source: Path) -> None:
            files[name] = _add(tar, name, source)

        # Images are linked before and after the database is copied, so that none is missed that comes in between.
        _link_images(state, links)
        if database is not None:
            copy = work / DATABASE
            schema, with_data = _copy_database(database, copy)
            _link_images(state, links)
            here = {one.name for one in links.iterdir()}
            without_data = tuple(sorted(with_data - here))
            for unknown in here - with_data:
                (links / unknown).unlink()
            add(DATABASE, copy)
            copy.unlink()
        _add_state(state, work, add)
        for image in sorted(links.iterdir()):
            add(f"images/{image.name}", image)
            image.unlink()
        manifest = Manifest(
            format=FORMAT,
            version=importlib.metadata.version("cumulet"),
            schema=schema,
            made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            database="postgresql" if database is None else "sqlite",
            files=files,
            without_data=without_data,
        )
        _add_bytes(tar, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def trails_elsewhere(url: str) -> list[str]:
    """The machines of the processes of `cumulet api` in the last hour, one for each: it writes an audit trail into its
    own folder (`--own`). Empty too if this PostgreSQL does not answer."""

    def look(tx: Tx) -> list[str]:
        return sorted(one.machine for one in presence.heard(tx, time_of(tx)) if one.role == "api")

    try:
        with opened(url, inline=True) as database:
            return database.read(look)
    except DBAPIError:  # Only a hint depends on it.
        return []


def _add_keys(keys: Path, add: Callable[[str, Path], None]) -> None:
    refuse_exposed(keys)
    with open(keys / ".lock", "a", opener=_private) as lock:  # no rotation meanwhile
        fcntl.flock(lock, fcntl.LOCK_EX)
        for key in sorted(path for path in keys.iterdir() if path.name.isdecimal()):
            add(f"{keys.name}/{key.name}", key)


def _add_state(state: Path, work: Path, add: Callable[[str, Path], None]) -> None:
    for name in SINGLE_FILES:
        if name in NEEDED or (state / name).exists():
            add(name, state / name)
    for name in ("fernet-keys", "credential-keys"):
        if name == "fernet-keys" or (state / name).exists():
            _add_keys(state / name, add)
    if (state / "audit.key").exists():
        trail = work / "audit"
        trail.mkdir(mode=0o700)
        try:
            copy_while_written(state / "audit.jsonl", trail)
        except Broken as broken:
            raise Refused(f"the audit trail cannot be copied: {broken}; try again") from None
        for one in sorted(trail.iterdir()):
            add(one.name, one)
        shutil.rmtree(trail)


def _link_images(state: Path, links: Path) -> None:
    store = image_folder(state)
    for image in store.iterdir() if store.is_dir() else ():
        if re.fullmatch(_IMAGE, image.name, re.ASCII):
            with suppress(FileExistsError, FileNotFoundError):  # linked before; deleted meanwhile
                os.link(image, links / image.name, follow_symlinks=False)


def _copy_database(source: Path, target: Path) -> tuple[str, set[str]]:
    """Copy SQLite's database as of one moment. Returns its schema, and the ids of images that have data."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=10)) as running,
            closing(sqlite3.connect(target)) as copy,
        ):
            running.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            [found] = copy.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise Refused(f"the database {source} is damaged: {found}")
            _refuse_moved(copy)
            [schema] = copy.execute("SELECT version_num FROM alembic_version").fetchone()
            rows = copy.execute(
                "SELECT id FROM images WHERE status IN ('active', 'deactivated') AND deleted_at_us IS NULL"
            )
            return str(schema), {row[0] for row in rows}
    except sqlite3.Error as error:
        raise Refused(f"the database {source} cannot be copied: {error}") from None


def _refuse_moved(copy: sqlite3.Connection) -> None:
    """As `db.schema.refuse_moved`, on the copy: it is the same moment for all of it."""
    if copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'moved_to'").fetchone() is not None:
        [elsewhere] = copy.execute("SELECT place FROM moved_to").fetchone()
        raise Refused(MOVED.format(place=elsewhere))


def _add(tar: tarfile.TarFile, name: str, source: Path) -> Stored:
    with open(source, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW)) as file:
        status = os.fstat(file.fileno())
        member = _member(name, status.st_size)
        member.mtime = status.st_mtime  # The age of a token's key is its mtime, in parts of a second.
        hashing = _Hashing(file)
        tar.addfile(member, hashing)
    return Stored(size=status.st_size, sha256=hashing.sha256.hexdigest())


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


class _Hashing:
    """Reads a file and hashes its content."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        content = self._file.read(size)
        self.sha256.update(content)
        return content


# -- restore


def restore(source: Path, state: Path) -> Manifest:
    """Put the content of `source` into `state`. The caller holds its lock, and it is empty except for that.

    Nothing is put in its place before all of it was read and checked. Raises Refused and OSError.
    """
    fresh = state / RESTORING
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    try:
        manifest = _read(source, fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    for one in sorted(fresh.iterdir()):
        os.rename(one, state / one.name)
    _sync_folder(state)
    fresh.rmdir()
    _sync_folder(state)
    return manifest


def _read(source: Path, fresh: Path) -> Manifest:
    found: dict[str, Stored] = {}
    manifest: Manifest | None = None
    try:
        with tarfile.open(source, "r:") as tar:
            for member in tar:
                if member.type != tarfile.REGTYPE or member.sparse or member.name in found or manifest is not None:
                    raise Refused(f"{source} is no backup of Cumulet: it holds {member.name!r}")
                content = tar.extractfile(member)
                assert content is not None
                if member.name == MANIFEST:
                    manifest = _manifest(source, content)
                elif _NAMES.fullmatch(member.name):
                    found[member.name] = _extract(content, member, fresh / member.name)
                else:
                    raise Refused(f"{source} is no backup of Cumulet: it holds {member.name!r}")
    except tarfile.TarError:
        raise Refused(f"{source} is no backup of Cumulet, or was cut short") from None
    if manifest is None:
        raise Refused(f"{source} is no backup of Cumulet, or was cut short: it has no manifest")
    for name in sorted(manifest.files.keys() | found.keys()):
        if manifest.files.get(name) != found.get(name):
            raise Refused(f"{source} is damaged: {name} is not what its manifest says; use another backup")
    if missing := [name for name in NEEDED if name not in found]:
        raise Refused(f"{source} is no whole backup: it lacks {missing[0]}")
    return manifest


def _manifest(source: Path, content: IO[bytes]) -> Manifest:
    try:
        manifest = msgspec.json.decode(content.read(LARGEST_MANIFEST), type=Manifest)
    except msgspec.MsgspecError:
        raise Refused(f"{source} is no backup of Cumulet: its manifest is none, or of a newer Cumulet") from None
    known = re.fullmatch(r"[0-9]{4}", manifest.schema, re.ASCII) and any(
        MIGRATIONS.glob(f"versions/{manifest.schema}_*.py")
    )
    if manifest.format != FORMAT or not known:
        raise Refused(
            f"{source} was made by Cumulet {manifest.version[:32]} with schema {manifest.schema[:32]}, and this "
            f"program knows schemas up to {HEAD}: restore it with that version, or a newer one"
        )
    return manifest


def _extract(content: IO[bytes], member: tarfile.TarInfo, target: Path) -> Stored:
    target.parent.mkdir(mode=0o700, exist_ok=True)
    sha256 = hashlib.sha256()
    size = 0
    with open(target, "xb", opener=_private) as file:
        while block := content.read(BLOCK_BYTES):
            sha256.update(block)
            size += file.write(block)
        file.flush()
        os.utime(file.fileno(), (member.mtime, member.mtime))
        os.fsync(file.fileno())
    return Stored(size=size, sha256=sha256.hexdigest())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
