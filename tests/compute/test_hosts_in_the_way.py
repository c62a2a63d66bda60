"""A host that hangs, or is hostile, keeps no guest of other hosts standing still in its move."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

import cumulet.testing
from cumulet.fleet.hosts import MOST_REVISIONS, Hosts
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.wiring import InForce, Wiring
from tests.api.servers import AUTO, last_migration
from tests.links import Way, instead
from tests.testing.test_reachability import made, port_of

NEVER = 1e6


class Hangs(Way):
    """Takes a wiring, and says nothing more."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.ApplyWiring):
            await asyncio.Event().wait()
        return await super().send(message)


class AlwaysLater(Way):
    """Says of each wiring that it has a later one."""

    asked = 0

    async def send(self, message: m.Message[object]) -> object:
        answer = await super().send(message)
        if isinstance(message, m.ApplyWiring):
            self.asked += 1
            assert isinstance(answer, InForce)
            return replace(answer, revision=message.wiring.revision + 1)
        return answer


@pytest.mark.parametrize("way", [Hangs, AlwaysLater])
def test_a_guest_goes_on_where_it_is_now(way: type[Way], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.fleet.hosts.WIRING_SECONDS", NEVER)
    # All simulated hosts have one address, so the third would be told nothing new.
    monkeypatch.setattr(Hosts, "told", lambda *_: None)
    with cumulet.testing.cloud(hosts=3) as cloud:
        admin = cloud.persona("admin")
        network = made(admin, "network", name="n")
        made(admin, "subnet", network_id=network, cidr="10.8.0.0/24", ip_version=4)
        port, *_ = (port_of(admin, network, availability_zone=f"nova:{host}") for host in cloud.hosts)
        server = admin.request("GET", f"/network/v2.0/ports/{port}")["port"]["device_id"]
        with instead(cloud, "host3", way):
            assert admin.action(server, {"os-migrateLive": {**AUTO, "host": "host2"}}).status == 202
            admin.wait("its move to end", lambda: last_migration(admin, server)["status"] == "completed")
            assert cloud.guests("host2")[server] is GuestState.RUNNING


def test_a_host_that_always_has_a_later_wiring_has_failed() -> None:
    async def story() -> None:
        hosts = Hosts()
        told = 0

        class Liar:
            async def send(self, message: m.Message[object]) -> object:
                nonlocal told
                told += 1
                assert isinstance(message, m.ApplyWiring)
                return InForce(revision=message.wiring.revision + 1)

            async def close(self) -> None: ...

        hosts.add("host1", Liar())  # type: ignore[arg-type]

        async def describe(revision: int) -> Wiring:
            return Wiring(host="host1", revision=revision)

        with pytest.raises(m.VerbFailed, match="WIRING_OVERTAKEN"):
            await hosts.wire("host1", describe, now_us=1)
        assert told == MOST_REVISIONS

    asyncio.run(story())
