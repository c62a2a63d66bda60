"""`python -m benchmarks`: measures, prints a table, writes bench.json."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import fairness, guest_networks, packets, real_guests, report, simulated, snapshots
from cumulet.cli.driver_choice import choose
from cumulet.cli.screen import screen
from cumulet.drivers.linux_network.probe import probe


def main() -> None:
    console = screen()
    choice = choose("auto", with_image=True)
    results: list[report.Result] = []

    def measured(found: Iterator[report.Result]) -> None:
        for result in found:
            console.print(f"{result.measure.title}: {result.value:.3g} {result.measure.unit}", highlight=False)
            results.append(result)

    try:
        with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as folder:
            measured(simulated.measure(Path(folder)))
            measured(fairness.measure(Path(folder)))
        problem = probe().problem
        if not problem:
            measured(packets.measure())
        else:
            console.print(f"Packets were not measured: {problem}.", highlight=False)
        if choice.driver == "qemu":
            measured(real_guests.measure())
            measured(snapshots.measure())
            if not problem:
                measured(guest_networks.measure())
        else:
            console.print(f"Real guests were not measured: {choice.why}.", highlight=False)
    finally:
        # If a benchmark fails, the results of the others are still written.
        console.print()
        report.show(console, results)
        report.write(Path("bench.json"), results)


if __name__ == "__main__":
    main()
