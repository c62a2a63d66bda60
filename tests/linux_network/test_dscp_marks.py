"""DSCP marks: of what a port sends, and of nothing else; the rest of each packet is as it was sent."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cumulet.host import wiring as w
from tests.linux_network import frames as f
from tests.linux_network.lab import Guest, lab, needs_packets, reopened
from tests.linux_network.test_packets import wire
from tests.linux_network.wirings import ALL_IN, ALL_OUT, group, port

pytestmark = needs_packets

OPEN = group(*ALL_OUT, *ALL_IN)


def datagram(sender: w.Port, receiver: w.Port, version: int) -> bytes:
    source, target = sender.addresses[version == 6], receiver.addresses[version == 6]
    content = f.transport(f.UDP, source, target, 4000, 5000, data=b"what a guest says")
    return f.ip(sender.mac, receiver.mac, source, target, f.UDP, content)


def with_mark(frame: bytes, mark: int, version: int) -> bytes:
    """The same packet with this mark; its congestion bits (the lowest two) are 0, as in those sent here."""
    head, header, rest = frame[:14], bytearray(frame[14:34]), frame[34:]
    if version == 6:
        header[0] |= mark >> 2
        header[1] |= mark << 6 & 0xC0
        return head + bytes(header) + rest
    header[1] = mark << 2
    header[10:12] = bytes(2)
    header[10:12] = f.checksum(bytes(header)).to_bytes(2, "big")
    return head + bytes(header) + rest


async def arrives(sender: Guest, receiver: Guest, version: int) -> bytes:
    sender.send(datagram(sender.port, receiver.port, version))
    marker = f.marker(sender.port.mac, receiver.port.mac)
    sender.send(marker)
    (frame,) = await receiver.until(marker)
    return frame


@pytest.mark.parametrize("mark", [8, 26, 46])
async def test_what_a_port_sends_has_its_mark_and_what_it_is_sent_has_not(mark: int) -> None:
    async with lab(["host1"]) as place:
        plain, marking = port("10.0.0.1"), port("10.0.0.2", dscp_mark=mark)
        await wire(place, plain, marking, groups=(OPEN,))
        one, other = await place.plug("host1", plain), await place.plug("host1", marking)
        for version in (4, 6):
            assert await arrives(other, one, version) == with_mark(datagram(marking, plain, version), mark, version)
            assert await arrives(one, other, version) == datagram(plain, marking, version)


async def test_a_mark_that_changes_or_goes_counts_at_once_also_for_a_new_agent() -> None:
    async with lab(["host1"]) as place:
        plain, marking = port("10.0.0.1"), port("10.0.0.2", dscp_mark=26)
        await wire(place, plain, marking, groups=(OPEN,))
        one, other = await place.plug("host1", plain), await place.plug("host1", marking)
        await wire(place, plain, replace(marking, dscp_mark=10), groups=(OPEN,))
        assert await arrives(other, one, 4) == with_mark(datagram(marking, plain, 4), 10, 4)
        await place.networks["host1"].close()
        place.networks["host1"] = await reopened("192.0.2.1", place.namespaces["host1"])
        await wire(place, plain, replace(marking, dscp_mark=None), groups=(OPEN,))
        assert await arrives(other, one, 4) == datagram(marking, plain, 4)
