"""What many hosts say is recorded together; what cannot be recorded, or is given up, is nobody else's problem."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute import drift, host_recorder
from cumulet.compute import hosts as host_records
from cumulet.compute.heard import Known, Recorded
from cumulet.compute.host_recorder import HostRecorder, Said
from cumulet.compute.host_watch import HostWatch
from cumulet.compute.store import hosts
from cumulet.conductor.leadership import LeadsNoMore
from cumulet.db.engine import Database, Tx
from cumulet.db.reach import NoAnswer
from cumulet.settings import Settings
from cumulet.testing.clock import AdvanceableClock
from tests.api.test_compute_servers import create
from tests.compute.test_hosts_in_memory import facts_of, of_hosts

NAMES = tuple(f"host{number}" for number in range(1, 8))
MUCH = 10**30
"""No database stores such a number."""


class Writes:
    """The names that each transaction records, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[str]] = []
        write = HostRecorder._write

        def noted(recorder: HostRecorder, tx: Tx, said: list[Said]) -> list[Recorded]:
            self.seen.append([one.name for one in said])
            return write(recorder, tx, said)

        monkeypatch.setattr(HostRecorder, "_write", noted)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    return Writes(monkeypatch)


def said(database: Database, name: str, **more: object) -> Said:
    facts = facts_of(name, ("networks",), session="new", **more)
    before = database.read(lambda tx: drift.before(tx, [name]))[name]
    totals = database.read(lambda tx: host_records.recorded_totals(tx, [name]))[name]
    known = Known(cleared=True, lease_seconds=None, before=before, totals=totals)
    return Said(facts=facts, reports=[], linked=(), known=known, new=True)


def tell(folder: Path, story: Callable[[Database, HostRecorder], object], names: tuple[str, ...] = NAMES) -> None:
    settings = Settings(state_dir=folder, database_url="sqlite://", host_names=names)
    with of_hosts(folder, dict.fromkeys(names, ())) as database:
        recorder = HostRecorder(
            db=database, clock=AdvanceableClock(), settings=settings, require_lead=lambda tx: None, boot=None
        )
        asyncio.run(asyncio.wait_for(story(database, recorder), 30))  # type: ignore[arg-type]


def recorded(database: Database) -> set[str]:
    rows = database.read(lambda tx: tx.all(sa.select(hosts.c.name, hosts.c.facts)))
    return {row.name for row in rows if row.facts.get("session") == "new"}


def test_those_that_come_while_one_is_recorded_are_recorded_together(
    tmp_path: Path, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_recorder, "MOST_AT_ONCE", 4)

    async def story(database: Database, recorder: HostRecorder) -> None:
        await asyncio.gather(*(recorder.record(said(database, name)) for name in NAMES))
        assert writes.seen == [[NAMES[0]], list(NAMES[1:5]), list(NAMES[5:])] or writes.seen == [
            list(NAMES[:4]),
            list(NAMES[4:]),
        ]
        assert recorded(database) == set(NAMES)
        assert not recorder._waiting

    tell(tmp_path, story)


def test_what_cannot_be_recorded_is_its_own_host_s_problem(tmp_path: Path, writes: Writes) -> None:
    async def story(database: Database, recorder: HostRecorder) -> None:
        asked = [said(database, name, **({"memory_mib": MUCH} if name == "host3" else {})) for name in NAMES]
        ends = await asyncio.gather(*(recorder.record(one) for one in asked), return_exceptions=True)
        assert [isinstance(end, Recorded) for end in ends] == [name != "host3" for name in NAMES]
        assert recorded(database) == set(NAMES) - {"host3"}
        assert any(len(names) > 1 for names in writes.seen), "they were together"

    tell(tmp_path, story)


def test_who_says_what_cannot_be_recorded_costs_others_few_transactions(tmp_path: Path, writes: Writes) -> None:
    names = tuple(f"host{number}" for number in range(1, 65))

    async def story(database: Database, recorder: HostRecorder) -> None:
        asked = [said(database, name, **({"memory_mib": MUCH} if name == "host40" else {})) for name in names]
        ends = await asyncio.gather(*(recorder.record(one) for one in asked), return_exceptions=True)
        assert [isinstance(end, Recorded) for end in ends] == [name != "host40" for name in names]
        assert len(writes.seen) <= 2 + 2 * 6, "it is found by halves"

    tell(tmp_path, story, names)


@pytest.mark.parametrize("error", [LeadsNoMore(), NoAnswer("", None, TimeoutError())], ids=["leads no more", "away"])
def test_what_no_host_can_change_is_not_tried_again_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tries: list[int] = []

    def failing(_recorder: HostRecorder, _tx: Tx, of: list[Said]) -> list[Recorded]:
        tries.append(len(of))
        raise error

    monkeypatch.setattr(HostRecorder, "_write", failing)

    async def story(database: Database, recorder: HostRecorder) -> None:
        asked = [recorder.record(said(database, name)) for name in NAMES]
        assert await asyncio.gather(*asked, return_exceptions=True) == [error] * len(NAMES)
        assert sum(tries) == len(NAMES), "each once"
        assert not recorder._waiting

    tell(tmp_path, story)


@pytest.mark.parametrize("who", [0, 1])
def test_who_gives_up_leaves_the_others_to_record_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: int
) -> None:
    """A host that is removed while it is recorded: nobody waits for it any more."""

    async def story(database: Database, recorder: HostRecorder) -> None:
        begun, go = asyncio.Event(), asyncio.Event()
        write = Database.write_async

        async def slow(of: Database, fn: Callable[[Tx], object]) -> object:
            begun.set()
            await go.wait()
            return await write(of, fn)

        monkeypatch.setattr(Database, "write_async", slow)
        asking = [asyncio.create_task(recorder.record(said(database, name))) for name in NAMES]
        await begun.wait()
        asking[who].cancel()
        await asyncio.sleep(0)
        go.set()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        others = [end for number, end in enumerate(ends) if number != who]
        assert all(isinstance(end, Recorded) for end in others), others
        assert isinstance(ends[who], asyncio.CancelledError)
        assert recorded(database) >= {name for number, name in enumerate(NAMES) if number != who}
        assert not recorder._waiting

    tell(tmp_path, story)


def test_a_cloud_starts_again_though_a_host_says_what_cannot_be_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with cumulet.testing.cloud(hosts=3) as cloud:
        watch = cloud.embedded.conductor.reconciler(HostWatch)
        cloud.await_(watch.stop())
        world = cloud.embedded.world
        assert world is not None
        facts = world.drivers["host2"].facts

        async def hostile() -> object:
            return msgspec.structs.replace(await facts(), memory_mib=MUCH)

        monkeypatch.setattr(world.drivers["host2"], "facts", hostile)
        cloud.await_(watch.start())
        server = create(cloud.persona("member"), networks="none")
        assert cloud.persona("admin").server(server["id"])["OS-EXT-SRV-ATTR:host"] != "host2"


def test_servers_of_many_hosts_are_compared_at_a_start_with_as_many_statements_as_those_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a transaction. How many hosts share one depends on when they answer."""
    every = cast("Callable[..., object]", Tx.all)

    def statements(count: int) -> int:
        counted: Counter[Tx] = Counter()

        def noted(tx: Tx, *arguments: object) -> object:
            counted[tx] += 1
            return every(tx, *arguments)

        with cumulet.testing.cloud(hosts=count, host_silent_seconds=36_000.0) as cloud:
            member, admin = cloud.persona("member"), cloud.persona("admin")
            made = [create(member, networks="none", name=f"s{number}")["id"] for number in range(count)]
            assert len({admin.server(one)["OS-EXT-SRV-ATTR:host"] for one in made}) == count
            cloud.idle()
            watch = cloud.embedded.conductor.reconciler(HostWatch)
            cloud.await_(watch.stop())
            watch._welcomed.clear()
            with monkeypatch.context() as patched:
                patched.setattr(Tx, "all", noted)
                cloud.await_(watch.start())
            assert watch._welcomed.keys() == set(cloud.embedded.hosts.names)
        return max(counted.values())

    few, many = statements(2), statements(10)
    assert few > 5
    assert many <= few
