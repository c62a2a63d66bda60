"""The notes of processes: one that was killed is shown for an hour, and its note is deleted by the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cumulet.conductor import presence
from cumulet.db.engine import Database, opened
from cumulet.testing.clock import AdvanceableClock

HOUR_US = 3_600_000_000


@pytest.fixture
def database() -> Iterator[Database]:
    with opened("sqlite://", inline=True) as found:
        presence.processes.create(found.engine)
        yield found


def write(database: Database, name: str, heard_at_us: int, *, forget: bool = False) -> None:
    one = presence.Process(
        name=name, role="api", version="1", machine="m", bus="none", lag_ms=1, started_at_us=0, heard_at_us=heard_at_us
    )
    database.write(lambda tx: presence.note(tx, one, forget=forget))


def shown(database: Database, now_us: int) -> list[str]:
    return [one.name for one in database.read(lambda tx: presence.heard(tx, now_us))]


def test_a_process_that_was_killed_is_shown_for_an_hour_although_nothing_else_starts(database: Database) -> None:
    write(database, "killed", 10)
    write(database, "goes on", 10)
    write(database, "goes on", 10 + HOUR_US)
    assert shown(database, 10 + HOUR_US) == ["goes on", "killed"]
    assert shown(database, 11 + HOUR_US) == ["goes on"]


def test_notes_of_processes_that_were_killed_are_deleted(database: Database) -> None:
    for name, heard_at_us, forget in (("a", 0, True), ("b", 10, False), ("a", 20, False), ("c", HOUR_US + 15, True)):
        write(database, name, heard_at_us, forget=forget)
    assert shown(database, 20) == ["c", "a"]


def test_a_process_that_goes_on_deletes_them_too(database: Database) -> None:
    async def live() -> None:
        clock = AdvanceableClock()
        mine = presence.Presence(db=database, clock=clock, role="api", name="mine")
        await mine.round()
        write(database, "killed", clock.now_us())
        for seconds, left in ((3590, ["killed", "mine"]), (601, ["mine"]), (5, ["mine"])):
            clock.advance(seconds)
            await mine.round()
            assert sorted(shown(database, 0)) == left

    asyncio.run(live())
