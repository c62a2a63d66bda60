"""What an agent asks again and again, all agents at once where a cloud was away, costs little, and as much for many."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from cumulet.agent.joining import Membership, Unreachable
from cumulet.agent.staying_joined import LONGEST_PAUSE_SECONDS, Pauses, granted_to, keep_admitted
from cumulet.compute import joined_hosts
from cumulet.db.engine import Database
from cumulet.fleet import host_door, nats_server
from cumulet.fleet.nats_server import BusUser, UsersFile
from cumulet.host.joining import Claim, Granted, Refused
from cumulet.processes import bus
from cumulet.processes.remote_hosts import RemoteHosts
from tests.bus.nats_cloud import needs_nats, user
from tests.fleet.joined import JoinableCloud, join, membership, tell


def counted(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[str]:
    """The names of the threads in which a function of a module, of one argument, is called from now on."""
    threads: list[str] = []
    before: Callable[[object], object] = getattr(module, name)

    def calls(argument: object) -> object:
        threads.append(threading.current_thread().name)
        return before(argument)

    monkeypatch.setattr(module, name, calls)
    return threads


@needs_nats
def test_a_host_that_the_bus_knows_is_claimed_without_a_look_at_all_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(cloud: JoinableCloud) -> None:
        host, other = membership(tmp_path / "rack1"), membership(tmp_path / "rack2")
        await join(host, await cloud.invite("rack1"))
        reads = counted(monkeypatch, joined_hosts, "members")
        built = counted(monkeypatch, nats_server, "users_file_content")
        for _ in range(5):
            await host.claim("first")
        assert (reads, built) == ([], [])
        await join(other, await cloud.invite("rack2"))
        await other.claim("first")
        assert len(built) == 1, "once for the two that are known now"
        assert threading.main_thread().name not in built, "and beside the event loop"

    tell(tmp_path, story)


@needs_nats
def test_a_claim_of_a_host_that_has_joined_at_another_process_has_the_bus_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(cloud: JoinableCloud) -> None:
        host, other = membership(tmp_path / "rack1"), membership(tmp_path / "rack2")
        await join(host, await cloud.invite("rack1"))
        made = await cloud.invite("rack2")

        async def elsewhere(_: RemoteHosts) -> bool:
            return True

        with monkeypatch.context() as patched:
            patched.setattr(RemoteHosts, "_look_safely", elsewhere)
            await join(other, made)
        told = counted(monkeypatch, nats_server, "users_file_content")
        await other.claim("first")
        assert len(told) == 1

    tell(tmp_path, story)


@needs_nats
def test_a_host_has_one_claim_at_work_and_few_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it sends, there is room for others."""
    claim = RemoteHosts.claim
    works, goes_on = asyncio.Event(), asyncio.Event()
    at_work = most = 0

    async def slow(self: RemoteHosts, host: str, asked: Claim, address: str) -> Granted:
        nonlocal at_work, most
        if host == "rack1":
            at_work += 1
            most = max(most, at_work)
            works.set()
            await goes_on.wait()
            at_work -= 1
        return await claim(self, host, asked, address)

    async def story(cloud: JoinableCloud) -> None:
        host, other = membership(tmp_path / "rack1"), membership(tmp_path / "rack2")
        await join(host, await cloud.invite("rack1"))
        await join(other, await cloud.invite("rack2"))
        monkeypatch.setattr(RemoteHosts, "claim", slow)
        number = 1 + host_door.MOST_WAITING_OF_ONE
        asked = [asyncio.create_task(host.claim("first")) for _ in range(number + 1)]
        await works.wait()
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert (await other.claim("first")).bus, "others are not kept waiting"
        goes_on.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        refused = [one.refusal for one in found if isinstance(one, Refused)]
        assert [(one.code, one.again) for one in refused] == [("TRY_LATER", True)]
        assert sum(isinstance(one, Granted) for one in found) == number
        assert most == 1

    tell(tmp_path, story)


def test_a_users_file_is_built_when_members_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `cumulet bus`, which looks every second, beside its event loop."""
    members = [[user("host1")], [user("host1")], [user("host1"), user("host2")], [user("host2"), user("host1")]]
    built = counted(monkeypatch, nats_server, "users_file_content")
    rounds = iter(members)

    class Records(Database):
        def __init__(self) -> None:
            self.embedded = False

        async def read_async(self, _fn: object) -> Collection[BusUser]:  # type: ignore[override]
            return next(rounds)

    async def story() -> None:
        ended = asyncio.Event()
        monkeypatch.setattr(bus, "LOOK_SECONDS", 0.0)
        monkeypatch.setattr(bus.log, "exception", lambda _words: ended.set())
        following = asyncio.create_task(bus._follow(Records(), UsersFile(tmp_path / "users", None)))
        await ended.wait()  # There are no more members to look up.
        following.cancel()

    asyncio.run(story())
    assert len(built) == 2
    assert threading.main_thread().name not in built


class Ended(Exception):
    """Of a test that has seen enough."""


class Away:
    """A cloud that does not answer, or a bus that is cut off."""

    is_connected = False
    quiet_seconds = 0.0

    def __init__(self, problem: Exception) -> None:
        self._problem = problem

    async def claim(self, session: str) -> Granted:
        raise self._problem

    async def move_to(self, servers: object) -> None:
        raise AssertionError(servers)


AWAY = Unreachable("nobody answers")


@pytest.mark.parametrize(
    ("starts", "problem"),
    [(True, AWAY), (False, AWAY), (False, OSError(errno.EMFILE, "Too many open files"))],
    ids=["starts", "runs", "runs-without-a-descriptor-left"],
)
def test_a_cloud_that_is_away_is_asked_less_and_less_and_not_by_all_at_once(
    starts: bool, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 12:
            raise Ended

    monkeypatch.setattr(asyncio, "sleep", sleep)
    away = Away(problem)
    host: Membership = away  # type: ignore[assignment]
    with pytest.raises(Ended):
        asyncio.run(granted_to(host, "first") if starts else keep_admitted(host, away, "first"))
    assert all(LONGEST_PAUSE_SECONDS / 2 <= pause <= LONGEST_PAUSE_SECONDS for pause in paused[5:])
    assert paused[0] < 5.0
    assert len(set(paused)) == len(paused), "by chance"


def test_pauses_begin_anew_once_it_is_back() -> None:
    pauses = Pauses(2.0)
    assert [2**number <= 2 * pauses.next() <= 2 ** (number + 1) for number in range(1, 5)] == [True] * 4
    pauses.begin_anew()
    assert 1.0 <= pauses.next() <= 2.0
