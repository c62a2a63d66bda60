"""`cumulet database`: copy a cloud from SQLite to PostgreSQL, go back, upgrade the schema."""

from __future__ import annotations

from pathlib import Path

import click

from cumulet.cli import state_folder
from cumulet.cli.configuration import checked_option
from cumulet.cli.up import database_trouble_told, without_password


@click.group()
def database() -> None:
    """Move a cloud's records to another database, and bring them forward to this version."""


@database.command()
@click.option(
    "--database",
    "target",
    required=True,
    metavar="URL",
    envvar="CUMULET_DATABASE",
    callback=without_password,
    help="The cloud's PostgreSQL: postgresql://...; with a password in the variable CUMULET_DATABASE.",
)
def upgrade(target: str) -> None:
    """Bring the database of a cloud with several control planes forward to this version, while they run.

    Processes of the version before go on, and are restarted with this version afterwards, one at a time, agents last.
    """
    from cumulet.db.engine import Database
    from cumulet.db.schema import OtherState
    from cumulet.processes.database_copy import upgrade as upgraded

    url = checked_option("--database", "database_url", target)
    assert url is not None
    with database_trouble_told():
        found = Database(url)
        try:
            before, now = upgraded(found)
        except OtherState as error:
            raise click.ClickException(str(error)) from error
        finally:
            found.close()
    click.echo(f"the schema is {now}" + (", as it was" if before == now else f", and was {before}"))


_state = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The cloud's state folder.  [default: ~/.local/state/cumulet]",
)


@database.command()
@_state
def keep(state: Path | None) -> None:
    """Let a cloud that was copied to PostgreSQL start on SQLite again, as it was when it was copied.

    Its changes on PostgreSQL since then are not here: servers that were made or moved there are not known.
    """
    from cumulet.db.engine import Database
    from cumulet.processes.database_copy import keep as kept

    folder = (state or state_folder.default()).absolute()
    with state_folder.held(folder), database_trouble_told():
        found = Database(f"sqlite:///{_sqlite_of(folder)}")
        try:
            elsewhere = kept(found)
        finally:
            found.close()
    if elsewhere is None:
        raise click.ClickException("these records were copied nowhere: there is nothing to do")
    click.echo(f"what is here counts again; {elsewhere} is left as it is")


def _sqlite_of(folder: Path) -> Path:
    file = folder / "cumulet.db"
    if not file.exists():
        raise click.ClickException(f"there is no cloud on SQLite in {folder}")
    return file


@database.command()
@_state
@click.option(
    "--to",
    "target",
    required=True,
    metavar="URL",
    envvar="CUMULET_DATABASE",
    callback=without_password,
    help="An empty PostgreSQL database: postgresql://...; with a password in the variable CUMULET_DATABASE.",
)
def copy(state: Path | None, target: str) -> None:
    """Copy a cloud that is stopped from SQLite to PostgreSQL, all of it or nothing, and compare.

    Its state folder stays: keys and images are in it. Start it with `cumulet up --database URL` from then on.
    """
    from cumulet.db.engine import Database
    from cumulet.db.schema import OtherState
    from cumulet.processes.database_copy import copy as copied

    folder = (state or state_folder.default()).absolute()
    url = checked_option("--to", "database_url", target)
    assert url is not None
    file = _sqlite_of(folder)
    with state_folder.held(folder), database_trouble_told():
        source, destination = Database(f"sqlite:///{file}"), Database(url)
        try:
            done = copied(source, destination)
        except OtherState as error:
            raise click.ClickException(str(error)) from error
        finally:
            source.close()
            destination.close()
    rows = sum(one.rows for one in done)
    click.echo(f"{rows} rows of {len(done)} tables were copied and are the same; start with --database from now on")
