"""docs/tempest.md, made from docs/suites.json, docs/suite-reasons.json and what runs have left in .build.

    python -m benchmarks.suites.page [--check]

Each suite's newest run is kept. --check reads what is in docs alone and says whether the page is what it makes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.suites.reasons import Cause, Reason, applies, known, of_failures, of_skips
from benchmarks.suites.results import KEPT, LEFT, ROOT, Run, keep, kept, read

PAGE = ROOT / "docs" / "tempest.md"
FROM_RUNNERS = ROOT / ".build" / "tempest"
LONGEST_REASON = 160
HEAD = """# Suites that others wrote

<!-- Written by `make suites-page` from docs/suites.json and docs/suite-reasons.json; do not edit it by hand. -->

What suites that nobody here wrote say of Cumulet, unchanged, with simulated hosts; `compute-real` with QEMU guests,
of the tiny image, into which Tempest logs in. Each make target leaves what its run said; `make suites-page` puts it
here, with the day and the commit ("+": files differed from it; "-": it was not noted).

    make placement-stories
    make client-suites RUNNER=path SUITE="openstacksdk openstackclient"
    make tempest TEMPEST_RUN=path SUITE="compute-admin compute-api"
    make tempest-real TEMPEST_RUN=path
    make suites-page

The first needs nothing else: it gets the package from PyPI. The others are given the script that sets a suite up and
runs it (`--clouds`, `--cloud`, `--suite`, `--json`); each suite gets a fresh cloud. A test that is skipped has its
reason below, one that fails has what it said. A test applies unless it fails because of something that is not here,
such as block storage. Causes: *not here*: a service or extension that Cumulet has not; *the suite*: it fails on
upstream's own service, too; *the set-up*: the runner or the test cloud lacks what it asks for; *decided*: Cumulet does
otherwise on purpose; *open*: ours to mend. The reasons are kept by hand in docs/suite-reasons.json.
"""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A test in a runner's file."""

    id: str
    status: str
    reason: str = ""
    error: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a runner writes with --json: what is read of it."""

    suites: list[str]
    tempest: str
    started: str
    wall_seconds: float
    results: list[Outcome]
    package: str = ""
    commit: str = ""


def run_of_report(report: Report, commit: str) -> Run:
    failed = {
        _bare(test.id): _line(test.error) for test in report.results if test.status in ("failed", "not-run", "error")
    }
    skipped: dict[str, int] = {}
    for test in report.results:
        if test.status == "skipped":
            skipped[_line(test.reason)] = skipped.get(_line(test.reason), 0) + 1
    return Run(
        suite="+".join(report.suites),
        package=report.package or f"tempest {report.tempest}",
        at=report.started[:10],
        commit=commit,
        passed=sum(test.status == "passed" for test in report.results),
        failed=failed,
        skipped=skipped,
        seconds=round(report.wall_seconds),
    )


def _bare(name: str) -> str:
    return name.partition("[")[0]


def _line(text: str) -> str:
    """One line that can stand in a table."""
    words = " ".join(text.split()).replace("|", "/")
    return words if len(words) <= LONGEST_REASON else f"{words[: LONGEST_REASON - 3]}..."


def page(runs: Mapping[str, Run], reasons: Sequence[Reason]) -> str:
    head = "| suite | of | passed | failed | skipped | of those that apply | day | commit |"
    lines = [HEAD, head, "|---|---|---|---|---|---|---|---|"]
    for name in sorted(runs):
        run = runs[name]
        share = f" ({run.share:.1f} %)" if run.failed else ""
        skipped, apply = sum(run.skipped.values()), applies(run, reasons)
        applied = f"{run.passed} of {apply} ({100.0 * run.passed / apply:.1f} %)" if apply else "-"
        lines.append(
            f"| {name} | {run.package} | {run.passed} | {len(run.failed)}{share} | {skipped} | {applied} | {run.at} | "
            f"{run.commit or '-'} |"
        )
    for name in sorted(runs):
        lines += _details(runs[name], reasons)
    return "\n".join(lines) + "\n"


def _why(run: Run, reasons: Sequence[Reason]) -> list[str]:
    """The short table: how many failed or were skipped, and why."""
    lines = ["| what | how many | cause | why |", "|---|---|---|---|"]
    for what, found in (("fails", of_failures(run, reasons)), ("skipped", of_skips(run, reasons))):
        for reason, count in sorted(found.items(), key=lambda item: (-item[1], item[0].why if item[0] else "")):
            cause, why = (reason.cause, reason.why) if reason else (Cause.OPEN, "nobody has looked yet")
            lines.append(f"| {what} | {count} | {cause.value} | {why} |")
    return lines


def _details(run: Run, reasons: Sequence[Reason]) -> list[str]:
    if not run.failed and not run.skipped:
        return []
    lines = ["", f"## {run.suite}", "", *_why(run, reasons), ""]
    if run.failed:
        lines += ["| fails | what it says |", "|---|---|"]
        lines += [f"| `{test}` | {_line(why)} |" for test, why in sorted(run.failed.items())]
    if run.failed and run.skipped:
        lines.append("")
    if run.skipped:
        lines += ["| skipped | why |", "|---|---|"]
        by_count = sorted(run.skipped.items(), key=lambda item: (-item[1], item[0]))
        lines += [f"| {count} | {_line(why)} |" for why, count in by_count]
    return lines


def _fresh(runs: dict[str, Run]) -> None:
    """Take in what runs have left."""
    for path in sorted(LEFT.glob("*.json")):
        run = read(path)
        runs[run.suite] = run
    for path in sorted(FROM_RUNNERS.glob("*.json")):
        commit = path.with_suffix(".commit")
        said = commit.read_text().strip() if commit.exists() else ""
        run = run_of_report(msgspec.json.decode(path.read_bytes(), type=Report), said)
        if run.suite not in runs or run.at >= runs[run.suite].at:
            runs[run.suite] = run


def current(kept_in: Path = KEPT, at: Path = PAGE) -> bool:
    return at.read_text() == page(kept(kept_in), known())


def main() -> int:
    parser = argparse.ArgumentParser(description="the page of all suites")
    parser.add_argument("--check", action="store_true", help="say whether the page is what docs/suites.json makes")
    if parser.parse_args().check:
        return 0 if current() else 1
    runs = kept()
    _fresh(runs)
    keep(runs)
    PAGE.write_text(page(runs, known()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
