"""The outside project's conftest: as many tests as asked for, spread over the time given, and what the process holds.

``TESTS``, ``SECONDS`` (0: as fast as it goes) and ``VIRTUAL_SECONDS`` are for the whole run. ``HELD`` is the file that
gets a JSON object a line: what was held before, now and then between tests, and at the end.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.testing import TestCloud

TESTS = int(os.environ["TESTS"])
SECONDS = float(os.environ["SECONDS"])
VIRTUAL_SECONDS = float(os.environ["VIRTUAL_SECONDS"])
RARELY = 50
"""A test that is marked `rare` comes in one turn of so many."""
SHOWN_EVERY = max(1, TESTS // 40)
HELD = Path(os.environ["HELD"])
STARTED = time.monotonic()
ended: list[str] = []
"""The tests that have run."""
rare: set[str] = set()
"""The tests that make a cloud of their own."""


def note(when: str) -> None:
    """Add what this process holds now to the file."""
    gc.collect()
    descriptors = [target for entry in Path("/proc/self/fd").iterdir() if (target := target_of(entry)) is not None]
    resident_kib = next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")
    )
    held = {
        "when": when,
        "tests": len(ended),
        "clouds": len(rare.intersection(ended)),
        "descriptors": sorted(descriptors),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": sum(path.is_file() for path in Path(tempfile.gettempdir()).rglob("*")),
        "mib": sum(path.stat().st_size for path in Path(tempfile.gettempdir()).rglob("*") if path.is_file()) >> 20,
        "resident_mib": resident_kib / 1024,
    }
    with open(HELD, "a") as file:
        file.write(json.dumps(held) + "\n")


def target_of(entry: Path) -> str | None:
    try:
        target = os.readlink(entry)
    except FileNotFoundError:  # that of this very listing
        return None
    return "socket" if target.startswith("socket:") else target


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rare: is not run in every turn")
    note("before")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    rare = metafunc.definition.get_closest_marker("rare") is not None
    metafunc.fixturenames.append("turn")
    metafunc.parametrize("turn", range(0, TESTS, RARELY if rare else 1))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All kinds in turns, and TESTS in all."""
    items.sort(key=turn_of)
    del items[TESTS:]
    rare.update(item.nodeid for item in items if item.get_closest_marker("rare"))


def turn_of(item: pytest.Item) -> int:
    assert isinstance(item, pytest.Function)
    turn = item.callspec.params["turn"]
    assert isinstance(turn, int)
    return turn


@pytest.fixture(autouse=True)
def passing(cloud: TestCloud) -> Iterator[None]:
    cloud.clock.advance(VIRTUAL_SECONDS / TESTS / 2)
    yield
    cloud.clock.advance(VIRTUAL_SECONDS / TESTS / 2)


def pytest_runtest_logfinish(nodeid: str) -> None:
    """After the teardown of each test."""
    ended.append(nodeid)
    if len(ended) % SHOWN_EVERY == 0:
        note("between")
    time.sleep(max(0.0, STARTED + len(ended) * SECONDS / TESTS - time.monotonic()))


def pytest_unconfigure() -> None:
    note("after")
