"""Where commands print for people: a terminal as it is, or lines of a fixed width where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_COLUMNS = 140
"""Where there is no terminal to ask: in CI logs and pipes."""


def screen() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_COLUMNS)


def table(title: str) -> Table:
    """A table without walls, which survives being pasted."""
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
