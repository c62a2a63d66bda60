"""A guest that an earlier move left waiting on the host that owns it; the next operation comes before the reconciler.

The earlier move ended while that host was recorded down, so nobody could tell it to let the guest run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from cumulet.compute import hosts as host_records
from cumulet.drivers.simulated.driver import SimulatedDriver
from cumulet.host import messages as m
from cumulet.host.driver import DriverError, GuestState, MigrationParameters, MigrationPhase
from cumulet.testing import Answer, Client, TestCloud
from cumulet.testing.moving import prepared
from tests.links import Way, instead

from .servers import AUTO, create_pair, host_of, last_migration, leftovers, other

PARAMETERS = MigrationParameters(bandwidth_mib_s=1000, downtime_limit_ms=300, copy_disk=True)


class TellsNothing(Way):
    """Nobody learns what this host's guests do."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.AskGuests):
            raise m.HostUnreachable("a test has cut this question off")
        return await super().send(message)


@contextlib.contextmanager
def unwatched(cloud: TestCloud) -> Iterator[None]:
    """No reconciler learns what guests do, not even one that has asked already. It would remove what arrives."""
    with contextlib.ExitStack() as hosts:
        for host in cloud.hosts:
            hosts.enter_context(instead(cloud, host, TellsNothing))
        cloud.await_(cloud.end_of_looks())
        yield


async def hand_over(source: SimulatedDriver, destination: SimulatedDriver, server_id: str) -> None:
    """All of a move but its end: the guest stands handed over on one side, and has arrived on the other."""
    guest = source._guests[server_id].guest
    endpoint = await prepared(source, destination, guest, PARAMETERS)
    await source.start_copy(server_id, endpoint, PARAMETERS)
    phase = MigrationPhase.ACTIVE
    while not phase.ended:
        phase = (await source.copy_progress(server_id, wait_seconds=1.0, seen=phase)).phase
    assert phase is MigrationPhase.COMPLETED


async def left_handed_over(here: SimulatedDriver, there: SimulatedDriver, server_id: str) -> None:
    await hand_over(here, there, server_id)
    await there.destroy(server_id)


async def left_arrived(here: SimulatedDriver, there: SimulatedDriver, server_id: str) -> None:
    await hand_over(here, there, server_id)
    await there.resume_destination(server_id)
    await here.destroy(server_id)
    await hand_over(there, here, server_id)
    await there.destroy(server_id)


NEXT: dict[str, dict[str, object]] = {
    "cold migration": {"migrate": {"host": None}},
    "live migration": {"os-migrateLive": {"host": None, **AUTO}},
}


@pytest.mark.parametrize("action", NEXT)
@pytest.mark.parametrize(
    ("leave", "state"), [(left_handed_over, GuestState.HANDED_OVER), (left_arrived, GuestState.INCOMING)]
)
def test_an_operation_that_cannot_be_done_lets_it_run(
    cloud: TestCloud, admin: Client, member: Client, leave: Any, state: GuestState, action: str
) -> None:
    server_id = create_pair(member)[0]
    source = host_of(admin, server_id)
    world = cloud.embedded.world
    assert world is not None
    here, there = world.drivers[source], world.drivers[other(source)]
    with unwatched(cloud):
        cloud.await_(leave(here, there, server_id))
        assert cloud.await_(here.observe(server_id)) is state
        assert admin.action(server_id, NEXT[action]).status == 202
        admin.wait("the end of the move", lambda: last_migration(admin, server_id)["status"] == "error")
        assert cloud.await_(here.observe(server_id)) is GuestState.RUNNING
        assert admin.server(server_id)["status"] == "ACTIVE"
    assert leftovers(cloud, admin, server_id) == {
        "guests": {source: GuestState.RUNNING},
        "allocated": [source],
        "bound": [],
    }
    assert admin.action(server_id, {"os-migrateLive": {"host": other(source), **AUTO}}).status == 202
    admin.wait("another move", lambda: last_migration(admin, server_id)["status"] == "completed")


def attach(admin: Client, server_id: str) -> Answer:
    return admin.compute("POST", f"/servers/{server_id}/os-interface", {})


def detach(admin: Client, server_id: str) -> Answer:
    (port,) = admin.compute("GET", f"/servers/{server_id}/os-interface")["interfaceAttachments"]
    return admin.compute("DELETE", f"/servers/{server_id}/os-interface/{port['port_id']}")


ASK: dict[str, Callable[[Client, str], Answer]] = {
    "shelve": lambda admin, server_id: admin.action(server_id, {"shelve": None}),
    "rescue": lambda admin, server_id: admin.action(server_id, {"rescue": None}),
    "attach": attach,
    "detach": detach,
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
@pytest.mark.parametrize("leave", [left_handed_over, left_arrived])
def test_what_else_cannot_be_done_ends_and_it_runs_as_it_was(
    cloud: TestCloud, admin: Client, member: Client, leave: Any, ask: Callable[[Client, str], Answer]
) -> None:
    """Such an operation was once tried for ever, while the reconciler waited for its end."""
    server_id = create_pair(member, networks="auto")[0]
    source = host_of(admin, server_id)
    world = cloud.embedded.world
    assert world is not None
    here, there = world.drivers[source], world.drivers[other(source)]
    actions = f"/servers/{server_id}/os-instance-actions"
    with unwatched(cloud):
        cloud.await_(leave(here, there, server_id))
        assert ask(admin, server_id).status in (200, 202)
        admin.wait("its end", lambda: admin.compute("GET", actions)["instanceActions"][0]["message"] == "Error")
    cloud.reconcile()
    admin.wait("the guest", lambda: cloud.await_(here.observe(server_id)) is GuestState.RUNNING)
    assert admin.server(server_id)["status"] == "ACTIVE"
    assert len(admin.compute("GET", f"/servers/{server_id}/os-interface")["interfaceAttachments"]) == 1
    assert len(here._guests[server_id].guest.nics) == 1
    assert admin.action(server_id, {"os-stop": None}).status == 202
    admin.wait_for_status(server_id, "SHUTOFF")


def test_a_copy_that_no_move_needs_is_ended(cloud: TestCloud, admin: Client, member: Client) -> None:
    """Its host was down when the move was undone. Until it ends, the guest's power and devices cannot be changed."""
    server_id = create_pair(member)[0]
    source = host_of(admin, server_id)
    world = cloud.embedded.world
    assert world is not None
    here, there = world.drivers[source], world.drivers[other(source)]

    async def begin() -> None:
        slow = msgspec.structs.replace(PARAMETERS, bandwidth_mib_s=1)
        endpoint = await prepared(here, there, here._guests[server_id].guest, slow)
        await here.start_copy(server_id, endpoint, slow)

    with unwatched(cloud):
        cloud.await_(begin())
    with pytest.raises(DriverError, match="one side of a migration"):
        cloud.await_(here.stop(server_id, grace_seconds=0))
    cloud.reconcile()
    assert cloud.await_(here.observe(server_id)) is GuestState.RUNNING
    assert [report.copied for report in cloud.await_(here.guests())] == [False] * len(cloud.await_(here.guests()))
    assert admin.action(server_id, {"os-stop": None}).status == 202
    admin.wait_for_status(server_id, "SHUTOFF")


class DownForAMoment(Way):
    """It is silent, and recorded down, when a guest that stands by is to stand down; then it is back."""

    cloud: TestCloud
    name = ""
    missed = 0

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.StandDown) and not self.missed:
            self.missed += 1
            self._recorded(up=False)
            raise m.HostUnreachable("a test has taken this host away")
        self._recorded(up=True)
        return await super().send(message)

    def _recorded(self, *, up: bool) -> None:
        now_us = self.cloud.clock.now_us()
        self.cloud.embedded.db.write(lambda tx: host_records.set_up(tx, self.name, up=up, now_us=now_us))


class TakesNobody(Way):
    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.PrepareIncoming):
            raise m.VerbFailed("a test asked for this failure")
        return await super().send(message)


def test_one_that_stands_by_stands_down_once_its_host_is_back(cloud: TestCloud, admin: Client, member: Client) -> None:
    """Nothing else would end that: it is stopped by its record, and has to stay so."""
    server_id = create_pair(member)[0]
    source = host_of(admin, server_id)
    world = cloud.embedded.world
    assert world is not None
    assert member.action(server_id, {"os-stop": None}).status == 202
    member.wait_for_status(server_id, "SHUTOFF")
    with unwatched(cloud), instead(cloud, source, DownForAMoment) as way, instead(cloud, other(source), TakesNobody):
        way.cloud, way.name = cloud, source
        assert admin.action(server_id, {"migrate": {"host": None}}).status == 202
        admin.wait("the end of the move", lambda: last_migration(admin, server_id)["status"] == "error")
        assert way.missed
        assert cloud.await_(world.drivers[source].observe(server_id)) is GuestState.STOPPED
