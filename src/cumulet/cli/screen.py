"""The console that commands print to: the terminal, or lines of a fixed width without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_COLUMNS = 140
"""The width without a terminal, as in CI logs and pipes."""


def screen() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_COLUMNS)


def table(title: str) -> Table:
    """A table without borders, which can be pasted into text."""
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
