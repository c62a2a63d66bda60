"""What every run of the tests does beside them: with ``--every-refusal`` it notes which refusals were seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.refusals.recorder import Place, never_seen, record
from tests.refusals.unseen import UNSEEN

SEEN: set[Place] = set()
"""Also of other processes of this run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-refusal", action="store_true", help="fail when a refusal in the source was seen in no test of this run"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--every-refusal"):
        record(SEEN)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A process of pytest-xdist has ended."""
    SEEN.update((file, line) for file, line in getattr(node, "workeroutput", {}).get("refusals", ()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["refusals"] = sorted(SEEN)
    elif _problems(session.config):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    problems = _problems(config)
    if problems:
        terminalreporter.section("refusals")
        for problem in problems:
            terminalreporter.write_line(problem)


def _problems(config: pytest.Config) -> list[str]:
    if not config.getoption("--every-refusal") or hasattr(config, "workeroutput"):
        return []
    unseen = set(never_seen(SEEN))
    return [
        *(f"no test comes through {refusal}" for refusal in sorted(unseen - UNSEEN.keys())),
        *(f"tests/refusals/unseen.py: is seen, or is gone: {refusal}" for refusal in sorted(UNSEEN.keys() - unseen)),
    ]
