"""Why tests of suites that others wrote fail or are skipped: docs/suite-reasons.json, by what tests say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from benchmarks.suites.results import ROOT, Run

REASONS = ROOT / "docs" / "suite-reasons.json"


class Cause(StrEnum):
    ABSENT = "not here"
    """It needs a service, or a kind of hardware, that this cloud has not."""
    SUITE = "the suite"
    """It fails on upstream's own service, too, set up the same way."""
    SET_UP = "the set-up"
    """The runner, or the test cloud, lacks what it asks for."""
    DECISION = "decided"
    """Cumulet does otherwise on purpose."""
    OPEN = "open"
    """It is ours to mend."""


class Reason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tests of one kind. `match`: a pattern (search) of ``test: what it says`` of one that fails, or of what one says
    that is skipped. `suites`: only in these; none: in all."""

    match: str
    cause: Cause
    why: str
    suites: tuple[str, ...] = ()

    def fits(self, suite: str, text: str) -> bool:
        return (not self.suites or suite in self.suites) and re.search(self.match, text) is not None


def known(path: Path = REASONS) -> list[Reason]:
    """The reasons in their order: the first that fits counts."""
    return msgspec.json.decode(path.read_bytes(), type=list[Reason])


def of_failures(run: Run, reasons: Sequence[Reason]) -> dict[Reason | None, int]:
    """How many tests failed for each reason. None: it is not known."""
    return _counted(run.suite, {f"{test}: {said}": 1 for test, said in run.failed.items()}, reasons)


def of_skips(run: Run, reasons: Sequence[Reason]) -> dict[Reason | None, int]:
    """The same for tests that were skipped."""
    return _counted(run.suite, run.skipped, reasons)


def _counted(suite: str, texts: Mapping[str, int], reasons: Sequence[Reason]) -> dict[Reason | None, int]:
    found: dict[Reason | None, int] = {}
    for text, count in texts.items():
        reason = next((each for each in reasons if each.fits(suite, text)), None)
        found[reason] = found.get(reason, 0) + count
    return found


def applies(run: Run, reasons: Sequence[Reason]) -> int:
    """Of the tests that ran, those that need nothing which is not here."""
    absent = sum(n for why, n in of_failures(run, reasons).items() if why is not None and why.cause is Cause.ABSENT)
    return run.passed + len(run.failed) - absent
