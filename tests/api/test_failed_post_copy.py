"""Between the commit and post-copy the copy fails, and the source's hypervisor lets the guest run on by itself."""

from __future__ import annotations

import pytest

import cumulet.testing
from cumulet.drivers.simulated.driver import SimulatedDriver
from cumulet.host import messages as m
from cumulet.host.driver import GuestState, MigrationPhase
from cumulet.host.link import Link
from tests.links import Way, instead

from .servers import AUTO, force, host_of, last_migration, leftovers, other, slow_server
from .test_gone_for_good import under_way


class FailsAtTheSwitch(Way):
    """The way to a source whose copy fails once it is told to let go. `silent_after`: it does not answer afterwards."""

    def __init__(self, link: Link, driver: SimulatedDriver, *, silent_after: bool) -> None:
        super().__init__(link)
        self._driver = driver
        self._silent_after = silent_after
        self.silent = False

    async def send(self, message: m.Message[object]) -> object:
        if self.silent:
            raise m.HostUnreachable("a test has taken this host away")
        copy = self._driver._copies.get(message.server_id) if isinstance(message, m.BeginPostCopy) else None
        if isinstance(message, m.BeginPostCopy) and copy is not None and copy.outcome is None:
            self._driver._finish(copy, MigrationPhase.FAILED, "the network was cut")
            self._driver._guests[message.server_id].run(self._driver._clock.now_us())
            self.silent = self._silent_after
        return await super().send(message)


class Watched(Way):
    """The way to the destination. Notes what the source has of the guest whenever the guest is to be booted here."""

    def __init__(self, link: Link, source: SimulatedDriver) -> None:
        super().__init__(link)
        self._source = source
        self.at_source: list[GuestState] = []

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.GiveUpMemory | m.Start):
            self.at_source.append(await self._source.observe(message.server_id))
        return await super().send(message)


@pytest.mark.parametrize("silent", [False, True], ids=["it answers", "it is silent"])
def test_it_is_booted_elsewhere_only_once_it_is_gone_there(silent: bool) -> None:
    with cumulet.testing.cloud(hosts=2, simulated_speed=1.0, migration_bandwidth_mib_s=700) as cloud:
        admin = cloud.persona("admin")
        server_id = slow_server(admin, cloud.persona("member"))
        source = host_of(admin, server_id)
        world = cloud.embedded.world
        assert world is not None
        driver = world.drivers[source]
        with (
            instead(cloud, source, lambda link: FailsAtTheSwitch(link, driver, silent_after=silent)) as failing,
            instead(cloud, other(source), lambda link: Watched(link, driver)) as watched,
        ):
            assert admin.action(server_id, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
            force(admin, server_id)
            if silent:
                admin.wait("several tries", lambda: any(one["attempts"] > 1 for one in under_way(admin)))
                assert watched.at_source == [], "silent is not dead: it may run there"
                failing.silent = False
            admin.wait_for_status(server_id, "ACTIVE")
            admin.wait("the end of the move", lambda: last_migration(admin, server_id)["status"] == "completed")
            assert set(watched.at_source) == {GuestState.ABSENT}
            assert host_of(admin, server_id) == other(source)
        cloud.reconcile()
        assert leftovers(cloud, admin, server_id)["guests"] == {other(source): GuestState.RUNNING}
