"""A process that is told to stop before it serves ends, whatever it waits for."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.agent import watchdog
from cumulet.agent.joining import Joined, Membership
from cumulet.clock import SystemClock
from cumulet.compute.joined_hosts import joined_hosts
from cumulet.db import schema
from cumulet.db.engine import CLOSING_SECONDS, Database
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.processes import joined_agent
from cumulet.processes.joined_agent import JoinedPlace, run_joined_agent
from cumulet.settings import Settings
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import JoinableCloud, join, joinable_cloud, membership
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
SECONDS = 15.0
"""Much longer than an end takes, and shorter than the waits that are ended."""


class Started:
    """A process and what it says, without waiting for its end."""

    def __init__(self, process: subprocess.Popen[bytes], words: Path) -> None:
        self.process = process
        self._words = words

    @property
    def said(self) -> str:
        return self._words.read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert self.process.poll() is None, self.said

    def ends(self, seconds: float = SECONDS) -> int:
        return self.process.wait(seconds)


@contextlib.contextmanager
def started(*arguments: str, url: str | None = None) -> Iterator[Started]:
    environment = os.environ if url is None else {**os.environ, "CUMULET_DATABASE": url}
    command = [sys.executable, "-m", "cumulet", *arguments]
    with (
        tempfile.NamedTemporaryFile() as words,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=words, stderr=subprocess.STDOUT, env=environment
        ) as one,
    ):
        try:
            yield Started(one, Path(words.name))
        finally:
            one.kill()


@contextlib.contextmanager
def agent_that_runs(state: Path) -> Iterator[None]:
    """This process has the lock of a host's folder, as an agent has."""
    state.mkdir(exist_ok=True)
    with open(state / watchdog.AGENT_LOCK, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        watchdog.note_agent(state)
        yield


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of one who accepts connections, and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_agent_says_which_one_has_the_folder_and_ends_when_told(
    number: signal.Signals, tmp_path: Path
) -> None:
    joined = Joined(url="https://192.0.2.1:8775", ca_fingerprint="11" * 32, name="rack1", machine="m")
    (tmp_path / "joined.json").write_bytes(msgspec.json.encode(joined))
    with agent_that_runs(tmp_path), started("agent", "--state", str(tmp_path)) as second:
        second.until(lambda: f"{tmp_path} has an agent already, process {os.getpid()}" in second.said)
        second.process.send_signal(number)
        assert second.ends() == 0, second.said


def test_an_agent_of_this_machine_that_waits_for_the_one_before_ends_with_its_parent(tmp_path: Path) -> None:
    own = [f"--{name}={tmp_path / name}" for name in ("tls", "socket", "images")]
    with (
        agent_that_runs(tmp_path / "state"),
        started("agent", "--name", "host1", "--state", str(tmp_path / "state"), *own) as second,
    ):
        assert second.process.stdin is not None
        second.process.stdin.close()
        assert second.ends() == 0, second.said


async def _driver(place: JoinedPlace, _membership: Membership, joined: Joined, _address: str) -> SimulatedDriver:
    settings = Settings(state_dir=place.state, database_url="sqlite://")
    return SimulatedDriver(name=joined.name, world=World(), clock=SystemClock(), settings=settings, directory=None)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined machines have simulated guests."""
    monkeypatch.setattr(joined_agent, "Membership", lambda state, *_, **__: membership(state))
    monkeypatch.setattr(joined_agent, "_driver", _driver)
    monkeypatch.setattr(joined_agent, "require_fit", lambda *_, **__: asyncio.sleep(0))


async def told_to_stop_once(condition: Callable[[], Awaitable[bool]], agent: Awaitable[None]) -> None:
    running = asyncio.ensure_future(agent)
    while not await condition():
        assert not running.done(), running.result()
        await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(SECONDS):
        await running


@needs_nats
@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize("away", ["bus", "door"])
def test_an_agent_that_waits_for_the_bus_or_the_door_ends_when_told(
    away: str, silent: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "rack1"

    async def story(cloud: JoinableCloud) -> None:
        machine = membership(state)
        joined = await join(machine, await cloud.invite("rack1"))
        if away == "door":
            joined = msgspec.structs.replace(joined, url=f"https://127.0.0.1:{silent}")
            (state / "joined.json").write_bytes(msgspec.json.encode(joined))

        async def waits() -> bool:
            if away == "door":
                return (state / watchdog.AGENT_LOCK).exists()
            sessions = sa.select(joined_hosts.c.session)
            return await cloud.cloud.db.read_async(lambda tx: tx.scalar(sessions)) is not None

        await told_to_stop_once(waits, run_joined_agent(JoinedPlace(state=state, wire_guests=False)))

    async def told() -> None:
        async with joinable_cloud(tmp_path / "cloud", bus=f"nats://127.0.0.1:{silent}") as cloud:
            await story(cloud)

    asyncio.run(told())


@pytest.mark.usefixtures("simulated")
def test_a_machine_that_joins_where_nobody_answers_ends_when_told(silent: int, tmp_path: Path) -> None:
    async def story() -> None:
        url = f"https://127.0.0.1:{silent}"
        state = tmp_path / "rack1"
        place = JoinedPlace(state=state, url=url, token="x" * 43, ca_fingerprint="00" * 32, wire_guests=False)

        async def waits() -> bool:
            return (tmp_path / "rack1").exists()

        await told_to_stop_once(waits, run_joined_agent(place))

    asyncio.run(story())


@pytest.mark.postgres
def test_a_cloud_that_waits_for_whoever_changes_the_schema_ends_when_told(database_url: str, tmp_path: Path) -> None:
    state, database = tmp_path / "state", Database(database_url)
    try:
        with database.engine.connect() as changes:
            changes.execute(sa.text("SELECT pg_advisory_lock(:number)"), {"number": schema.CHANGES_OF_THE_SCHEMA})
            options = ("--state", str(state), "--driver", "simulated", "--listen", "127.0.0.1:0")
            with started("up", *options, url=database_url) as cloud:
                cloud.until((state / "ca" / "ca-cert.pem").exists)
                cloud.process.terminate()
                assert cloud.ends() == 0, cloud.said
    finally:
        database.close()


@pytest.mark.postgres
def test_a_cloud_whose_database_does_not_answer_ends_when_told(database_url: str, tmp_path: Path) -> None:
    """Somebody holds a lock on what the cloud asks for again and again."""
    database = Database(database_url)
    waits = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'hosts'::regclass")
    try:
        with database.engine.connect() as locks:
            options = ("--state", str(tmp_path / "state"), "--driver", "simulated", "--listen", "127.0.0.1:0")
            with started("up", *options, url=database_url) as cloud:
                cloud.until(lambda: "ready https" in cloud.said)
                locks.execute(sa.text("LOCK TABLE hosts IN ACCESS EXCLUSIVE MODE"))
                cloud.until(lambda: bool(database.read(lambda tx: tx.scalar(waits))))
                cloud.process.terminate()
                assert cloud.ends(CLOSING_SECONDS + SECONDS) == 0, cloud.said
                assert "the database has not answered" in cloud.said
    finally:
        database.close()
