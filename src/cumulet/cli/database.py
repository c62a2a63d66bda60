"""`cumulet database copy`: a cloud that has outgrown SQLite goes on, on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import click

from cumulet.cli import state_folder
from cumulet.cli.up import checked_option, database_trouble_told, without_password


@click.group()
def database() -> None:
    """Move a cloud's records to another database."""


@database.command()
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The cloud's state folder.  [default: ~/.local/state/cumulet]",
)
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
    from cumulet.part import OtherState
    from cumulet.processes.database_copy import copy as copied

    folder = (state or state_folder.default()).absolute()
    url = checked_option("--to", "database_url", target)
    assert url is not None
    file = folder / "cumulet.db"
    if not file.exists():
        raise click.ClickException(f"there is no cloud on SQLite in {folder}")
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
