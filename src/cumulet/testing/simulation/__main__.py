"""``python -m cumulet.testing.simulation``: the story of one seed, or many seeds and a line for each broken run."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import time
from pathlib import Path

from cumulet.testing.simulation.many import Block, OtherRuns, run_many, summary
from cumulet.testing.simulation.run import Outcome, run
from cumulet.testing.simulation.shrinking import shrink

PROGRESS_SECONDS = 30.0
DEFAULT_STEPS = 25


def main() -> int:
    """0: every invariant held in every run; 1: a run is broken; 2: the arguments are wrong."""
    parser = argparse.ArgumentParser(prog="python -m cumulet.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the (first) seed")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="requests and faults in a run")
    parser.add_argument("--count", type=int, help="run this many seeds and tell only of the broken ones")
    parser.add_argument("--jobs", type=int, default=2, help="processes for --count")
    parser.add_argument("--log", type=Path, help="with --count: keep results here, and go on where it stops")
    parser.add_argument("--no-shrink", action="store_true", help="tell a broken run as it was, not its shortest story")
    chosen = parser.parse_args()
    # A run has a log of its own. The product's warnings about the faults would only repeat it.
    logging.disable(logging.CRITICAL)
    if chosen.count is None:
        return _one(chosen.seed, chosen.steps, shrinking=not chosen.no_shrink)
    return _many(chosen.seed, chosen.count, chosen.steps, chosen.jobs, chosen.log)


def _one(seed: int, steps: int, *, shrinking: bool) -> int:
    outcome = run(seed, steps=steps)
    if outcome.broken is not None and shrinking:
        print(f"seed {seed} is broken: {outcome.broken}\nlooking for the shortest story ...", flush=True)
        outcome = shrink(outcome)
    print("\n".join(outcome.log))
    print(_line(outcome))
    return 1 if outcome.broken is not None else 0


def _line(outcome: Outcome) -> str:
    state = f"BROKEN: {outcome.broken}" if outcome.broken is not None else "ok"
    return (
        f"seed {outcome.seed} steps {outcome.steps} commit {commit()} log {outcome.digest}: {state} "
        f"(settled {outcome.settled_after:.2f} s after the healing, {outcome.virtual_seconds:.1f} virtual s)"
    )


def commit() -> str:
    """What is being tested: the commit, with a mark where the tree differs from it."""
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return asked.stdout.strip()


def _many(first: int, count: int, steps: int, jobs: int, log: Path | None) -> int:
    started = told = time.monotonic()
    blocks: list[Block] = []
    try:
        for block in run_many(first, count, steps, jobs, commit(), log):
            blocks.append(block)
            for broken in block.broken:
                print(f"seed {broken.seed} commit {block.commit}: BROKEN ({broken.kind}): {broken.problem}", flush=True)
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                done, wrong = sum(block.count for block in blocks), sum(len(block.broken) for block in blocks)
                seconds = told - started
                print(f"... {done} of {count} seeds, {wrong} broken, {seconds:.0f} s", file=sys.stderr, flush=True)
    except OtherRuns as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "the same command goes on" if log is not None else "with a --log they would not be lost"
        print(f"stopped after {sum(block.count for block in blocks)} seeds; {again}", file=sys.stderr)
        return 130
    print(summary(blocks))
    return 1 if any(block.broken for block in blocks) else 0


if __name__ == "__main__":
    sys.exit(main())
