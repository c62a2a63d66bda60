"""What seeds decide, and the tables that are made of what was seen; no guest is needed for either."""

from __future__ import annotations

from pathlib import Path

import msgspec

from . import crash_results
from .crash_results import AS_MUST_BE, Result
from .crash_run import PAIRS, PATIENCE_SECONDS, POST_COPY_PAIRS, Moment, Run, Victim


def test_as_many_seeds_in_a_row_as_there_are_pairs_are_each_pair_of_blow_and_moment_once() -> None:
    for first in (0, 17):
        decided = [Run.of(seed) for seed in range(first, first + len(PAIRS))]
        assert sorted((run.victim, run.moment) for run in decided) == sorted(PAIRS)
    assert {run.victim for run in decided} == set(Victim)
    assert {run.moment for run in decided} == set(Moment)
    in_post_copy = [Run.of(seed, post_copy=True) for seed in range(len(POST_COPY_PAIRS))]
    assert sorted((run.victim, run.moment) for run in in_post_copy) == sorted(POST_COPY_PAIRS)


def test_a_seed_decides_always_the_same_and_another_lap_something_else() -> None:
    first, second = (Run.of(seed) for seed in (5, 5 + len(PAIRS)))
    assert Run.of(5) == first
    assert (first.victim, first.moment) == (second.victim, second.moment)
    assert first.delay != second.delay


def test_every_other_lap_stops_processes_for_longer_than_patience() -> None:
    runs = [Run.of(seed) for seed in range(2 * len(PAIRS))]
    stopped = [run.lasts for run in runs if run.victim is Victim.SOURCE_AGENT_STOPPED]
    assert min(stopped) < PATIENCE_SECONDS < max(stopped)


def test_tables_are_made_of_the_lines_that_runs_add(tmp_path: Path) -> None:
    seen = [Result.of(Run.of(seed)) for seed in range(3)]
    for result, place in zip(seen, ("resume_guest", "undo copy_memory", "start_destination"), strict=True):
        result.victim, result.struck_at, result.struck, result.verdict = Victim.CUT, place, 2, AS_MUST_BE
    seen[1].struck = 0
    seen[2].verdict = "AssertionError: two copies"
    for n, result in enumerate(seen):
        crash_results.append(tmp_path / f"{n % 2}.jsonl", result)
    read = crash_results.read([tmp_path / "0.jsonl", tmp_path / "1.jsonl"])
    assert sorted(map(msgspec.json.encode, read)) == sorted(map(msgspec.json.encode, seen))
    table = list(crash_results.tables(read))
    assert table[:-1] == [
        "Struck at:",
        "",
        "| | start_destination | resume_guest |",
        "|---|---|---|",
        "| network cut | 1 | 1 |",
        "",
    ]
    assert table[-1].startswith("3 runs, 2 as they must be, 1 blows that found nothing to strike")
    assert "seeds [2]" in table[-1]
    assert "two copies" in "\n".join(crash_results.rows(read))
