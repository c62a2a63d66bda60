"""A host, or a guest's process, is gone for good once a live migration has moved ownership: the move ends anyway."""

from __future__ import annotations

import pytest

from cumulet.drivers.simulated.driver import SimulatedDriver
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.link import Link
from cumulet.testing import Client, JsonObject, TestCloud
from tests.links import Way, instead

from .servers import AUTO, create_pair, host_of, last_migration, leftovers, other
from .test_evacuation import force_down


class GoneAt(Way):
    """Its host is gone for good when the first message of this kind should arrive."""

    def __init__(self, link: Link, kind: type[m.Message[object]]) -> None:
        super().__init__(link)
        self._kind = kind
        self.gone = False

    async def send(self, message: m.Message[object]) -> object:
        self.gone = self.gone or isinstance(message, self._kind)
        if self.gone:
            raise m.HostUnreachable("a test has taken this host away")
        return await super().send(message)


class LosesItsProcess(Way):
    """A guest's process ends on this host just before the guest is let run for the first time."""

    def __init__(self, link: Link, driver: SimulatedDriver) -> None:
        super().__init__(link)
        self._driver = driver
        self._lost = False

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.ResumeDestination) and not self._lost:
            self._lost = True
            self._driver._guests[message.server_id].state = GuestState.STOPPED
        return await super().send(message)


def under_way(admin: Client) -> list[JsonObject]:
    operations: list[dict[str, object]] = admin.compute("GET", "/cumulet/operations")["operations"]
    return operations


@pytest.mark.parametrize(
    ("side", "kind"), [("destination", m.ResumeDestination), ("source", m.Destroy)], ids=["destination", "source"]
)
def test_the_move_waits_until_the_host_is_known_to_be_down_and_ends_then(
    cloud: TestCloud, admin: Client, member: Client, side: str, kind: type[m.Message[object]]
) -> None:
    server = create_pair(member, networks="auto")[0]
    source = host_of(admin, server)
    host = source if side == "source" else other(source)
    with instead(cloud, host, lambda link: GoneAt(link, kind)) as going:
        assert admin.action(server, {"os-migrateLive": {"host": other(source), **AUTO}}).status == 202
        admin.wait("the host to go", lambda: going.gone)
        admin.wait("a second try", lambda: any(one["attempts"] for one in under_way(admin)))
        assert last_migration(admin, server)["status"] == "post-migrating"
        assert host_of(admin, server) == other(source)
        force_down(admin, host)
        admin.wait("the end of the move", lambda: not under_way(admin))
        assert last_migration(admin, server)["status"] == "completed"
        assert admin.server(server)["OS-EXT-STS:task_state"] is None
    force_down(admin, host, down=False)
    cloud.reconcile()
    assert leftovers(cloud, admin, server) == {
        "guests": {other(source): GuestState.RUNNING},
        "allocated": [other(source)],
        "bound": [other(source)],
    }, "what the host was owed is done when it is back after all"


def test_a_guest_that_dies_at_its_destination_is_booted_from_its_disk_and_the_record_says_so(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create_pair(member)[0]
    destination = other(host_of(admin, server))
    world = cloud.embedded.world
    assert world is not None
    with instead(cloud, destination, lambda link: LosesItsProcess(link, world.drivers[destination])):
        assert admin.action(server, {"os-migrateLive": {"host": destination, **AUTO}}).status == 202
        admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed")
    assert (host_of(admin, server), admin.server(server)["status"]) == (destination, "ACTIVE")
    record = admin.compute("GET", f"/cumulet/migrations/{last_migration(admin, server)['id']}")["migration"]
    assert record["reason"] == "MEMORY_LOST"
    assert "no process runs it" in record["details"]
