"""Limits of processor time, as ratios to a fixed piece of work that is done in the same run.

Processor time does not count who else runs. But a processor that shares its caches or its clock with others takes up to
twice the time for the same work.
"""

from __future__ import annotations

import json
import statistics
import time

USUAL_MS = 1.5
"""What the fixed work takes where the limits were written down."""
ROUNDS = 9


def is_within(took_ms: float, limit_ms: float) -> bool:
    """Whether work took no longer than it may; on a machine that is slow just now it may take longer."""
    return took_ms <= limit_ms or took_ms <= limit_ms * slowness()


def slowness() -> float:
    """How many times longer work takes here and now than usual; at least 1."""
    return max(1.0, statistics.median(_took_ms() for _ in range(ROUNDS)) / USUAL_MS)


def _took_ms() -> float:
    """Of work as the product has it: texts, dicts, calls, JSON."""
    begun = time.thread_time()
    rows = [{"id": f"{number:08x}", "name": f"server-{number}", "tags": [number, None]} for number in range(1000)]
    known = {str(row["id"]): row for row in json.loads(json.dumps(rows))}
    assert len(sorted(known.items(), key=lambda item: str(item[1]["name"]))) == len(rows)
    return (time.thread_time() - begun) * 1000
