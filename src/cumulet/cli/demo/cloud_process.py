"""A cloud of the demo's own: `cumulet up` as a child process, in a temporary state folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class DidNotStart(Exception):
    """`cumulet up` ended, or did not serve in time; the message has its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningCloud:
    """A cloud that serves."""

    url: str
    state: Path
    clouds_file: Path
    started_in_seconds: float


@contextmanager
def running(state: Path, *, driver: str, options: tuple[str, ...] = ()) -> Iterator[RunningCloud]:
    """A cloud with two hosts on a free port, until the end of the block; then it is stopped with its guests."""
    ready_file = state.with_name("ready")
    log_file = state.with_name("cumulet-up.log")
    command = [sys.executable, "-m", "cumulet", "up", "--state", str(state), "--listen", "127.0.0.1:0"]
    command += ["--hosts", "2", "--driver", driver, "--ready-file", str(ready_file), *options]
    begun = time.monotonic()
    with open(log_file, "wb") as log:
        # A group of its own: Ctrl-C is for the demo, which then stops the cloud in good order.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
    try:
        url = _wait_until_ready(process, ready_file, log_file)
        yield RunningCloud(
            url=url, state=state, clouds_file=state / "clouds.yaml", started_in_seconds=time.monotonic() - begun
        )
    finally:
        _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], ready_file: Path, log_file: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if ready_file.exists():
            return ready_file.read_text().strip()
        if process.poll() is not None:
            raise DidNotStart(f"`cumulet up` ended with status {process.returncode}:\n{_last_words(log_file)}")
        time.sleep(0.02)
    raise DidNotStart(f"`cumulet up` did not serve within {START_SECONDS:.0f} s:\n{_last_words(log_file)}")


def _last_words(log_file: Path) -> str:
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-15:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
