"""What must stay is looked at more than once: while it is tried again, after a restart, past every cap."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.compute.history import History
from cumulet.conductor import carried, findings
from cumulet.conductor.saga import operations
from cumulet.drivers.simulated.driver import SimulatedDriver
from cumulet.host.driver import DriverError, GuestState
from cumulet.testing import JsonObject

from .late import Told, look_into
from .stage import SETTLED_SECONDS, Stage
from .test_late_commands import LIFE, live

CAUSE = "the disk says: Input/output error"
LOOKS = 3


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A cloud in which what fails is tried again at once."""
    monkeypatch.setattr(carried, "BACK_OFF_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(carried, "BACK_OFF_LAST_SECONDS", 0.02)
    made = Stage()
    yield made
    made.end()


def told_by_the_api(stage: Stage) -> list[JsonObject]:
    found: list[dict[str, object]] = stage.cloud.persona("admin").compute("GET", "/cumulet/operations")["operations"]
    return found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SETTLED_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_is_stuck_stays_so_with_its_cause_until_it_is_done(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deletion, whose host cannot remove the guest: tried again, restarted, and past all retention."""

    async def broken(self: SimulatedDriver, server_id: str) -> None:
        raise DriverError(CAUSE)

    server_id = stage.created()
    with monkeypatch.context() as patch:
        patch.setattr(SimulatedDriver, "destroy", broken)
        assert stage.cloud.persona("admin").compute("DELETE", f"/servers/{server_id}").status == 204
        until(lambda: any(each["stuck"] for each in told_by_the_api(stage)))

        def look() -> int:
            """It is stuck, and says why; how often it was tried."""
            (found,) = told_by_the_api(stage)
            assert (found["server_id"], found["stuck"], CAUSE in found["cause"]) == (server_id, True, True)
            assert stage.record(server_id).task_state == "deleting"
            return int(found["attempts"])

        def looked_at_through(tries: int) -> None:
            before = look()
            until(lambda: look() >= before + tries)

        assert look() >= carried.STUCK_AFTER_ATTEMPTS
        looked_at_through(LOOKS)
        for _ in range(2):
            stage.stop()
            stage.start()
            looked_at_through(LOOKS)
        settings = stage.cloud.embedded.settings
        stage.cloud.clock.advance((settings.history_days + 1) * 86_400)
        history = History(db=stage.cloud.embedded.db, clock=stage.cloud.clock, settings=settings)
        stage.cloud.await_(history.round())
        assert len(stage.read(lambda tx: tx.all(sa.select(operations).where(operations.c.ended_at_us.is_(None))))) == 1
    until(lambda: stage.unfinished() == [])
    assert stage.record(server_id).deleted_at_us is not None
    assert stage.problems() == []


def test_a_cloud_that_starts_again_still_refuses_all_that_was_said_before(stage: Stage) -> None:
    """Twice: what hosts have accepted is read, not only written."""
    world = stage.cloud.embedded.world
    assert world is not None
    told = Told(look_into(world))
    with told.listening(stage.cloud.embedded.hosts):
        server_id = stage.created()
        for action, _ in LIFE[:2]:
            assert stage.cloud.persona("admin").action(server_id, action, version="2.55").status == 202
            stage.settle()
    assert told.commands
    generation = stage.record(server_id).generation
    for _ in range(2):
        stage.stop()
        stage.start()
        world = stage.cloud.embedded.world
        assert world is not None
        again = Told(look_into(world), commands=list(told.commands))
        with again.listening(stage.cloud.embedded.hosts):
            stage.cloud.await_(again.repeat("after a restart"))
        assert again.broken == []
        record = stage.record(server_id)
        assert (record.generation, stage.cloud.guests(record.host)[server_id]) == (generation, GuestState.PAUSED)
    assert stage.problems() == []


def test_a_servers_generation_only_rises(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a whole life of one, and each time its owner changes."""
    seen: list[tuple[int, str | None]] = []
    world = stage.cloud.embedded.world
    assert world is not None
    told = Told(look_into(world))

    def note() -> None:
        (row,) = stage.read(lambda tx: tx.all(sa.text("SELECT generation, host FROM servers")))
        seen.append((row.generation, row.host))

    settle = stage.settle

    def settle_and_note() -> None:
        settle()
        note()

    monkeypatch.setattr(stage, "settle", settle_and_note)
    with told.listening(stage.cloud.embedded.hosts):
        live(stage, told)
    assert len(seen) > len(LIFE)
    for before, after in itertools.pairwise(seen):
        moved = before[1] != after[1]
        assert after[0] >= before[0] + (2 if moved else 1), (before, after)
    assert [command.generation for _, command in told.commands] == sorted(
        command.generation for _, command in told.commands
    )


def test_findings_past_their_cap_are_the_newest_and_stay_counted(stage: Stage) -> None:
    """One that comes again stays, however many others come between; what is told twice is the same."""
    again = {"host": "host1", "subject": "again"}

    def note(number: int) -> None:
        def both(tx: Any) -> None:
            findings.note(tx, "test", f"finding {number}", "done", now_us=2 * number)
            findings.note(tx, "test", "comes again", "done", now_us=2 * number + 1, **again)

        stage.cloud.embedded.db.write(both)

    most = findings.KEPT + 50
    for number in range(1, most + 1):
        note(number + 10**15)
    for _ in range(LOOKS):
        rows = [row for row in stage.read(findings.newest) if row.reconciler == "test"]
        assert len(rows) == findings.KEPT
        assert (rows[0].finding, rows[0].times) == ("comes again", most)
        expected = [f"finding {number + 10**15}" for number in range(most, most - findings.KEPT + 1, -1)]
        assert [row.finding for row in rows[1:]] == expected
    assert stage.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(findings.findings))) == findings.KEPT
