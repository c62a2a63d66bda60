"""The roles of a fleet - `api`, `conductor`, `host add` - which answer honestly that they are not built yet."""

from __future__ import annotations

from typing import NoReturn

import click

from cumulet.cli.host_network import clean

REST = {"ignore_unknown_options": True, "allow_extra_args": True}
"""Whatever options are given, the answer is the same: nobody should have to find the right ones first."""


def _not_yet(role: str) -> NoReturn:
    raise click.ClickException(
        f"`cumulet {role}` is not built yet: a fleet needs the NATS bus and credentials for each agent, which Cumulet "
        "does not have. What works today is `cumulet up`: one process, on SQLite or PostgreSQL (--database)."
    )


@click.command(context_settings=REST)
def api() -> None:
    """Not yet: serve the API for a fleet, as one of several."""
    _not_yet("api")


@click.command(context_settings=REST)
def conductor() -> None:
    """Not yet: carry a fleet's long operations, as one of several."""
    _not_yet("conductor")


@click.group()
def host() -> None:
    """Clean up a host's network. Not yet: admit hosts to a fleet."""


host.add_command(clean)


@host.command(context_settings=REST)
@click.argument("name")
def add(name: str) -> None:
    """Not yet: make credentials for the agent of a new host called NAME."""
    _not_yet("host add")
