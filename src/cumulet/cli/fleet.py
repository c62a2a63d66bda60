"""The roles of a fleet - `api`, `conductor` - which answer honestly that they are not built yet."""

from __future__ import annotations

from typing import NoReturn

import click

REST = {"ignore_unknown_options": True, "allow_extra_args": True}
"""Whatever options are given, the answer is the same: nobody should have to find the right ones first."""


def _not_yet(role: str) -> NoReturn:
    raise click.ClickException(
        f"`cumulet {role}` is not built yet. What works today is `cumulet up`, one control plane on SQLite or "
        "PostgreSQL (--database), with hosts on this machine and on others (`cumulet host add`)."
    )


@click.command(context_settings=REST)
def api() -> None:
    """Not yet: serve the API for a fleet, as one of several."""
    _not_yet("api")


@click.command(context_settings=REST)
def conductor() -> None:
    """Not yet: carry a fleet's long operations, as one of several."""
    _not_yet("conductor")
