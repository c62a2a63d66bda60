"""`cumulet host clean --state` ends the guests that a host's folder knows, and nobody else."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cumulet.agent import watchdog
from cumulet.cli.program import run
from cumulet.drivers.linux_network import network
from cumulet.drivers.qemu import process


@pytest.fixture(autouse=True)
def _no_network_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests have theirs here."""

    async def removed(_namespace: str | None) -> int:
        return 2

    monkeypatch.setattr(network, "removed", removed)


@pytest.fixture
def guests(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes with the notes that guests' processes write. The last one's note is of an earlier process."""
    started = []
    try:
        for number in range(3):
            one = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
            started.append(one)
            known = process.identify(one.pid)
            assert known is not None
            if number == 2:
                known = msgspec.structs.replace(known, start_time=known.start_time - 1)
            folder = tmp_path / "qemu" / "guests" / f"00000000-0000-4000-8000-00000000000{number}"
            folder.mkdir(parents=True)
            (folder / "process.json").write_bytes(msgspec.json.encode(known))
        yield started
    finally:
        for one in started:
            one.kill()
            one.wait()


def test_guests_that_the_folder_knows_are_ended_also_stopped_ones(
    guests: list[subprocess.Popen[bytes]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guests[1].send_signal(signal.SIGSTOP)
    assert run(["host", "clean"]) == 0
    assert [one.poll() for one in guests] == [None] * 3, "without its folder, no guest is known"
    assert run(["host", "clean", "--state", str(tmp_path)]) == 0
    assert "ended 2 guests" in capsys.readouterr().out
    assert [process.identify(one.pid) for one in guests[:2]] == [None] * 2
    assert guests[2].poll() is None, "a later process with the number of a guest is somebody else's"
    assert run(["host", "clean", "--state", str(tmp_path)]) == 0
    assert "ended 0 guests" in capsys.readouterr().out


def test_guests_of_a_host_whose_agent_runs_are_left_alone(
    guests: list[subprocess.Popen[bytes]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(tmp_path / watchdog.AGENT_LOCK, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        watchdog.note_agent(tmp_path)
        assert run(["host", "clean", "--state", str(tmp_path)]) == 1
    assert f"runs (process {os.getpid()}): stop it first" in " ".join(capsys.readouterr().err.split())
    assert [one.poll() for one in guests] == [None] * 3
    assert run(["host", "clean", "--state", str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_a_guest_that_does_not_end_is_named(
    guests: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def hangs_in_the_kernel(_: object) -> bool:
        return False

    monkeypatch.setattr(process, "kill", hangs_in_the_kernel)
    assert run(["host", "clean", "--state", str(tmp_path)]) == 1
    assert f"(process {guests[0].pid}) does not end" in " ".join(capsys.readouterr().err.split())
