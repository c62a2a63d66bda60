"""What Cumulet's driver adds to a live migration, beside a raw QMP migration of the same guest in the same run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks import flooded_moves, qemu_migration
from benchmarks.report import Measure, Result

RAW_TOTAL = Measure(name="qemu_raw_total", title="real guest, raw QMP: total time", unit="s", goal=None)
RAW_GAP = Measure(name="qemu_raw_gap", title="real guest, raw QMP: gap seen from outside", unit="ms", goal=None)
TOTAL = Measure(name="qemu_total", title="real guest, Cumulet: total time", unit="s", goal=None)
GAP = Measure(name="qemu_gap", title="real guest, Cumulet: gap seen from outside", unit="ms", goal=None)
MORE_TOTAL = Measure(name="qemu_more_total", title="what Cumulet adds to the total", unit="s", goal=0.5)
MORE_GAP = Measure(name="qemu_more_gap", title="what Cumulet adds to the gap", unit="ms", goal=20)


def measure() -> Iterator[Result]:
    """Medians over several moves each way, in turn."""
    # In a temporary folder of its own: inside ours the paths of its unix sockets would be too long.
    found = asyncio.run(qemu_migration.measure())
    yield Result(RAW_TOTAL, found.raw_total_s)
    yield Result(RAW_GAP, found.raw_gap_ms)
    yield Result(TOTAL, found.driver_total_s)
    yield Result(GAP, found.driver_gap_ms)
    yield Result(MORE_TOTAL, found.more_total_s)
    yield Result(MORE_GAP, found.more_gap_ms)
    yield from flooded_moves.measure()
