"""The page of suites that others wrote is what its script makes of what runs have left, and says all of it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from benchmarks.suites.page import PAGE, Report, current, page, run_of_report
from benchmarks.suites.reasons import Cause, Reason, applies, known, of_failures, of_skips
from benchmarks.suites.results import KEPT, Run, keep, kept, leave, read, run_of


def test_the_page_is_what_the_script_makes(tmp_path: Path) -> None:
    assert current(), "run `make suites-page`"
    other = tmp_path / "page.md"
    other.write_text(PAGE.read_text().replace("| placement-stories |", "| placement stories |", 1))
    assert not current(KEPT, other)


def test_a_run_that_is_left_is_read_again_and_kept(tmp_path: Path) -> None:
    run = Run(
        suite="some", package="some 1", at="2026-01-02", commit="abc", passed=2, failed={"a": "x|y"}, skipped={"no": 3}
    )
    assert read(leave(run, tmp_path)) == run
    keep({"some": run}, tmp_path / "kept.json")
    assert kept(tmp_path / "kept.json") == {"some": run}
    text = page({"some": run}, [])
    assert "| some | some 1 | 2 | 1 (66.7 %) | 3 | 2 of 3 (66.7 %) | 2026-01-02 | abc |" in text
    assert "| fails | 1 | open | nobody has looked yet |" in text
    assert "| `a` | x/y |" in text  # what would be a column of the table is none
    assert "| 3 | no |" in text


def test_the_first_reason_that_fits_counts_and_what_is_not_here_does_not_apply() -> None:
    run = Run(
        suite="some",
        package="some 1",
        at="2026-01-02",
        commit="abc",
        passed=2,
        failed={"t.volume": "no", "t.other": "volume", "t.odd": "x"},
        skipped={"no volumes": 3, "no moon": 1},
    )
    volumes = Reason(match="volume", cause=Cause.ABSENT, why="no block storage")
    elsewhere = Reason(match="odd", cause=Cause.DECISION, why="no", suites=("another",))
    late = Reason(match="t.odd|t.other", cause=Cause.SUITE, why="it is wrong")
    reasons = [volumes, elsewhere, late]
    assert of_failures(run, reasons) == {volumes: 2, late: 1}
    assert of_skips(run, reasons) == {volumes: 3, None: 1}
    assert applies(run, reasons) == 3
    text = page({"some": run}, reasons)
    assert "| 2 of 3 (66.7 %) |" in text
    assert "| fails | 2 | not here | no block storage |" in text


def test_every_test_that_fails_or_is_skipped_has_a_reason_and_every_reason_such_a_test() -> None:
    runs, reasons = kept().values(), known()
    used: set[Reason | None] = set()
    for run in runs:
        used |= of_failures(run, reasons).keys() | of_skips(run, reasons).keys()
    assert None not in used, [run.suite for run in runs if None in of_failures(run, reasons) | of_skips(run, reasons)]
    assert [reason.why for reason in reasons if reason not in used] == []


def test_every_failure_counts() -> None:
    assert run_of("some", "some 1", 500, {f"t{n}": "no" for n in range(500)}, {}, 1.0).share == 50.0


def test_a_runners_report_becomes_a_run() -> None:
    tests = [
        {"id": "t.one[id-1]", "status": "passed", "seconds": 1},
        {"id": "t.two[id-2]", "status": "failed", "error": "it\n  broke"},
        {"id": "t.three", "status": "not-run"},
        {"id": "t.four", "status": "skipped", "reason": "no volumes"},
        {"id": "t.five", "status": "skipped", "reason": "no volumes"},
    ]
    report = {"suites": ["some"], "tempest": "47", "started": "2026-01-02T03:04:05", "wall_seconds": 1.6}
    run = run_of_report(msgspec.json.decode(json.dumps({**report, "results": tests}), type=Report), "abc")
    assert (run.suite, run.package, run.at, run.commit, run.seconds) == ("some", "tempest 47", "2026-01-02", "abc", 2)
    assert (run.passed, run.failed, run.skipped) == (1, {"t.two": "it broke", "t.three": ""}, {"no volumes": 2})
