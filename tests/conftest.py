"""What every run of the tests does beside them: with ``--refusals`` it notes which refusals were seen."""

from __future__ import annotations

import pytest

from tests.refusals.recorder import Place, never_seen, record
from tests.refusals.unseen import UNSEEN

SEEN: set[Place] = set()
"""Also of other processes of this run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refusals",
        choices=("report", "require"),
        help="report the refusals in the source that no test of this run has seen, or fail because of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--refusals"):
        record(SEEN)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """A process of pytest-xdist has ended."""
    SEEN.update((file, line) for file, line in getattr(node, "workeroutput", {}).get("refusals", ()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["refusals"] = sorted(SEEN)
    elif session.config.getoption("--refusals") == "require" and _problems(session.config):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    problems = _problems(config)
    if problems:
        terminalreporter.section("refusals")
        for problem in problems:
            terminalreporter.write_line(problem)


def _problems(config: pytest.Config) -> list[str]:
    if not config.getoption("--refusals") or hasattr(config, "workeroutput"):
        return []
    unseen = set(never_seen(SEEN))
    return [
        *(f"no test comes through {refusal}" for refusal in sorted(unseen - UNSEEN.keys())),
        *(f"tests/refusals/unseen.py: is seen, or is gone: {refusal}" for refusal in sorted(UNSEEN.keys() - unseen)),
    ]
