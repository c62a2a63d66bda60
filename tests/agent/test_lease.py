"""A host that is not heard stops its own guests: its lease, its watchdog, and what its agent does without one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest

from cumulet.agent import lease, watchdog
from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.agent.watched_lease import DismissedLease, WatchedLease
from cumulet.clock import SystemClock
from cumulet.drivers.qemu import process
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host import messages as m
from cumulet.host.driver import Guest, GuestState
from cumulet.host.wiring import Router, RouterPort, Wiring
from cumulet.settings import Settings

SERVER = "11111111-2222-4333-8444-555555555555"
ENDS_SECONDS = 20.0


def left(path: Path) -> float:
    return lease.seconds_left(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lease.json"


def test_a_question_alone_gives_no_lease(file: Path) -> None:
    held = lease.Lease(lease.ExpiryFile(file), seconds=10.0)
    held.asked("a", 1, None)
    assert not held.valid


def test_what_was_heard_gives_one_from_when_it_was_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1000.0
    monkeypatch.setattr(lease, "now", lambda: at)
    held = lease.Lease(lease.ExpiryFile(file), seconds=10.0)
    held.asked("a", 1, None)
    at = 1004.0
    held.asked("a", 2, 1)
    assert left(file) == 6.0, "it counts from the answer, not from when we learned that it was heard"
    at = 1008.0
    held.asked("a", 3, 1)
    assert left(file) == 2.0, "our second answer was not heard"
    held.asked("a", 4, 2)
    assert left(file) == 6.0
    held.asked("a", 3, 1)
    assert left(file) == 6.0, "a question that comes late takes nothing away"
    at = 1014.0
    assert not held.valid
    held.asked("a", 5, 2)
    assert not held.valid, "and one that was kept back gives nothing"


def test_another_session_has_heard_nothing(file: Path) -> None:
    held = lease.Lease(lease.ExpiryFile(file), seconds=10.0)
    held.asked("a", 1, None)
    held.asked("b", 2, 1)
    assert not held.valid


def test_a_question_that_comes_again_was_answered_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1000.0
    monkeypatch.setattr(lease, "now", lambda: at)
    held = lease.Lease(lease.ExpiryFile(file), seconds=10.0)
    held.asked("a", 1, None)
    held.asked("a", 2, None)
    at = 1009.0
    for number in (1, 2):
        held.asked("a", number, None)
    held.asked("a", 3, 2)
    assert left(file) == 1.0
    held.asked("a", 4, 1)
    assert left(file) == 1.0


def test_what_an_earlier_start_of_the_agent_answered_gives_no_lease(tmp_path: Path, file: Path) -> None:
    """The question comes again, late, and this start takes it for new."""
    held = lease.Lease(lease.ExpiryFile(file), seconds=10.0)
    agent = agent_of(tmp_path, held, session="host1, start 2")

    def ask(number: int, heard: int | None, of: str) -> bool:
        asyncio.run(m.RenewLease(session="a", number=number, heard=heard, agent=of).do(agent))
        return held.valid

    assert not ask(1, None, "")
    assert not ask(2, 1, "host1, start 1")
    assert ask(3, 2, "host1, start 2")


def agent_of(state: Path, held: lease.Lease, *, session: str) -> Agent:
    settings = Settings(state_dir=state, database_url="sqlite://")
    driver = SimulatedDriver(name="host1", world=World(), clock=SystemClock(), settings=settings, directory=None)
    return Agent(name="host1", driver=driver, fence=MemoryFence(), lease=held, session=session)


def test_questions_that_come_together_renew_it_in_turn(file: Path) -> None:
    """An agent that was stopped finds several questions. Each renewal replaces the file, which must always be whole."""
    held = lease.Lease(lease.ExpiryFile(file), seconds=10.0)
    held.asked("first", 1, None)
    held.asked("first", 2, 1)
    whole: list[bool] = []

    def ask(session: int) -> None:
        for number in range(100):
            held.asked(str(session), number, number - 1)
            whole.append(left(file) > 9.0)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))
    assert all(whole)


def test_a_lease_of_another_boot_is_none(file: Path) -> None:
    file.write_bytes(msgspec.json.encode(lease.Expiry(boot_id="another", at=lease.now() + 100)))
    assert left(file) == 0.0
    file.write_bytes(b"half a fi")
    assert left(file) == 0.0


# -- the watchdog


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the note that a guest's process writes, on the host whose state folder is `tmp_path`."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as running:
        folder = tmp_path / "qemu" / "guests" / SERVER
        folder.mkdir(parents=True)
        (folder / "process.json").write_bytes(msgspec.json.encode(process.identify(running.pid)))
        yield running
        running.kill()


def give_lease(state: Path, seconds: float) -> None:
    expiry = lease.Expiry(boot_id=lease.boot_id(), at=lease.now() + seconds)
    watchdog.lease_file(state).write_bytes(msgspec.json.encode(expiry))


@pytest.mark.parametrize("stopped", [False, True])
def test_the_watchdog_kills_guests_when_the_lease_has_run_out(
    tmp_path: Path, guest: subprocess.Popen[bytes], stopped: bool
) -> None:
    give_lease(tmp_path, 1.0)
    if stopped:
        guest.send_signal(signal.SIGSTOP)
    watchdog.ensure(tmp_path)
    before = time.monotonic()
    assert guest.wait(ENDS_SECONDS) == -signal.SIGKILL
    assert time.monotonic() - before < 10.0
    assert left(watchdog.lease_file(tmp_path)) <= 0, "not a moment before"


@pytest.mark.parametrize("stopped", [False, True])
def test_the_agent_ends_with_the_lease_it_had_and_not_for_want_of_one(tmp_path: Path, stopped: bool) -> None:
    """The agent might finish a command that it got under the lease, and start a guest that runs elsewhere by then."""
    script = (
        "import fcntl, signal; from pathlib import Path; from cumulet.agent import watchdog; "
        f"state = Path({str(tmp_path)!r}); lock = open(state / watchdog.AGENT_LOCK, 'wb'); "
        "fcntl.flock(lock, fcntl.LOCK_EX); watchdog.note_agent(state); print('noted', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"noted\n"
            watchdog.ensure(tmp_path)
            if stopped:
                agent.send_signal(signal.SIGSTOP)
            give_lease(tmp_path, 1.0)
            assert agent.wait(ENDS_SECONDS) == -signal.SIGKILL
            assert left(watchdog.lease_file(tmp_path)) <= 0, "not a moment before, and not before there was one"
        finally:
            agent.kill()


def test_a_process_that_has_only_the_number_of_a_guest_is_left_alone(
    tmp_path: Path, guest: subprocess.Popen[bytes]
) -> None:
    note = tmp_path / "qemu" / "guests" / SERVER / "process.json"
    known = process.identify(guest.pid)
    assert known is not None
    note.write_bytes(msgspec.json.encode(msgspec.structs.replace(known, start_time=known.start_time - 1)))
    assert watchdog.kill_guests(tmp_path) == 0
    assert guest.poll() is None


def test_with_nothing_left_to_watch_it_ends(tmp_path: Path) -> None:
    alone = subprocess.run([sys.executable, "-m", "cumulet.agent.watchdog", str(tmp_path)], timeout=60, check=False)
    assert alone.returncode == 0
    assert not watchdog.is_watched(tmp_path)


def test_there_is_one_watchdog_for_a_host(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    give_lease(tmp_path, 5.0)
    watchdog.ensure(tmp_path)
    watchdog.ensure(tmp_path)
    assert watchdog.is_watched(tmp_path)
    give_lease(tmp_path, 0.0)
    guest.wait(ENDS_SECONDS)


# -- the agent without a lease


def test_without_a_lease_an_agent_only_ends_guests(tmp_path: Path, file: Path) -> None:
    settings = Settings(state_dir=tmp_path, database_url="sqlite://")
    driver = SimulatedDriver(name="host1", world=World(), clock=SystemClock(), settings=settings, directory=None)
    held = lease.Lease(lease.ExpiryFile(file), seconds=10.0)
    agent = Agent(name="host1", driver=driver, fence=MemoryFence(), lease=held)
    guest = Guest(server_id=SERVER, name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None)

    def command(generation: int) -> dict[str, object]:
        return {"server_id": SERVER, "operation_id": "o", "generation": generation, "step": 0}

    async def story() -> None:
        with pytest.raises(m.VerbFailed, match="LEASE_EXPIRED"):
            await agent.handle(m.Create(**command(1), guest=guest))  # type: ignore[arg-type]
        assert await agent.handle(m.Observe(server_id=SERVER)) is GuestState.ABSENT
        await agent.handle(m.RenewLease(session="a", number=1, heard=None))
        await agent.handle(m.RenewLease(session="a", number=2, heard=1))
        await agent.handle(m.Create(**command(1), guest=guest))  # type: ignore[arg-type]
        file.unlink()
        with pytest.raises(m.VerbFailed, match="LEASE_EXPIRED"):
            await agent.handle(m.Reboot(**command(1), hard=True))  # type: ignore[arg-type]
        await agent.handle(m.Destroy(**command(1)))  # type: ignore[arg-type]
        assert await agent.handle(m.Observe(server_id=SERVER)) is GuestState.ABSENT

    asyncio.run(story())


def test_without_a_lease_a_host_has_no_routers(tmp_path: Path, file: Path) -> None:
    """Another host may have them by now. The rest of the wiring is in force.

    The host says that an earlier wiring is, so that it is told this one again. What is told twice has two answers, and
    the one that counts for us may be the first.
    """
    settings = Settings(state_dir=tmp_path, database_url="sqlite://")
    driver = SimulatedDriver(name="host1", world=World(), clock=SystemClock(), settings=settings, directory=None)
    held = lease.Lease(lease.ExpiryFile(file), seconds=10.0)
    agent = Agent(name="host1", driver=driver, fence=MemoryFence(), lease=held)
    router = Router(id="r", interfaces=(RouterPort(id="p", network_id="n", mac="aa:bb:cc:dd:ee:ff", addresses=()),))

    async def told(revision: int) -> tuple[int, list[str], tuple[Router, ...]]:
        answer = await agent.handle(m.ApplyWiring(wiring=Wiring(host="host1", revision=revision, routers=(router,))))
        assert driver.network.wiring is not None
        return answer.revision, [one.subject for one in answer.not_done], driver.network.wiring.routers

    async def story() -> None:
        assert await told(1) == (1, ["r"], ())
        assert (await agent.handle(m.AskWiring())).revision == 0
        await agent.handle(m.RenewLease(session="a", number=1, heard=None))
        await agent.handle(m.RenewLease(session="a", number=2, heard=1))
        assert await told(2) == (2, [], (router,))
        assert (await agent.handle(m.AskWiring())).revision == 2
        file.unlink()
        assert (await told(1))[0] == 2, "it comes late and changes nothing"
        assert (await agent.handle(m.AskWiring())).revision == 2
        assert await told(2) == (2, ["r"], ())
        assert (await agent.handle(m.AskWiring())).revision == 1

    asyncio.run(story())


def test_a_first_lease_ends_no_guest_and_one_whose_end_was_counted_on_does(
    tmp_path: Path, guest: subprocess.Popen[bytes]
) -> None:
    first = WatchedLease(tmp_path, seconds=30.0)
    assert first.held
    assert guest.poll() is None
    give_lease(tmp_path, 0.0)
    assert guest.wait(ENDS_SECONDS) == -signal.SIGKILL
    assert not WatchedLease(tmp_path, seconds=30.0).valid, "another start of the agent gives itself none"


def test_a_host_that_has_no_lease_any_more_keeps_its_guests_once_that_is_known(
    tmp_path: Path, guest: subprocess.Popen[bytes]
) -> None:
    give_lease(tmp_path, 1.0)
    watchdog.ensure(tmp_path)
    lease = DismissedLease(tmp_path)
    assert (lease.valid, lease.held, lease.seconds) == (True, False, None)
    asyncio.run(lease.welcomed())
    assert not watchdog.is_watched(tmp_path)
    assert not watchdog.lease_file(tmp_path).exists()
    assert guest.poll() is None
    asyncio.run(lease.welcomed())  # The same for a host that never had a lease.


def test_where_no_watchdog_starts_the_lease_is_not_renewed_and_nobody_is_told_that_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = WatchedLease(tmp_path, seconds=30.0)
    assert lease.held
    os.kill(json.loads((tmp_path / watchdog.LOCK).read_bytes())["pid"], signal.SIGKILL)
    monkeypatch.setattr(watchdog, "ensure", Mock(side_effect=TimeoutError("the watchdog does not start")))
    before = left(watchdog.lease_file(tmp_path))
    lease.asked("a", 1, None)
    lease.asked("a", 2, 1)
    assert left(watchdog.lease_file(tmp_path)) <= before
    assert (lease.valid, lease.held) == (True, False)


def test_the_watchdog_is_a_process_nobody_waits_for(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    """It has a session of its own, so that a signal to the agent's session does not end it."""
    give_lease(tmp_path, 30.0)
    starter = f"from pathlib import Path; from cumulet.agent import watchdog; watchdog.ensure(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", starter], check=True, timeout=60)
    assert watchdog.is_watched(tmp_path)
    give_lease(tmp_path, 0.0)
    assert guest.wait(ENDS_SECONDS) == -signal.SIGKILL
