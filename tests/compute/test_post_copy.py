"""Post-copy below the line: what is done for each thing that the two sides may say, and when patience ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import pytest

from cumulet.compute import hosts as host_records
from cumulet.compute import live_migration, post_copy
from cumulet.compute.believed import NotBelieved
from cumulet.compute.live_migration_state import LiveMigration
from cumulet.conductor.saga import Context
from cumulet.host import messages as m
from cumulet.host.driver import GuestState, MigrationPhase, MigrationProgress
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.settings import Settings

PATIENCE = 10.0
ADDRESS = "192.0.2.1"
GONE = m.HostUnreachable("it is silent")
REFUSED = m.VerbFailed("it cannot")
STALE = m.StaleGeneration("another operation is later")
STATE = LiveMigration(
    server_id="s",
    operation_id="o",
    action_id=1,
    migration_id=1,
    migration_uuid="m",
    generation=2,
    source="source",
    asked_for=None,
    destination="destination",
    rest_follows=True,
)


def sent(phase: MigrationPhase, processed: int = 0) -> MigrationProgress:
    return MigrationProgress(phase=phase, memory_processed=processed)


OfSource = Callable[[float], MigrationProgress | Exception]
OfDestination = Callable[[float], MigrationPhase | Exception]
FOLLOWS, ENDED, BROKEN = (
    sent(phase) for phase in (MigrationPhase.POST_COPY, MigrationPhase.COMPLETED, MigrationPhase.FAILED)
)


class Sides:
    """A context of two hosts that answer by the clock; a question to the source takes a second, as a wait does."""

    def __init__(
        self,
        source: OfSource = lambda now: FOLLOWS,
        destination: OfDestination = lambda now: MigrationPhase.POST_COPY,
        *,
        begins: Exception | None = None,
        recorded: bool = True,
        about: str = "source",
    ) -> None:
        """`recorded`: what the database says `about` one host: that it is up, or that it is fenced. The other one is
        up, and not fenced."""
        self.now = 0.0
        self.address = ADDRESS
        """Where the destination says that it is reached."""
        self.about = about
        self.told: list[tuple[str, str]] = []
        self._source, self._destination, self._begins, self._recorded = source, destination, begins, recorded
        self.clock = self.hosts = self
        self.step = 1
        self.settings = Settings(
            state_dir=Path("/nonexistent"), database_url="", migration_progress_timeout_seconds=PATIENCE
        )

    def monotonic(self) -> float:
        return self.now

    async def send(self, host: str, message: m.Message[object], *, seconds: float | None = None) -> object:
        if isinstance(message, m.CopyProgress):
            self.now += 1.0
            return answered(self._source(self.now))
        if isinstance(message, m.AskArrival):
            return answered(self._destination(self.now))
        if isinstance(message, m.Observe):
            return GuestState.STOPPED
        self.told.append((host, type(message).__name__))
        if isinstance(message, m.BeginPostCopy) and self._begins is not None:
            raise self._begins
        if isinstance(message, m.RecoverIncoming):
            return Endpoint(address=self.address, port=1, nbd_port=None, peer=Peer(host=host, move="m", authority=""))
        return None

    async def read(self, fn: Callable[[Sides], bool]) -> bool:
        return fn(self)

    def recorded(self, host: str, otherwise: bool) -> bool:
        return self._recorded if host == self.about else otherwise

    async def record(self, fn: object) -> None:
        return None

    async def wait_for_wish(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def _records(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction in which something is read is the `Sides` themselves."""
    monkeypatch.setattr(host_records, "address_of", lambda tx, host: ADDRESS)
    monkeypatch.setattr(host_records, "is_up", lambda tx, host: tx.recorded(host, True))
    monkeypatch.setattr(host_records, "is_fenced", lambda tx, host, settings: tx.recorded(host, False))


def answered(said: object) -> object:
    if isinstance(said, Exception):
        raise said
    return said


T = TypeVar("T")
BOOTED = [("destination", "GiveUpMemory"), ("destination", "Start")]
RECOVERED = [("destination", "RecoverIncoming"), ("source", "RecoverCopy")]


def until(seconds: float, before: T, after: T) -> Callable[[float], T]:
    return lambda now: before if now < seconds else after


def received(sides: Sides) -> LiveMigration:
    return asyncio.run(post_copy.receive_rest(cast("Context", sides), STATE))


class Rest(NamedTuple):
    """What both sides say; `up`: the source is recorded so. What they are told then, and whether memory is lost."""

    source: OfSource
    destination: OfDestination
    told: list[tuple[str, str]]
    lost: bool = False
    up: bool = True


def growing(now: float) -> MigrationProgress:
    return sent(MigrationPhase.POST_COPY, int(now))


def gone(now: float) -> m.HostUnreachable:
    return GONE


def going_on(now: float) -> MigrationPhase:
    return MigrationPhase.POST_COPY


def arriving_after(seconds: float, said: MigrationPhase | Exception = MigrationPhase.POST_COPY) -> OfDestination:
    return until(seconds, said, MigrationPhase.COMPLETED)


REST = {
    "it arrives": Rest(until(9, FOLLOWS, ENDED), arriving_after(5), []),
    "it has arrived, and the source is gone": Rest(gone, arriving_after(0), [], up=False),
    "the copy has failed": Rest(until(3, FOLLOWS, BROKEN), going_on, BOOTED, lost=True),
    "the source has discarded it": Rest(lambda now: STALE, going_on, BOOTED, lost=True),
    "the destination's process has ended": Rest(growing, lambda now: MigrationPhase.NONE, BOOTED, lost=True),
    "it moves all the time": Rest(growing, arriving_after(3 * PATIENCE), []),
    "it stands still": Rest(lambda now: sent(MigrationPhase.POST_COPY, 7), arriving_after(PATIENCE + 5), RECOVERED),
    "the destination says nothing": Rest(growing, arriving_after(2, REFUSED), RECOVERED),
    "a silent source is up": Rest(gone, arriving_after(5 * PATIENCE, REFUSED), []),
    "a silent source is down, and nothing comes": Rest(gone, going_on, BOOTED, lost=True, up=False),
    "so is the connection": Rest(gone, lambda now: MigrationPhase.FAILED, BOOTED, lost=True, up=False),
}


@pytest.mark.parametrize("kind", REST)
def test_the_rest_of_the_memory_is_waited_for_fetched_or_given_up(kind: str) -> None:
    rest = REST[kind]
    sides = Sides(rest.source, rest.destination, recorded=rest.up)
    state = received(sides)
    assert sides.told == rest.told
    assert (state.memory_lost is not None) == rest.lost
    assert state.rest_follows != rest.lost


def test_a_source_that_is_down_is_waited_for_as_long_as_something_may_still_come() -> None:
    sides = Sides(lambda now: GONE, lambda now: MigrationPhase.POST_COPY, recorded=False)
    received(sides)
    assert PATIENCE < sides.now < PATIENCE + 5


class Begun(NamedTuple):
    """What the source says to the order and then of the copy; what is told after the order, or raised."""

    begins: Exception | None
    says: MigrationProgress | Exception
    then: list[tuple[str, str]] | type[Exception]
    fenced: bool = True


BEGUN = {
    "it begins": Begun(None, FOLLOWS, []),
    "it is silent": Begun(GONE, GONE, m.HostUnreachable, fenced=False),
    "it is silent and fenced": Begun(GONE, GONE, BOOTED),
    "it refuses while the copy goes on": Begun(REFUSED, FOLLOWS, m.VerbFailed),
    "it refuses, then is silent": Begun(REFUSED, GONE, m.VerbFailed),
    "it refuses, for the copy has failed": Begun(REFUSED, BROKEN, [("source", "Destroy"), *BOOTED]),
    "it has discarded the guest": Begun(STALE, STALE, [("source", "Destroy"), *BOOTED]),
}


@pytest.mark.parametrize("kind", BEGUN)
def test_a_guest_is_booted_from_its_disk_only_once_it_runs_nowhere(kind: str) -> None:
    case = BEGUN[kind]
    sides = Sides(lambda now: case.says, begins=case.begins, recorded=case.fenced)
    begun = post_copy.begin_post_copy(cast("Context", sides), STATE)
    if isinstance(case.then, list):
        state = asyncio.run(begun)
        assert sides.told == [("source", "BeginPostCopy"), *case.then]
        assert (state.memory_lost is not None) == bool(case.then)
    else:
        with pytest.raises(case.then):
            asyncio.run(begun)
        assert sides.told == [("source", "BeginPostCopy")]


@pytest.mark.parametrize("fenced", [True, False])
def test_the_source_keeps_what_a_silent_destination_may_still_fetch(
    monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    async def nothing(*args: object) -> None:
        return None

    monkeypatch.setattr("cumulet.compute.live_migration.wiring.learn_links", nothing)
    sides = Sides(destination=lambda now: GONE, recorded=fenced, about="destination")
    discarded = live_migration.discard_source(cast("Context", sides), STATE)
    if fenced:
        asyncio.run(discarded)
    else:
        with pytest.raises(m.HostUnreachable):
            asyncio.run(discarded)
    assert sides.told == ([("source", "Destroy")] if fenced else [])


def test_a_destination_that_names_another_address_is_not_believed() -> None:
    """The source would connect there."""
    sides = Sides(destination=lambda now: MigrationPhase.FAILED)
    sides.address = "192.0.2.2"
    with pytest.raises(NotBelieved, match="address"):
        received(sides)
    assert ("source", "RecoverCopy") not in sides.told
