"""What became of crash runs: a JSON line each, and from such lines the tables of `docs/crash-runs.md`.

python -m tests.qemu.crash_results FILE...       # coverage, sums, and a row for each run
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec

from .crash_run import STEPS, Moment, Run, Victim

AS_MUST_BE = "as it must be"


class Result(msgspec.Struct, kw_only=True):
    """One run: filled while it goes on, so that one that fails says how far it came."""

    seed: int
    victim: Victim
    aimed_at: Moment
    delay_s: float
    struck_at: str = ""
    """The step that the operation's row named when the blow fell."""
    struck: int = 0
    """How many processes or links were there to be struck."""
    post_copy: bool = False
    """Whether some of the memory was to follow after the commit; it was asked for in runs that aim at it."""
    operation: str = ""
    """How the move ended: `done` or `unwound`."""
    status: str = ""
    """The server's."""
    memory_lost: bool = False
    frames: list[tuple[str, int]] = []
    """The hosts its guest's frames came from, in their order, with how many came; empty without a network."""
    settled_s: float = 0.0
    """From the request until everything agreed again."""
    took_s: float = 0.0
    verdict: str = ""
    at: str = ""
    commit: str = ""

    @classmethod
    def of(cls, run: Run) -> Result:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            seed=run.seed, victim=run.victim, aimed_at=run.moment, delay_s=round(run.delay, 3), at=now, commit=_commit()
        )

    def __str__(self) -> str:
        lost = ", its memory lost" if self.memory_lost else ""
        return (
            f"{self.victim} at {self.place}: {self.operation}, {self.status}{lost}; settled after {self.settled_s:.1f} "
            f"of {self.took_s:.1f} s: {self.verdict}"
        )

    @property
    def place(self) -> str:
        how = ", in post-copy" if self.post_copy else ""
        return f"{self.struck_at}{how}" if self.struck else f"{self.struck_at}{how} (nothing was there)"


@cache
def _commit() -> str:
    here = Path(__file__).parent
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


def append(file: Path, result: Result) -> None:
    """One line, in one write: several processes may share the file."""
    with open(file, "ab", buffering=0) as lines:
        lines.write(msgspec.json.encode(result) + b"\n")


def read(files: Sequence[Path]) -> list[Result]:
    return [msgspec.json.decode(line, type=Result) for file in files for line in file.read_bytes().splitlines()]


def _places(results: Sequence[Result]) -> list[str]:
    """The steps that were struck, in the order of a move, then of its undoing."""
    known = [*STEPS, *(f"undo {step}" for step in reversed(STEPS))]
    known.insert(known.index("copy_memory") + 1, Moment.SWITCHOVER)
    found = {result.struck_at for result in results if result.struck}
    return sorted(found, key=lambda place: (known.index(place) if place in known else len(known), place))


def tables(results: Sequence[Result]) -> Iterator[str]:
    """What was struck where: of moves in post-copy apart."""
    for post_copy, title in ((False, "Struck at"), (True, "Struck at, in post-copy")):
        if some := [result for result in results if result.post_copy is post_copy]:
            yield from (f"{title}:", "", *_coverage(some), "")
    yield summary(results)


def _coverage(results: Sequence[Result]) -> Iterator[str]:
    """A markdown table: how often each blow struck something at each step."""
    places = _places(results)
    counted = Counter((result.victim, result.struck_at) for result in results if result.struck)
    yield f"| | {' | '.join(places)} |"
    yield f"|---{'|---' * len(places)}|"
    for victim in Victim:
        if any(result.victim is victim for result in results):
            yield f"| {victim} | {' | '.join(str(counted[victim, place] or '') for place in places)} |"


def summary(results: Sequence[Result]) -> str:
    bad = sorted(result.seed for result in results if result.verdict != AS_MUST_BE)
    missed = sum(not result.struck for result in results)
    slowest = max((result.settled_s for result in results), default=0.0)
    took = sum(result.took_s for result in results)
    return (
        f"{len(results)} runs, {len(results) - len(bad)} as they must be, {missed} blows that found nothing to strike; "
        f"the slowest settled after {slowest:.1f} s, a run took {took / max(1, len(results)):.1f} s"
        + (f"; NOT as they must be: seeds {bad}" if bad else "")
    )


def rows(results: Sequence[Result]) -> Iterator[str]:
    yield "| seed | blow | struck at | the move | the server | settled after (s) | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for one in sorted(results, key=lambda result: result.seed):
        lost = ", memory lost" if one.memory_lost else ""
        yield (
            f"| {one.seed} | {one.victim} | {one.place} | {one.operation} | {one.status}{lost} | {one.settled_s:.1f} | "
            f"{one.verdict} |"
        )


if __name__ == "__main__":
    everything = read([Path(name) for name in sys.argv[1:]])
    print(*tables(everything), "", *rows(everything), sep="\n")
