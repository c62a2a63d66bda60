"""`cumulet backup` and `cumulet restore`: a cloud as one file, and a state folder from it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cumulet.cli import state_folder
from cumulet.cli.configuration import DEFAULT_FILE, checked_option, from_file
from cumulet.cli.not_here import existing_file, in_existing_folder

if TYPE_CHECKING:
    from cumulet.backup import Manifest

STATE = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The cloud's state folder.  [default: that of the configuration file, else ~/.local/state/cumulet]",
)
CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The configuration file of `cumulet up`.  [default: {DEFAULT_FILE}, if there is one]",
)
NOT_GUESTS = "Guests' disks are not part of it"
NEWER_GUESTS = (
    "Hosts on other machines may have guests that came after the backup: these are removed with their disks, unless it "
    "is started with --set keep_unknown_guests=true."
)


@click.command(short_help="Save a cloud to one file, while it runs or not.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), callback=in_existing_folder)
@STATE
@click.option(
    "--database",
    metavar="URL",
    envvar="CUMULET_DATABASE",
    help="As of `cumulet up`.  [default: that of the configuration file, else SQLite in DIR]",
)
@CONFIG
def backup(file: Path, state: Path | None, database: str | None, config: Path | None) -> None:
    """Save a cloud to the new FILE, while it runs or not: database, keys, passwords, images, audit trail.

    FILE holds every secret of the cloud. Only its owner can read it; keep it like that. Guests' disks are not part of
    it, nor are files that settings name. A PostgreSQL database is not part of it either: run pg_dump just before. Nor
    are the audit trails of `cumulet api`: each is in the folder of its --own.
    """
    from cumulet.backup import Refused, trails_elsewhere, write_backup
    from cumulet.owned import Exposed

    given = {name: one.value for name, one in from_file(config).items()}
    folder = (state or given.get("state_dir") or state_folder.default()).absolute()
    target = file.absolute()
    url = checked_option("--database", "database_url", database or None) or given.get("database_url")
    try:
        manifest = write_backup(folder, target, _database_file(url, folder))
    except (Refused, Exposed) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot write the backup {target}: {_words(error)}") from None
    print(f"saved {folder} to {target}: {_size(manifest)}, schema {manifest.schema}. {NOT_GUESTS}.")
    if manifest.database == "postgresql":
        print("Nor is the PostgreSQL database: save it with pg_dump, just before the files.", file=sys.stderr)
        if elsewhere := trails_elsewhere(str(url)):
            where = ", ".join(sorted(set(elsewhere)))
            print(
                f"Nor are the audit trails of other APIs of this cloud ({len(elsewhere)}, on {where}): save what "
                "begins with `audit` in the folder of each one's --own.",
                file=sys.stderr,
            )
    for image in manifest.without_data:
        print(f"image {image} has no data in the backup: it was deleted meanwhile, or is lost", file=sys.stderr)


@click.command(short_help="Make a state folder from such a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), callback=existing_file)
@STATE
@CONFIG
def restore(file: Path, state: Path | None, config: Path | None) -> None:
    """Make a state folder from FILE, which `cumulet backup` wrote. The folder must be empty, or not exist yet.

    Everything in FILE is checked before any of it is put in its place. Afterwards `cumulet up` starts the cloud.
    Guests' disks are not part of a backup; a PostgreSQL database is restored with psql or pg_restore.
    """
    from cumulet.backup import Refused
    from cumulet.backup import restore as restore_into

    given = {name: one.value for name, one in from_file(config).items()}
    folder = (state or given.get("state_dir") or state_folder.default()).absolute()
    _refuse_others_folder(folder)
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    had_lock = (folder / "lock").exists()
    try:
        with state_folder.held(folder, to_restore=True):
            if _content(folder):
                raise click.ClickException(f"{folder} is not empty: restore into an empty folder, named with --state")
            try:
                manifest = restore_into(file, folder)
            except BaseException:
                _leave_as_it_was(folder, made, had_lock=had_lock)
                raise
    except Refused as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot restore into {folder}: {_words(error)}") from None
    elsewhere = manifest.database == "postgresql"
    print(
        f"restored into {folder}: {_size(manifest)}, saved at {manifest.made_at} by Cumulet {manifest.version}. "
        f"{NOT_GUESTS}. Start it with: cumulet up --state {folder}{' --database URL' if elsewhere else ''}"
    )
    if elsewhere:
        print("Its PostgreSQL database is not part of it: restore that before the start.", file=sys.stderr)
    print(NEWER_GUESTS, file=sys.stderr)


def _refuse_others_folder(folder: Path) -> None:
    """Refuse a folder that is not empty and has no lock: it belongs to no cloud. Nothing in it is changed."""
    try:
        if folder.is_dir() and _content(folder) and not (folder / "lock").exists():
            raise click.ClickException(f"{folder} is not empty: restore into an empty folder, named with --state")
    except OSError as error:
        raise click.ClickException(f"cannot use the state folder {folder}: {error.strerror}") from None


def _leave_as_it_was(folder: Path, made: list[Path], *, had_lock: bool) -> None:
    """Remove what was made for a restore of which nothing was put in place: the lock, which is held, and folders."""
    with suppress(OSError):
        if had_lock or [path.name for path in folder.iterdir()] != ["lock"]:
            return
        (folder / "lock").unlink()
        for one in made:
            one.rmdir()


def _content(folder: Path) -> list[str]:
    """The names in the folder, except the lock and the folder of a restore that was interrupted early."""
    return [path.name for path in folder.iterdir() if path.name not in ("lock", state_folder.RESTORING)]


def _database_file(url: str | None, folder: Path) -> Path | None:
    """SQLite's file; None: PostgreSQL."""
    from cumulet.db.engine import database_file

    return folder / "cumulet.db" if url is None else database_file(url)


def _size(manifest: Manifest) -> str:
    mib = sum(one.size for one in manifest.files.values()) / (1 << 20)
    return f"{len(manifest.files)} files, {mib:.1f} MiB"


def _words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
