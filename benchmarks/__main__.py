"""`python -m benchmarks`: measures, prints a table, writes bench.json."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks import report, simulated


def main() -> None:
    console = Console()
    results = []
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as folder:
        for result in simulated.measure(Path(folder)):
            console.print(f"{result.measure.title}: {result.value:.3g} {result.measure.unit}", highlight=False)
            results.append(result)
    console.print()
    report.show(console, results)
    report.write(Path("bench.json"), results)


if __name__ == "__main__":
    main()
