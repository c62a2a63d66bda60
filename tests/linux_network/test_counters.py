"""What a host counts of its guests' packets."""

from __future__ import annotations

from tests.linux_network.lab import lab, needs_packets
from tests.linux_network.test_packets import two
from tests.linux_network.wirings import ALL_IN, ALL_OUT, group, port, udp

pytestmark = needs_packets


async def test_a_port_counts_as_its_guest_sees_it_and_drops_are_counted_by_cause() -> None:
    async with lab(["host1"]) as place:
        one, other = await two(place, a := port("10.0.0.1"), b := port("10.0.0.2"), group(*ALL_OUT, *ALL_IN))
        network = place.networks["host1"]
        before = await network.traffic([a.id, b.id, port("10.0.0.3").id])
        assert before.ports.keys() == {a.id, b.id}, "the third is not plugged in"
        for _ in range(3):
            assert await other.gets(one, udp(a, b))
        assert not await other.gets(one, udp(a, b, source="10.0.0.99"))
        after = await network.traffic([a.id, b.id])
        sent = after.ports[a.id].tx_packets - before.ports[a.id].tx_packets
        assert sent == 3 + 1 + 4, "each is followed by a marker"
        got = after.ports[b.id].rx_packets - before.ports[b.id].rx_packets
        assert got == 3 + 4
        size = after.ports[a.id].tx_bytes - before.ports[a.id].tx_bytes
        assert size >= 4 * len(udp(a, b))
        changed = {cause for cause, number in after.dropped.items() if number != before.dropped[cause]}
        assert changed == {"spoofed_ipv4", "to_host"}, "the host hears what is for everybody, too"
