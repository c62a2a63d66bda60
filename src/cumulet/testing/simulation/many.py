"""Many runs, in blocks, in several processes. They may be stopped at any moment and continue where the log ends."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cumulet.testing.simulation.foundation import state_dir
from cumulet.testing.simulation.run import run

BLOCK = 50
"""Seeds whose results are one line of the log."""


class BrokenRun(msgspec.Struct, frozen=True, kw_only=True):
    """A seed whose run broke an invariant. `kind`: which one, in a word or two."""

    seed: int
    kind: str
    problem: str


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """The results of `count` seeds from `first` on. Times are virtual, except `cpu_seconds`."""

    commit: str
    first: int
    count: int
    steps: int
    broken: tuple[BrokenRun, ...]
    settled_after: float
    """The time of the slowest run."""
    virtual_seconds: float
    cpu_seconds: float
    counts: dict[str, int]


class OtherRuns(Exception):
    """The log is of other runs: another commit or other seeds."""


def run_many(first: int, count: int, steps: int, jobs: int, commit: str, log: Path | None) -> Iterator[Block]:
    """The blocks of these seeds; first those found in `log`. OtherRuns: the log is of other runs."""
    known = _known(log)
    for block in known:
        if (block.commit, block.steps) != (commit, steps) or (block.first - first) % BLOCK:
            raise OtherRuns(f"{log} is about commit {block.commit}, {block.steps} steps, seeds from {block.first}")
    done = {block.first for block in known}
    starts = range(first, first + count, BLOCK)
    yield from (block for block in known if block.first in starts)
    work = [(start, min(BLOCK, first + count - start), steps, commit) for start in starts if start not in done]
    for block in _blocks(work, jobs):
        if log is not None:
            with open(log, "ab") as file:
                file.write(msgspec.json.encode(block) + b"\n")
        yield block


def _known(log: Path | None) -> list[Block]:
    if log is None or not log.exists():
        return []
    # The run was killed while it wrote this line: its block is run again.
    whole = log.read_bytes().rpartition(b"\n")[0]
    log.write_bytes(whole + b"\n" if whole else b"")
    return [msgspec.json.decode(line, type=Block) for line in whole.splitlines()]


def _blocks(work: list[tuple[int, int, int, str]], jobs: int) -> Iterator[Block]:
    if jobs == 1:
        yield from map(run_block, work)
        return
    state_dir()  # Forked processes do not clean up when they end: theirs are below this one's.
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(run_block, work)


def run_block(work: tuple[int, int, int, str]) -> Block:
    """Run the seeds of a block in this process. Garbage is collected between runs only."""
    first, count, steps, commit = work
    collecting = gc.isenabled()
    gc.disable()
    began = time.process_time()
    broken: list[BrokenRun] = []
    counts: Counter[str] = Counter()
    slowest = virtual = 0.0
    for seed in range(first, first + count):
        outcome = run(seed, steps=steps)
        counts.update(outcome.counts)
        slowest = max(slowest, outcome.settled_after)
        virtual += outcome.virtual_seconds
        if outcome.broken is not None:
            broken.append(BrokenRun(seed=seed, kind=outcome.kind or "", problem=outcome.broken))
        if (seed - first) % 10 == 0:
            gc.collect()
    if collecting:
        gc.enable()
    return Block(
        commit=commit,
        first=first,
        count=count,
        steps=steps,
        broken=tuple(broken),
        settled_after=slowest,
        virtual_seconds=virtual,
        cpu_seconds=time.process_time() - began,
        counts=dict(counts),
    )


def summary(blocks: list[Block]) -> str:
    """A summary of the runs, with what they exercised."""
    seeds = sum(block.count for block in blocks)
    kinds = Counter(run.kind for block in blocks for run in block.broken)
    counts: Counter[str] = Counter()
    for block in blocks:
        counts.update(block.counts)
    virtual = sum(block.virtual_seconds for block in blocks)
    lines = [
        f"{seeds} seeds from {min(block.first for block in blocks)}, {blocks[0].steps} steps each, "
        f"commit {blocks[0].commit}: {kinds.total()} broken",
        f"  double runs {kinds['double run']}, lost guests {kinds['lost guest']}, "
        f"lost acknowledged requests {kinds['lost request']}, over capacity {kinds['over capacity']}, "
        f"wrong claims {kinds['wrong claim']}, broken groups {kinds['broken group']}, "
        f"not at rest {kinds['not at rest']}, other {_others(kinds)}",
        f"  slowest settling {max(block.settled_after for block in blocks):.2f} virtual s; "
        f"{virtual / 3600:.1f} virtual hours in {sum(block.cpu_seconds for block in blocks):.0f} CPU s",
    ]
    groups: dict[str, list[str]] = {}
    for name, number in sorted(counts.items()):
        group, _, rest = name.partition(": ")
        groups.setdefault(group, []).append(f"{rest} {number}")
    lines += [f"  {group}: {', '.join(rest)}" for group, rest in groups.items()]
    return "\n".join(lines)


def _others(kinds: Counter[str]) -> int:
    named = (
        "double run",
        "lost guest",
        "lost request",
        "over capacity",
        "wrong claim",
        "broken group",
        "not at rest",
    )
    return kinds.total() - sum(kinds[name] for name in named)
