"""Makes the story of a broken run shorter: steps are left out, larger groups first, while the run stays broken."""

from __future__ import annotations

from cumulet.testing.simulation.run import Outcome, run


def shrink(outcome: Outcome, *, tries: int = 200) -> Outcome:
    """A run of the same seed with as few steps as could be found in `tries` runs (delta debugging)."""
    kept = list(range(outcome.steps))
    best = outcome
    size = max(1, len(kept) // 2)
    while tries > 0:
        removed = False
        start = 0
        while start < len(kept) and tries > 0:
            candidate = kept[:start] + kept[start + size :]
            tries -= 1
            again = run(outcome.seed, steps=outcome.steps, only=frozenset(candidate))
            if again.broken is not None:
                kept, best, removed = candidate, again, True
            else:
                start += size
        if size == 1 and not removed:
            break
        size = max(1, size // 2) if not removed else size
    return best
