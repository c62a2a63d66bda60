"""An address of another host that is none keeps one network from being wired, and no other."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cumulet.host import wiring as w
from tests.linux_network.lab import lab, needs_packets
from tests.linux_network.test_only_changes import FAR, told, wiring
from tests.linux_network.wirings import NETWORK


@needs_packets
@pytest.mark.parametrize("address", ["x", "", "10.0.0.1 ", "fe80::1%eth0", "2001:db8::1"])
async def test_the_other_networks_are_wired(address: str) -> None:
    whole = wiring()
    bad = replace(
        whole.networks[0],
        id="11111111-0000-4000-8000-000000000001",
        vni=77,
        peers=(address,),
        remotes=(w.Remote(mac=FAR.mac, host_address=address),),
    )
    async with lab(["host1"]) as place:
        (not_done,) = await told(place, replace(whole, networks=(bad, *whole.networks)))
        assert not_done.subject == bad.id
        assert not_done.subject != NETWORK
        assert not_done.reason
        assert await told(place, whole) == ()
