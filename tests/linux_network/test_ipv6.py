"""IPv6 for guests: a whole kernel configures itself from what it hears, asks by DHCPv6, and reaches its router."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cumulet.drivers.linux_network import ipv6
from cumulet.drivers.linux_network.names import BRIDGE_MAC
from cumulet.host import wiring as w
from tests.linux_network import frames as f
from tests.linux_network.lab import Guest, Lab, lab, needs_packets
from tests.linux_network.stacks import StackGuest
from tests.linux_network.wirings import ALL_IN, ALL_OUT, NETWORK, group, network, port, revisions

OPEN = group(*ALL_OUT, *ALL_IN)
ROUTER_MAC = "fa:16:3e:00:00:66"
PREFIX = "2001:db8:9::"
ROUTER = w.Router(
    id="00000000-0000-4000-8000-0000000000cc",
    interfaces=(
        w.RouterPort(
            id="30000000-0000-4000-8000-000000000001", network_id=NETWORK, mac=ROUTER_MAC, addresses=(f"{PREFIX}1/64",)
        ),
    ),
)


def subnet(mode: str | None, **more: object) -> w.Subnet:
    values: dict[str, object] = {
        "id": "s",
        "cidr": f"{PREFIX}/64",
        "gateway": f"{PREFIX}1",
        "dhcp": True,
        "ra_mode": mode,
        "address_mode": mode,
        "dns_servers": ("2001:db8::53", "192.0.2.53"),
        "routes": (),
        "router_mac": ROUTER_MAC,
    }
    return w.Subnet(**(values | more))  # type: ignore[arg-type]


def slaac(mac: str) -> str:
    """The address that a guest makes for itself (RFC 4862, modified EUI-64)."""
    low = socket.inet_pton(socket.AF_INET6, w.link_local(mac))[8:]
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, PREFIX)[:8] + low)


async def wire(place: Lab, ports: list[w.Port], *subnets: w.Subnet, mtu: int = 1400) -> None:
    answer = await place.networks["host1"].apply(
        w.Wiring(
            host="host1",
            revision=next(revisions),
            networks=(network(subnets=subnets, mtu=mtu, dns_domain="x.test."),),
            ports=tuple(ports),
            groups=(OPEN,),
            routers=(ROUTER,),
        )
    )
    assert answer.not_done == ()


@needs_packets
async def test_a_guest_hears_prefix_router_and_mtu_and_configures_itself() -> None:
    async with lab(["host1"]) as place:
        a = port("10.0.0.1")
        a = replace(a, addresses=(slaac(a.mac),))
        await wire(place, [a], subnet("slaac"))
        guest = StackGuest(await place.networks["host1"].plug(a.id), a, mtu=1500, addresses=False)
        try:
            guest.until(lambda: slaac(a.mac) in guest.addresses(), "its address")
            assert guest.pings(f"{PREFIX}1")
            assert guest.setting("ipv6/conf/eth0/mtu") == "1400"
            # A route that came by a router's word: the way out is its link-local address.
            assert guest.way_out() == w.link_local(ROUTER_MAC)
            await wire(place, [a], subnet("slaac", router_mac=None))
            guest.until(lambda: guest.way_out() is None, "the router's end")
        finally:
            guest.remove()


def ask(guest: Guest, kind: int, *options: tuple[int, bytes]) -> None:
    body = (
        bytes([kind]) + b"abc" + b"".join(struct.pack("!HH", code, len(content)) + content for code, content in options)
    )
    source, to = w.link_local(guest.port.mac), "ff02::1:2"
    guest.send(
        f.ip(
            guest.port.mac, "33:33:00:01:00:02", source, to, f.UDP, f.transport(f.UDP, source, to, 546, 547, data=body)
        )
    )


async def told(guest: Guest) -> tuple[int, dict[int, bytes]]:
    """The kind of the next DHCPv6 message, and its options."""
    while True:
        frame = await guest.receive()
        if frame[12:14] == b"\x86\xdd" and frame[20] == f.UDP and frame[54:58] == struct.pack("!HH", 547, 546):
            assert frame[:6] == f.mac(guest.port.mac)
            pseudo = frame[22:54] + struct.pack("!II", len(frame) - 54, f.UDP)
            assert f.checksum(pseudo + frame[54:]) == 0
            return frame[62], dict(ipv6._options(frame[66:]))


CLIENT = (1, b"\0\x03\0\x01\x02\0\0\0\0\1")
SERVER = (2, ipv6.SERVER_DUID)
ASSOCIATION = (3, b"\0\0\0\7" + bytes(8))


@needs_packets
async def test_a_guest_gets_its_address_by_dhcpv6_and_no_other() -> None:
    async with lab(["host1"]) as place:
        address = f"{PREFIX}77"
        a = port("10.0.0.1", addresses=("10.0.0.1", address))
        await wire(place, [a], subnet("dhcpv6-stateful"))
        guest = await place.plug("host1", a)
        ask(guest, 1, CLIENT, ASSOCIATION)
        kind, options = await told(guest)
        assert (kind, options[2], options[1]) == (2, SERVER[1], CLIENT[1])
        assert socket.inet_pton(socket.AF_INET6, address) in options[3]
        assert options[23] == socket.inet_pton(socket.AF_INET6, "2001:db8::53")
        assert options[24] == b"\1x\4test\0"
        other = struct.pack("!HH", 5, 24) + socket.inet_pton(socket.AF_INET6, f"{PREFIX}99") + bytes(8)
        for kind in (3, 5):
            ask(guest, kind, CLIENT, SERVER, (3, ASSOCIATION[1] + other))
            answered, options = await told(guest)
            assert answered == 7
            given = dict.fromkeys(ipv6._addresses(options[3]))
            assert list(given) == [address, f"{PREFIX}99"]
            assert options[3].endswith(bytes(8)), "what is not its own lives no longer"
        ask(guest, 3, CLIENT, (2, b"another server"), ASSOCIATION)
        ask(guest, 4, CLIENT, (3, ASSOCIATION[1] + other))
        answered, options = await told(guest)
        assert (answered, options[13]) == (7, b"\0\4")


@needs_packets
async def test_where_guests_make_their_own_addresses_dhcpv6_tells_the_rest() -> None:
    async with lab(["host1"]) as place:
        a = port("10.0.0.1")
        await wire(place, [a], subnet("dhcpv6-stateless"))
        guest = await place.plug("host1", a)
        ask(guest, 1, CLIENT, ASSOCIATION)
        _, options = await told(guest)
        assert options[3].endswith(b"\0\x0d\0\2\0\2"), "it has no address to give"
        ask(guest, 11)
        kind, options = await told(guest)
        assert (kind, options[23]) == (7, socket.inet_pton(socket.AF_INET6, "2001:db8::53"))


@pytest.mark.parametrize(
    ("mode", "managed", "other", "autonomous"),
    [("slaac", False, False, True), ("dhcpv6-stateless", False, True, True), ("dhcpv6-stateful", True, True, False)],
)
def test_the_mode_says_how_guests_get_addresses(mode: str, managed: bool, other: bool, autonomous: bool) -> None:
    (said,) = ipv6.advertised(network(subnets=(subnet(mode),)))
    assert (said.managed, said.other, said.prefixes) == (managed, other, ((f"{PREFIX}/64", autonomous),))
    assert said.dns_servers == (("2001:db8::53",) if mode == "slaac" else ())
    assert ipv6.advertised(network(subnets=(subnet(None),))) == ()
    assert ipv6.advertised(network(subnets=(subnet(mode, router_mac=None),))) == ()


def test_a_router_that_is_gone_says_so() -> None:
    """RFC 4861, 6.2.5: with a lifetime of 0, for the router and for its name servers."""
    (said,) = ipv6.advertised(network(subnets=(subnet("slaac"),)))
    for gone in (False, True):
        body = ipv6.advertisement(said, gone=gone)[54:]
        (lifetime,) = struct.unpack_from("!H", body, 6)
        servers = body.index(bytes([25, 3]))
        (of_servers,) = struct.unpack_from("!I", body, servers + 4)
        assert (lifetime == 0, of_servers == 0) == (gone, gone)


@pytest.mark.parametrize("mode", ["dhcpv6-stateful", "dhcpv6-stateless"])
def test_where_dhcp_is_off_nobody_is_answered(mode: str) -> None:
    asking = port("2001:db8:9::5")
    assert len(ipv6.leases([asking], network(subnets=(subnet(mode),)))) == 1
    assert ipv6.leases([asking], network(subnets=(subnet(mode, dhcp=False),))) == ()


@given(st.binary(max_size=200), st.sampled_from([1, 3, 4, 5, 6, 8, 9, 11, 99]))
def test_no_frame_makes_it_fail(noise: bytes, kind: int) -> None:
    lease = ipv6.Lease(mac="02:00:00:00:00:01", addresses=("2001:db8::1",), dns_servers=(), domain="")
    header = f.mac(BRIDGE_MAC) + f.mac(lease.mac) + b"\x86\xdd" + bytes(6) + bytes([17, 1]) + bytes(32)
    for frame in (noise, header + struct.pack("!HHHH", 546, 547, 8, 0) + bytes([kind]) + noise):
        assert isinstance(ipv6.answers(frame, (), {lease.mac: lease}), list)
