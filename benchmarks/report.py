"""What was measured: each with its unit, the goal it is held against, and real Nova's figure on a like machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from cumulet.cli.screen import table


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What is measured. `goal` and `baseline` in `unit`; the baseline is real Nova 34's, where there is one."""

    name: str
    title: str
    unit: str
    goal: float | None
    baseline: float | None = None
    better: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True, slots=True)
class Result:
    measure: Measure
    value: float

    @property
    def reached(self) -> bool | None:
        goal = self.measure.goal
        if goal is None:
            return None
        return self.value <= goal if self.measure.better == "lower" else self.value >= goal


def show(console: Console, results: list[Result]) -> None:
    """A table of all results."""
    rows = table("Cumulet, measured on this machine")
    for name, justify in (("", "left"), ("measured", "right"), ("goal", "right"), ("real Nova", "right"), ("", "left")):
        rows.add_column(name, justify=justify)  # type: ignore[arg-type]
    for result in results:
        measure = result.measure
        sign = "<=" if measure.better == "lower" else ">="
        goal = "" if measure.goal is None else f"{sign} {measure.goal:g} {measure.unit}"
        baseline = "" if measure.baseline is None else f"{measure.baseline:g} {measure.unit}"
        verdict = {True: "[green]reached[/green]", False: "[red]missed[/red]", None: ""}[result.reached]
        rows.add_row(measure.title, f"{result.value:.3g} {measure.unit}", goal, baseline, verdict)
    console.print(rows)


def write(path: Path, results: list[Result]) -> None:
    """``{name: {value, unit, better, baseline?}}``."""
    content = {}
    for result in results:
        measure = result.measure
        entry: dict[str, object] = {"value": round(result.value, 4), "unit": measure.unit, "better": measure.better}
        if measure.baseline is not None:
            entry["baseline"] = measure.baseline
        content[measure.name] = entry
    path.write_text(json.dumps(content, indent=2) + "\n")
