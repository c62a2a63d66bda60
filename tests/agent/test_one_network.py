"""One agent at most makes the network of a network namespace; another is told so and changes nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.cli.program import run
from cumulet.drivers.linux_network import alone as locks
from cumulet.drivers.linux_network import network
from cumulet.drivers.linux_network.alone import NotAlone, alone
from cumulet.drivers.qemu import fit
from cumulet.fleet.local_agents import AgentPlace
from cumulet.processes import agent
from tests.fleet.test_unfit_machines import FACTS

HOLD = """
import sys, time
from pathlib import Path
from cumulet.drivers.linux_network import alone
alone.FOLDER = Path(sys.argv[1])
with alone.alone("the agent of rack1"):
    print("has it", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of locks: others run tests on this machine."""
    monkeypatch.setattr(locks, "FOLDER", tmp_path / "networks")
    return tmp_path / "networks"


@pytest.fixture
def other(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that makes this network."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"has it\n"
        yield process
        process.kill()


def test_a_second_one_is_told_who_has_it_until_that_one_ends_however_it_does(
    folder: Path, other: subprocess.Popen[bytes]
) -> None:
    for _ in range(2):
        with pytest.raises(NotAlone, match=rf"in use by the agent of rack1 \(process {other.pid}\)"), alone("me"):
            pass
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with alone("me"), pytest.raises(NotAlone, match=rf"in use by me \(process {os.getpid()}\)"), alone("again"):
        pass
    assert list(folder.iterdir()) == []


def test_another_namespace_is_another_network(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    (tmp_path / "namespace").touch()
    with alone("me", tmp_path / "namespace"):
        pass


def test_a_lock_that_went_while_it_was_waited_for_counts_for_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = locks.fcntl.flock  # type: ignore[attr-defined]
    times: list[int] = []

    def late(lock: int, how: int) -> None:
        if not times:
            next(folder.iterdir()).unlink()  # By who had it.
        times.append(lock)
        taken(lock, how)

    monkeypatch.setattr("fcntl.flock", late)
    with alone("me"):
        assert len(times) == 2
        assert len(list(folder.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root wires no guests")
def test_a_machine_that_is_a_host_does_not_join_as_a_second_one_and_its_token_stays_good(
    other: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def probe() -> object:
        return FACTS

    monkeypatch.setattr(fit, "probe", probe)
    url = "https://127.0.0.1:1"  # If it were asked, nothing would answer.
    command = ["agent", "--join", url, "--token", "x" * 43, "--ca-fingerprint", "00" * 32]
    assert run([*command, "--state", str(tmp_path / "second")]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert "in use by the agent of rack1" in said[0]
    assert not (tmp_path / "second").exists()
    assert run([*command, "--state", str(tmp_path / "second"), "--no-networks"]) == 1
    assert "nothing answers" in capsys.readouterr().err


def test_an_agent_of_the_clouds_own_machine_is_kept_out_too_unless_it_makes_no_network(
    other: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Went(Exception):
        """It went on."""

    async def goes_on(*_: object) -> None:
        raise Went

    monkeypatch.setattr(agent, "_parent_ended", asyncio.Event)
    monkeypatch.setattr(agent, "lease_of", goes_on)
    bare = AgentPlace(name="host1", state=tmp_path, tls=tmp_path, socket=tmp_path / "s", images=tmp_path / "i")
    with pytest.raises(SystemExit, match="host1: this machine's network is in use by the agent of rack1"):
        asyncio.run(agent.run_agent(dataclasses.replace(bare, network_namespace="its")))
    with pytest.raises(Went):
        asyncio.run(agent.run_agent(bare))


def test_the_network_of_a_host_whose_agent_runs_is_not_cleaned(
    other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def enter(_namespace: str | None) -> None:
        raise AssertionError("it is removed")

    monkeypatch.setattr(network, "_enter", enter)
    assert run(["host", "clean"]) == 1
    assert "in use by the agent of rack1" in " ".join(capsys.readouterr().err.split())


def test_who_may_not_lock_it_says_so(folder: Path) -> None:
    folder.touch()
    with pytest.raises(NotAlone, match="cannot be locked"), alone("me"):
        pass
