"""`cumulet` as its users run it: a process, its exit status, what it prints."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

START_SECONDS = 60
STOP_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str


@dataclass(slots=True, kw_only=True)
class Up:
    """A `cumulet up` that serves."""

    process: subprocess.Popen[str]
    ready_line: str
    url: str
    state: Path
    log: Path

    @property
    def clouds_file(self) -> Path:
        return self.state / "clouds.yaml"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def cumulet(*arguments: str, seconds: float = 60) -> Finished:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "cumulet", *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )
    return Finished(status=done.returncode, out=done.stdout, err=done.stderr)


@contextmanager
def up(state: Path, *options: str) -> Iterator[Up]:
    """`cumulet up` on a free port with simulated hosts, until the end of the block; killed if it still runs then."""
    log = state.with_name(f"{state.name}.log")
    command = [sys.executable, "-m", "cumulet", "up", "--state", str(state), "--listen", "127.0.0.1:0"]
    with open(log, "a") as err:
        process = subprocess.Popen(
            [*command, "--driver", "simulated", *options], stdout=subprocess.PIPE, stderr=err, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().rstrip("\n")
        assert line.startswith("ready "), log.read_text()
        yield Up(process=process, ready_line=line, url=line.removeprefix("ready "), state=state, log=log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One cloud for the tests of a module that only look at it."""
    with up(tmp_path_factory.mktemp("up") / "state") as cloud:
        yield cloud


@pytest.fixture
def start_up(tmp_path: Path) -> Callable[..., object]:
    """Start a cloud of the test's own, in its own folder: ``with start_up("--bare") as cloud``."""
    return lambda *options: up(tmp_path / "state", *options)
