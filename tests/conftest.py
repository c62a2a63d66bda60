"""Of every run of the tests: where logs go is minded; with ``--refusals`` it is noted which refusals were seen."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest

from tests.refusals.recorder import Place, never_seen, record
from tests.refusals.unseen import UNSEEN

T = TypeVar("T")
LONG = ("simulation", "qemu", "fleet")
"""Folders with tests that take a minute or so: they begin first, for one that begins last keeps the others waiting.
With pytest-xdist each of the first processes begins with another of these folders."""
SEEN: set[Place] = set()
"""Also of other processes of this run."""


@pytest.fixture(autouse=True)
def _logs_go_where_they_went() -> Iterator[None]:
    """A command that runs in a test logs to the stream that pytest has put in place of standard error. If it does not
    end that log, each line of a later test fails, because the stream is closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    left = [handler for handler in root.handlers if handler not in handlers]
    for handler in left:
        root.removeHandler(handler)
    root.setLevel(level)
    assert left == [], f"logs still go to {left}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refusals",
        choices=("report", "require"),
        help="report the refusals in the source that no test of this run has seen, or fail because of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--refusals"):
        record(SEEN)


def pytest_collection_finish() -> None:
    """What was collected stays until the end, so the garbage collector need not go through it: half a million objects,
    which take a quarter of a second each time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    processes: int = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = long_ones_first(items, lambda item: item.path.parent.name, processes)


def long_ones_first(items: Sequence[T], folder: Callable[[T], str], processes: int) -> list[T]:
    """The items in the order in which they begin. `processes`: among so many `worksteal` deals them, each an equal part
    of the list, and who has done theirs takes from the end of another's."""
    heads: list[list[T]] = [[] for _ in range(processes)]
    for number, name in enumerate(LONG):
        heads[number % processes].extend(item for item in items if folder(item) == name)
    others = [item for item in items if folder(item) not in LONG]
    ordered: list[T] = []
    for number, head in enumerate(heads):
        part = (len(items) - len(ordered)) // (processes - number)
        shorts = max(0, part - len(head))
        ordered += head + others[:shorts]
        del others[:shorts]
    return ordered


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
