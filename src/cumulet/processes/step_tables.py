"""The step tables of all long operations as Markdown, for `docs/live-migration.md`; read off the code.

``python -m cumulet.processes.step_tables --write docs/live-migration.md`` or ``--check``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from cumulet.conductor.saga import Saga, Step, is_host_step
from cumulet.processes.parts import SAGAS

BEGIN, END = "<!-- steps: made by cumulet.processes.step_tables -->", "<!-- end of steps -->"


def table(saga: Saga[Any]) -> str:
    """The table of one saga: a row for each step, and one for the point of no return."""
    rows = ["| step | runs | undone by | the API says |", "|---|---|---|---|"]
    crossed = False
    for item in saga.plan:
        if not isinstance(item, Step) and not crossed:
            crossed = True
            if saga.steps:
                rows.append("| **point of no return** | | | |")
        undo = f"`{item.undo.__name__}`" if isinstance(item, Step) else "-"
        runs = "on a host" if is_host_step(item.do) else "in the transaction that saves it"
        rows.append(f"| `{item.name}` | {runs} | {undo} | {item.status or '-'} |")
    return "\n".join(rows)


def tables() -> str:
    return "\n\n".join(f"### {saga.name}\n\n{table(saga)}" for saga in SAGAS.values())


def renewed(page: str) -> str:
    """The page, with tables made from the code of today."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main() -> int:
    """0: written, or current; 1: out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    page = chosen.page.read_text(encoding="utf-8")
    if chosen.write:
        chosen.page.write_text(renewed(page), encoding="utf-8")
        return 0
    return 0 if renewed(page) == page else 1


if __name__ == "__main__":
    sys.exit(main())
