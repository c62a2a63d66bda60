"""Hosts are told what their networks must be when that has changed, or when something else is in force there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.bus.in_process import InProcessLink
from cumulet.compute import descriptions, wiring
from cumulet.compute import hosts as host_records
from cumulet.compute.wiring import Wirings, wire
from cumulet.db.engine import Database, Tx
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.drivers.simulated.network import SimulatedNetwork
from cumulet.fleet.hosts import Hosts
from cumulet.host import messages as m
from cumulet.host.wiring import Network, Wiring
from cumulet.settings import Settings
from cumulet.testing.clock import AdvanceableClock
from tests.compute.test_hosts_in_memory import of_hosts
from tests.links import Way

T = TypeVar("T")
NEVER = 1e6
"""Seconds until the timer fires: longer than a test."""


class Counting(Way):
    """Counts how often its host is told."""

    told = 0

    async def send(self, message: m.Message[object]) -> Any:
        self.told += isinstance(message, m.ApplyWiring)
        return await super().send(message)


class Cloud:
    """One host, and who tells it."""

    def __init__(self, folder: Path, database: Database) -> None:
        settings = Settings(state_dir=folder, database_url="sqlite://", host_names=("host1",))
        self.clock = AdvanceableClock()
        self.database = database
        self.driver = SimulatedDriver(name="host1", world=World(), clock=self.clock, settings=settings, directory=None)
        self.way = Counting(InProcessLink(Agent(name="host1", driver=self.driver, fence=MemoryFence())))
        self.hosts = self.reached()
        self.wirings = Wirings(db=database, clock=self.clock, hosts=self.hosts)

    def reached(self) -> Hosts:
        """A way to the host as another process has one."""
        hosts = Hosts()
        hosts.add("host1", self.way)
        return hosts


async def nothing(cloud: Cloud) -> None:
    return None


async def another_process_tells_it(cloud: Cloud) -> None:
    """The other process may have read the records earlier, and be heard later. The watch asks what is in force."""
    await wire(cloud.reached(), cloud.database.read_async, cloud.clock, "host1")
    await cloud.hosts.in_force("host1")


async def its_agent_starts_anew(cloud: Cloud) -> None:
    cloud.driver.network = SimulatedNetwork()
    cloud.hosts.has_started("host1")


@pytest.mark.parametrize(
    ("meanwhile", "again"),
    [
        (nothing, False),
        (another_process_tells_it, True),
        (its_agent_starts_anew, True),
    ],
)
def test_a_host_is_told_again_when_something_else_is_in_force_there(
    tmp_path: Path, meanwhile: Callable[[Cloud], Awaitable[None]], again: bool
) -> None:
    async def story(database: Database) -> None:
        cloud = Cloud(tmp_path, database)
        await cloud.wirings.round()
        assert cloud.way.told == 1
        cloud.clock.advance(1.0)
        await meanwhile(cloud)
        before = cloud.way.told
        await cloud.wirings.round()
        assert cloud.way.told - before == again
        await cloud.wirings.round()
        assert cloud.way.told - before == again
        assert cloud.driver.network.wiring is not None

    with of_hosts(tmp_path, {"host1": ("networks",)}) as database:
        asyncio.run(story(database))


def test_who_does_not_ask_for_it_again_has_a_host_told_only_what_is_new(tmp_path: Path) -> None:
    """As the end of a move does: what `Wirings` has told since the commit is in force already."""

    async def story(database: Database) -> None:
        cloud = Cloud(tmp_path, database)

        async def told(cloud: Cloud, *, again: bool) -> int:
            before = cloud.way.told
            answer = await wire(cloud.hosts, database.read_async, cloud.clock, "host1", again=again)
            assert cloud.driver.network.wiring is not None
            assert answer.revision == cloud.driver.network.wiring.revision
            return cloud.way.told - before

        assert await told(cloud, again=False) == 1, "nobody has told it anything"
        cloud.clock.advance(1.0)
        assert await told(cloud, again=False) == 0
        assert await told(cloud, again=True) == 1
        await another_process_tells_it(cloud)
        assert await told(cloud, again=False) == 1
        at_once = (wire(cloud.hosts, database.read_async, cloud.clock, "host1", again=False) for _ in range(3))
        cloud.hosts.has_started("host1")
        before = cloud.way.told
        await asyncio.gather(*at_once)
        assert cloud.way.told - before == 1, "two waited while the first told it"

    with of_hosts(tmp_path, {"host1": ("networks",)}) as database:
        asyncio.run(story(database))


def test_a_wiring_is_read_once_to_see_whether_it_is_new_and_to_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thousands of ports that is most of what a change costs."""
    read: list[str] = []
    real = descriptions.descriptions

    def reading(tx: Tx, hosts: Collection[str]) -> dict[str, Wiring]:
        read.extend(hosts)
        return real(tx, hosts)

    monkeypatch.setattr(descriptions, "descriptions", reading)

    async def story(database: Database) -> None:
        cloud = Cloud(tmp_path, database)
        for told in (1, 1):
            read.clear()
            await cloud.wirings.round()
            assert (read, cloud.way.told) == (["host1"], told)

    with of_hosts(tmp_path, {"host1": ("networks",)}) as database:
        asyncio.run(story(database))


def test_of_two_processes_that_read_at_the_same_moment_both_learn_what_is_in_force(tmp_path: Path) -> None:
    """The same microsecond is the same revision: what the earlier one told is not taken for what the later one did."""

    async def story(database: Database) -> None:
        cloud = Cloud(tmp_path, database)
        other, now = cloud.reached(), cloud.clock.now_us()
        network = Network(
            id="seen later", kind="vxlan", vni=1, mtu=1450, dns_domain="", subnets=(), peers=(), remotes=()
        )

        async def earlier(revision: int) -> Wiring:
            return Wiring(host="host1", revision=revision)

        async def later(revision: int) -> Wiring:
            return Wiring(host="host1", revision=revision, networks=(network,))

        first = await cloud.hosts.wire("host1", earlier, now_us=now)
        second = await other.wire("host1", later, now_us=now)
        assert second.revision > first.revision == now
        in_force = cloud.driver.network.wiring
        assert in_force is not None
        assert in_force.networks == (network,)
        assert other.told("host1") == (in_force, second)
        await cloud.hosts.in_force("host1")
        assert cloud.hosts.told("host1") is None, "another process has told it something else"
        late = m.ApplyWiring(wiring=Wiring(host="host1", revision=now))
        assert (await cloud.way.send(late)).revision == second.revision

    with of_hosts(tmp_path, {"host1": ("networks",)}) as database:
        asyncio.run(story(database))


def test_nothing_is_kept_of_a_host_that_is_not_told_any_more(tmp_path: Path) -> None:
    async def story(database: Database) -> None:
        cloud = Cloud(tmp_path, database)
        await cloud.wirings.round()
        await cloud.wirings.round()
        assert cloud.wirings._heard.keys() == cloud.wirings._undone.keys() == {"host1"}
        database.write(lambda tx: host_records.set_up(tx, "host1", up=False, now_us=1))
        await cloud.wirings.round()
        assert not cloud.wirings._heard
        assert not cloud.wirings._undone

    with of_hosts(tmp_path, {"host1": ("networks",)}) as database:
        asyncio.run(story(database))


class Removed(Way):
    """Its host is removed while it answers; then one of the same name may join."""

    hosts: Hosts
    joins: bool

    async def send(self, message: m.Message[Any]) -> Any:
        answer = await super().send(message)
        self.hosts.remove("host1")
        if self.joins:
            self.hosts.add("host1", Way(self))
        return answer


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("asks", [False, True])
def test_nothing_is_kept_of_a_host_that_is_removed_while_it_answers(tmp_path: Path, joins: bool, asks: bool) -> None:
    async def story(database: Database) -> None:
        cloud = Cloud(tmp_path, database)
        way = Removed(cloud.way)
        way.hosts, way.joins = cloud.hosts, joins
        cloud.hosts.add("host1", way)
        if asks:
            await cloud.hosts.in_force("host1")
        else:
            await wire(cloud.hosts, database.read_async, cloud.clock, "host1")
        assert not cloud.hosts._revisions
        assert not cloud.hosts._in_force
        assert not cloud.hosts._told

    with of_hosts(tmp_path, {"host1": ("networks",)}) as database:
        asyncio.run(story(database))


class Stuck(Way):
    """It answers nothing that it is told, for as long as anybody waits."""

    async def send(self, message: m.Message[object]) -> Any:
        await asyncio.Event().wait()


def test_a_host_that_does_not_answer_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "SECONDS_BETWEEN", 0.01)

    async def story(database: Database) -> None:
        before = asyncio.all_tasks()
        cloud = Cloud(tmp_path, database)
        cloud.hosts.add("host2", Stuck(cloud.way))
        for told in (1, 2):
            while cloud.way.told < told:
                await cloud.wirings.round()
            cloud.clock.advance(wiring.SECONDS_UNTIL_TOLD_AGAIN)
        await cloud.wirings.stop()
        assert asyncio.all_tasks() == before, "nobody waits for the other one any more"

    with of_hosts(tmp_path, {"host1": ("networks",), "host2": ("networks",)}) as database:
        asyncio.run(asyncio.wait_for(story(database), timeout=wiring.SECONDS_UNTIL_RETRY))


def test_a_host_of_which_there_is_always_news_is_told_after_a_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cloud with very frequent commits: each comes while hosts are told of the one before."""
    takes = [0.25, 3.0, 0.0]
    rests: list[float] = []

    async def story(database: Database) -> None:
        cloud = Cloud(tmp_path, database)

        async def tell(name: str) -> None:
            cloud.wirings._again.discard(name)
            cloud.clock.advance(takes.pop(0))
            if takes:
                cloud.wirings._again.add(name)

        async def sleep(seconds: float) -> None:
            rests.append(seconds)

        monkeypatch.setattr(cloud.wirings, "_tell", tell)
        monkeypatch.setattr(cloud.clock, "sleep", sleep)
        await cloud.wirings._host("host1")

    with of_hosts(tmp_path, {}) as database:
        asyncio.run(story(database))
    assert rests == [pytest.approx(0.25, abs=0.2), wiring.SECONDS_BETWEEN]


@pytest.mark.parametrize(("comes", "rests"), [("while it is told", 1), ("afterwards", 0)])
def test_a_change_waits_only_if_it_comes_while_hosts_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: str, rests: int
) -> None:
    """So many changes are told together, and one alone at once."""
    rested: list[float] = []

    async def story(database: Database) -> None:
        cloud = Cloud(tmp_path, database)

        async def sleep(seconds: float) -> None:
            rested.append(seconds)

        async def tell(name: str) -> None:
            cloud.clock.advance(0.25)
            if comes == "while it is told":
                cloud.wirings._woken.set()

        monkeypatch.setattr(cloud.wirings, "_tell", tell)
        monkeypatch.setattr(cloud.clock, "sleep", sleep)
        await cloud.wirings.round()
        cloud.wirings._woken.set()

    with of_hosts(tmp_path, {"host1": ("networks",)}) as database:
        asyncio.run(story(database))
    assert rested == [pytest.approx(0.25, abs=0.2)] * rests


def test_hosts_that_are_told_at_once_are_read_in_one_transaction(tmp_path: Path) -> None:
    async def story(database: Database) -> None:
        transactions: list[Tx] = []

        async def read(fn: Callable[[Tx], T], /) -> T:
            def noting(tx: Tx) -> T:
                transactions.append(tx)
                return fn(tx)

            return await database.read_async(noting)

        reading = descriptions.Reading(read)
        for asked, needed in ((["host1", "host2", "host1"], 1), ([f"host{n}" for n in range(33)], 2)):
            transactions.clear()
            found = await asyncio.gather(*map(reading.of, asked))
            assert [wiring.host for wiring in found] == asked
            assert len(transactions) == needed

    with of_hosts(tmp_path, {}) as database:
        asyncio.run(story(database))


def test_a_reading_that_fails_fails_all_that_wait_for_it_and_the_next_one_is_another(tmp_path: Path) -> None:
    async def story(database: Database) -> None:
        broken = [True]

        async def read(fn: Callable[[Tx], T], /) -> T:
            if broken:
                raise LookupError("the database is away")
            return await database.read_async(fn)

        reading = descriptions.Reading(read)
        failed = await asyncio.gather(reading.of("host1"), reading.of("host2"), return_exceptions=True)
        assert [type(one) for one in failed] == [LookupError, LookupError]
        broken.clear()
        assert (await reading.of("host1")).host == "host1"
        waits = asyncio.create_task(reading.of("host2"))
        await asyncio.sleep(0)
        reading.kill()
        with pytest.raises(asyncio.CancelledError):
            await waits

    with of_hosts(tmp_path, {}) as database:
        asyncio.run(story(database))
