"""How a live migration ends when one side of it says something unexpected: table by table, by what is said."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.compute import live_migration
from cumulet.compute.store import migrations, servers
from cumulet.drivers.simulated.driver import SimulatedDriver
from cumulet.host import messages as m
from cumulet.host.driver import GuestState, HostFacts, MigrationParameters, MigrationPhase
from cumulet.host.link import Link
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead

from .servers import AUTO, create_pair, event_details, force, host_of, last_migration, other, slow_server
from .test_left_waiting import unwatched

MOVE = {"os-migrateLive": {"host": None, **AUTO}}
CRASHED, SHUTDOWN, RUNNING = 6, 4, 1
"""Power states as the API numbers them."""


@pytest.fixture
def server(member: Client) -> str:
    return create_pair(member)[0]


def driver_of(cloud: TestCloud, host: str) -> SimulatedDriver:
    assert cloud.embedded.world is not None
    return cloud.embedded.world.drivers[host]


def end_of(admin: Client, server: str) -> str:
    assert admin.action(server, MOVE).status == 202
    ended = ("completed", "error")
    admin.wait("the end of the move", lambda: last_migration(admin, server)["status"] in ended)
    return str(last_migration(admin, server)["status"])


class TakesNobody(Way):
    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.PrepareIncoming):
            raise m.VerbFailed("a test asked for this failure")
        return await super().send(message)


def test_a_move_that_has_failed_keeps_its_destination_no_longer(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    servers = create_pair(member)
    server, destination = servers[0], other(host_of(admin, servers[0]))
    for moved in servers[1:]:
        assert member.compute("DELETE", f"/servers/{moved}").status == 204
    with instead(cloud, destination, TakesNobody):
        assert end_of(admin, server) == "error"
    cloud.idle()
    (service,) = admin.compute("GET", f"/os-services?host={destination}")["services"]
    answer = admin.compute("DELETE", f"/os-services/{service['id']}")
    assert (answer.status, "in-progress migrations" in answer.text) == (501, False), answer.text


class Prepared(Way):
    """Notes with which parameters a copy is awaited."""

    parameters: MigrationParameters

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.PrepareIncoming):
            self.parameters = message.parameters
        return await super().send(message)


@pytest.mark.parametrize("lacks", ["source", "destination", "none"])
def test_memory_follows_after_the_commit_only_where_both_sides_can_do_that(
    cloud: TestCloud, admin: Client, server: str, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    source = host_of(admin, server)
    destination = other(source)
    without, said = {"source": source, "destination": destination}.get(lacks), SimulatedDriver.facts

    async def facts(driver: SimulatedDriver) -> HostFacts:
        found = await said(driver)
        features = tuple(one for one in found.features if found.name != without or one != "post-copy")
        return msgspec.structs.replace(found, features=features)

    monkeypatch.setattr(SimulatedDriver, "facts", facts)
    cloud.reconcile()
    with instead(cloud, destination, Prepared) as way:
        assert end_of(admin, server) == "completed"
    assert way.parameters.post_copy == (lacks == "none")


class SaysOfArrival(Way):
    """The way to a destination that says these phases of what arrives, one after the other, the last for ever."""

    def __init__(self, link: Link, phases: Sequence[MigrationPhase | Exception]) -> None:
        super().__init__(link)
        self._phases = list(phases)

    async def send(self, message: m.Message[object]) -> object:
        if not isinstance(message, m.AskArrival):
            return await super().send(message)
        said = self._phases.pop(0) if len(self._phases) > 1 else self._phases[0]
        if isinstance(said, Exception):
            raise said
        return said


ARRIVALS: dict[str, tuple[list[MigrationPhase | Exception], str]] = {
    "at once": ([MigrationPhase.COMPLETED], ""),
    "later": ([*[MigrationPhase.ACTIVE] * 3, MigrationPhase.COMPLETED], ""),
    "never": ([MigrationPhase.ACTIVE], "NOT_ARRIVED"),
    **{str(phase): ([phase], "NOT_ARRIVED") for phase in MigrationPhase if phase.failed},
    "first on its way, then failed": ([MigrationPhase.ACTIVE, MigrationPhase.FAILED], "NOT_ARRIVED"),
    "refuses to say": ([m.VerbFailed("it is busy")], "it is busy"),
}


@pytest.mark.parametrize("kind", ARRIVALS)
def test_a_guest_belongs_to_its_destination_only_once_that_has_all_of_it(
    cloud: TestCloud, admin: Client, server: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(live_migration, "ARRIVAL_SECONDS", 0.2)
    phases, why = ARRIVALS[kind]
    source = host_of(admin, server)
    with instead(cloud, other(source), lambda link: SaysOfArrival(link, phases)):
        assert end_of(admin, server) == ("error" if why else "completed")
    assert why in event_details(admin, server)
    assert host_of(admin, server) == (source if why else other(source))
    assert cloud.guests(host_of(admin, server))[server] is GuestState.RUNNING


class CannotGoOn(Way):
    """The way to a source at which a guest is found so when it is to run on, the first `times` times."""

    def __init__(self, link: Link, driver: SimulatedDriver, state: GuestState, times: int) -> None:
        super().__init__(link)
        self._driver = driver
        self._state = state
        self._times = times
        self.told = 0

    async def send(self, message: m.Message[object]) -> object:
        self.told += isinstance(message, m.ResumeSource)
        if isinstance(message, m.ResumeSource) and self.told <= self._times:
            if self._state is GuestState.ABSENT:
                await self._driver.destroy(message.server_id)
            elif self._state is not GuestState.RUNNING:
                self._driver._guests[message.server_id].halt(self._state, self._driver._clock.now_us())
            raise m.VerbFailed("it cannot")
        return await super().send(message)


@pytest.mark.parametrize("found", [GuestState.CRASHED, GuestState.STOPPED, GuestState.ABSENT])
def test_a_guest_that_died_while_its_move_was_undone_is_stopped(
    cloud: TestCloud, admin: Client, server: str, found: GuestState
) -> None:
    source = host_of(admin, server)
    cloud.faults.fail("live-migration", step="copy_memory")
    way = instead(cloud, source, lambda link: CannotGoOn(link, driver_of(cloud, source), found, 1000))
    with unwatched(cloud), way:  # Of a guest that is gone reconcilers say, once the move has ended, that it is lost.
        assert end_of(admin, server) == "error"
        admin.wait_for_status(server, "SHUTOFF")
        assert admin.server(server)["OS-EXT-STS:power_state"] == CRASHED
    assert host_of(admin, server) == source


def test_a_guest_that_does_not_run_on_yet_is_told_again(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    with (
        instead(cloud, other(source), lambda link: SaysOfArrival(link, [MigrationPhase.FAILED])),
        instead(cloud, source, lambda link: CannotGoOn(link, driver_of(cloud, source), GuestState.RUNNING, 2)) as way,
    ):
        assert end_of(admin, server) == "error"
        assert way.told == 3
    assert admin.server(server)["status"] == "ACTIVE"
    assert cloud.guests(source)[server] is GuestState.RUNNING


class CannotResume(Way):
    """The way to a destination at which the guest is found so when it is to run, once."""

    def __init__(self, link: Link, driver: SimulatedDriver, state: GuestState) -> None:
        super().__init__(link)
        self._driver = driver
        self._state = state
        self.resumed = 0
        self.started = 0

    async def send(self, message: m.Message[object]) -> object:
        self.started += isinstance(message, m.Start)
        if isinstance(message, m.ResumeDestination):
            self.resumed += 1
            if self.resumed == 1:
                guest = self._driver._guests[message.server_id]
                if self._state is GuestState.RUNNING:
                    guest.run(self._driver._clock.now_us())
                elif self._state is not GuestState.INCOMING:
                    guest.halt(self._state, self._driver._clock.now_us())
                raise m.VerbFailed("it cannot")
        return await super().send(message)


RESUMED: dict[GuestState, tuple[int, int]] = {
    GuestState.CRASHED: (1, 1),
    GuestState.STOPPED: (1, 1),
    GuestState.RUNNING: (1, 0),
    GuestState.PAUSED: (1, 0),
    GuestState.INCOMING: (2, 0),
}
"""By the state it is found in: how often it is told to run there, and how often it is booted from its disk."""


@pytest.mark.parametrize("found", RESUMED)
def test_a_guest_that_cannot_run_at_its_destination_is_booted_there_or_told_again(
    cloud: TestCloud, admin: Client, server: str, found: GuestState
) -> None:
    source = host_of(admin, server)
    destination = other(source)
    with instead(cloud, destination, lambda link: CannotResume(link, driver_of(cloud, destination), found)) as way:
        assert end_of(admin, server) == "completed"
        assert (way.resumed, way.started) == RESUMED[found]
    assert host_of(admin, server) == destination
    record = admin.compute("GET", f"/cumulet/migrations/{last_migration(admin, server)['uuid']}")["migration"]
    assert record["reason"] == ("MEMORY_LOST" if way.started else None)
    expected = GuestState.PAUSED if found is GuestState.PAUSED else GuestState.RUNNING
    assert cloud.guests(destination)[server] is expected
    assert source not in [host for host in cloud.hosts if server in cloud.guests(host)]


class SaysOfGuest(Way):
    """The way to a host that says this of its guests' states."""

    def __init__(self, link: Link, state: GuestState) -> None:
        super().__init__(link)
        self._state = state

    async def send(self, message: m.Message[object]) -> object:
        return self._state if isinstance(message, m.Observe) else await super().send(message)


@pytest.mark.parametrize("seen", [state for state in GuestState if state is not GuestState.INCOMING])
def test_a_destination_that_does_not_have_the_guest_waiting_does_not_get_it(
    cloud: TestCloud, admin: Client, server: str, seen: GuestState
) -> None:
    source = host_of(admin, server)
    with instead(cloud, other(source), lambda link: SaysOfGuest(link, seen)):
        assert end_of(admin, server) == "error"
    assert "DESTINATION_LOST" in event_details(admin, server)
    assert (host_of(admin, server), cloud.guests(source)[server]) == (source, GuestState.RUNNING)


@pytest.mark.parametrize("forced", [True, False], ids=["forced", "by itself"])
def test_when_it_has_ended_its_record_is_whole_and_nothing_is_under_way(
    cloud: TestCloud, admin: Client, member: Client, forced: bool
) -> None:
    server = slow_server(admin, member) if forced else create_pair(member)[0]
    assert admin.action(server, MOVE).status == 202
    if forced:
        force(admin, server)
    admin.wait("the end of the move", lambda: last_migration(admin, server)["status"] == "completed")
    rows = cloud.embedded.db.read(
        lambda tx: (
            tx.first(sa.select(migrations).where(migrations.c.server_id == server)),
            tx.first(sa.select(servers).where(servers.c.id == server)),
        )
    )
    move, moved = rows
    assert move is not None
    assert moved is not None
    assert move.ended_at_us is not None
    assert (move.phase, move.memory_remaining_bytes, move.disk_remaining_bytes) == ("completed", 0, 0)
    assert move.memory_processed_bytes >= move.memory_total_bytes > 0
    assert (moved.task_state, moved.progress) == (None, 0)
    assert admin.request("GET", f"/placement/allocations/{move.uuid}")["allocations"] == {}
