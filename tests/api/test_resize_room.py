"""A guest that gets less memory arrives as it was and is made anew: until then room for the larger size is held."""

from __future__ import annotations

import pytest

from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.link import Link
from cumulet.placement import allocations as placement
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead

from .servers import create_pair, host_of, image_and_flavor, last_migration, other
from .test_evacuation import action_of
from .test_resize import held, resize

BEFORE, AFTER = 128, 32
"""MiB: of the flavor that the server has, and of the one that it gets."""


@pytest.fixture
def server(member: Client) -> str:
    return create_pair(member)[0]


@pytest.fixture
def smaller(admin: Client) -> str:
    return new_flavor(admin, "smaller", AFTER)


def new_flavor(admin: Client, name: str, memory_mib: int) -> str:
    flavor = {"name": name, "id": name, "vcpus": 1, "ram": memory_mib, "disk": 1}
    assert admin.compute("POST", "/flavors", {"flavor": flavor}).status == 200
    return name


class Looking(Way):
    """The way to a destination. Notes each message about the guest, then the MiB of the guest and of its share."""

    def __init__(self, link: Link, cloud: TestCloud) -> None:
        super().__init__(link)
        self._cloud = cloud
        self._memory_mib = 0
        self.seen: list[tuple[str, int, int]] = []

    async def send(self, message: m.Message[object]) -> object:
        answer = await super().send(message)
        if isinstance(message, m.PrepareIncoming | m.TakeIn | m.Start):
            if not isinstance(message, m.Start):
                self._memory_mib = message.guest.memory_mib

            def read(tx: Tx) -> int:
                return sum(share[placement.MEMORY_MB] for share in placement.held(tx, message.server_id).values())

            holds = await self._cloud.embedded.db.read_async(read)
            self.seen.append((type(message).__name__, self._memory_mib, holds))
        return answer


def test_the_larger_share_is_held_until_the_larger_guest_is_gone(
    cloud: TestCloud, admin: Client, member: Client, server: str, smaller: str
) -> None:
    destination = other(host_of(admin, server))
    with instead(cloud, destination, lambda link: Looking(link, cloud)) as way:
        resize(member, server, smaller)
        member.wait_for_status(server, "VERIFY_RESIZE")
    assert way.seen == [("PrepareIncoming", BEFORE, BEFORE), ("TakeIn", AFTER, BEFORE), ("Start", AFTER, AFTER)]
    assert held(admin, server) == {destination: {"VCPU": 1, "MEMORY_MB": AFTER, "DISK_GB": 1}}


def test_a_host_with_room_for_the_smaller_guest_alone_does_not_get_it(
    cloud: TestCloud, admin: Client, member: Client, server: str, smaller: str
) -> None:
    source = host_of(admin, server)
    assert admin.compute("PUT", f"/os-quota-sets/{admin.project_id}", {"quota_set": {"ram": -1}}).status == 200
    beside = BEFORE  # The other one of the pair.
    filling = new_flavor(admin, "filling", cloud.embedded.settings.simulated_memory_mib - beside - BEFORE + 1)
    wanted = {"name": "filling", "networks": "none", "availability_zone": f"nova:{other(source)}"}
    body = {"server": wanted | image_and_flavor(admin) | {"flavorRef": filling}}
    filler = admin.compute("POST", "/servers", body)["server"]["id"]
    admin.wait_for_status(filler, "ACTIVE")
    resize(member, server, smaller)
    admin.wait("the end", lambda: last_migration(admin, server)["status"] == "error")
    admin.wait_for_status(server, "ACTIVE")
    assert "INSUFFICIENT_MEMORY" in str(action_of(admin, server, "resize")["events"])
    assert held(admin, server) == {source: {"VCPU": 1, "MEMORY_MB": BEFORE, "DISK_GB": 1}}
    assert admin.compute("DELETE", f"/servers/{filler}").status == 204
    admin.wait("the room", lambda: admin.compute("GET", f"/servers/{filler}").status == 404)
    resize(member, server, smaller)
    member.wait_for_status(server, "VERIFY_RESIZE")
