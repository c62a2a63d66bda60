"""Guests are told their addresses by the host they are on, whichever that is, and by nobody else."""

from __future__ import annotations

import signal
import socket
import struct
from pathlib import Path

import pytest
from msgspec.structs import replace

from cumulet.drivers.linux_network import dhcp, responding, taps
from cumulet.drivers.linux_network.names import BRIDGE_MAC
from cumulet.host import wiring as w
from cumulet.host.driver import DriverError
from tests.linux_network import frames as f
from tests.linux_network.lab import Guest, Lab, lab, needs_packets
from tests.linux_network.wirings import group, network, port, revisions

SUBNET = w.Subnet(
    id="s",
    cidr="10.0.0.0/24",
    gateway="10.0.0.254",
    dhcp=True,
    ra_mode=None,
    address_mode=None,
    dns_servers=("192.0.2.53", "2001:db8::53"),
    routes=(w.Route(destination="172.16.0.0/12", nexthop="10.0.0.7"),),
)
DISCOVER, OFFER, REQUEST, ACK, NAK, INFORM = 1, 2, 3, 5, 6, 8


def asks(kind: int, mac: str, *, wants: str | None = None, has: str = "0.0.0.0", chaddr: str | None = None) -> bytes:
    options = bytes([53, 1, kind]) + (b"" if wants is None else b"\x32\4" + socket.inet_aton(wants)) + b"\xff"
    message = (
        struct.pack(
            "!4BI2H4s4s4s4s16s64s128s",
            1,
            1,
            6,
            0,
            77,
            0,
            0x8000,
            socket.inet_aton(has),
            b"",
            b"",
            b"",
            f.mac(chaddr or mac),
            b"",
            b"",
        )
        + b"\x63\x82\x53\x63"
        + options
    )
    to = "255.255.255.255" if has == "0.0.0.0" else dhcp.SERVER
    data = f.transport(f.UDP, has, to, 68, 67, data=message)
    return f.ip(mac, f.BROADCAST if has == "0.0.0.0" else BRIDGE_MAC, has, to, f.UDP, data)


def told(frame: bytes) -> tuple[int, str, dict[int, bytes]]:
    """Kind, address given, and options of an answer."""
    assert frame[6:12] == f.mac(BRIDGE_MAC)
    message = frame[42:]
    options: dict[int, bytes] = {}
    rest = message[240:]
    while rest[0] != 255:
        options[rest[0]] = options.get(rest[0], b"") + rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return options[53][0], socket.inet_ntoa(message[16:20]), options


async def answered(guest: Guest, frame: bytes) -> tuple[int, str, dict[int, bytes]]:
    guest.send(frame)
    while (got := await guest.receive())[6:12] != f.mac(BRIDGE_MAC):
        pass
    return told(got)


async def silent(place: Lab, guest: Guest, frame: bytes) -> bool:
    """Whether the host does not answer a frame: its next answer is that to a later request."""
    guest.send(frame)
    kind, _, _ = await answered(guest, asks(REQUEST, guest.port.mac, wants="10.0.0.99"))
    return kind == NAK


async def wire(
    place: Lab, host: str, *ports: w.Port, subnet: w.Subnet = SUBNET, more: tuple[w.Subnet, ...] = ()
) -> None:
    made = w.Wiring(
        host=host,
        revision=next(revisions),
        networks=(network(subnets=(subnet, *more), dns_domain="example.org."),),
        ports=ports,
        groups=(group(),),
    )
    assert (await place.networks[host].apply(made)).not_done == ()


def test_a_guest_that_has_an_address_is_told_the_rest_and_given_none() -> None:
    """RFC 2131, 4.3.5: no address in the answer, and no times of a lease."""
    a = port("10.0.0.5", hostname="web")
    known = {lease.mac: lease for lease in dhcp.leases([a], network(subnets=(SUBNET,)))}
    frame = dhcp.answer(asks(INFORM, a.mac, has="10.0.0.77"), known, BRIDGE_MAC)
    assert frame is not None
    kind, given, options = told(frame)
    assert (kind, given) == (ACK, "0.0.0.0")
    assert options.keys().isdisjoint({51, 58, 59})
    assert options[3] == socket.inet_aton("10.0.0.254")
    assert socket.inet_ntoa(frame[30:34]) == "10.0.0.77"


@needs_packets
async def test_a_guest_is_told_its_address_and_the_way_out_without_any_group_letting_it_ask() -> None:
    async with lab(["host1"]) as place:
        a = port("10.0.0.5", hostname="web")
        await wire(place, "host1", a)
        guest = await place.plug("host1", a)
        assert (await answered(guest, asks(DISCOVER, a.mac)))[:2] == (OFFER, "10.0.0.5")
        kind, address, options = await answered(guest, asks(REQUEST, a.mac, wants="10.0.0.5"))
        assert (kind, address) == (ACK, "10.0.0.5")
        assert options[1] == socket.inet_aton("255.255.255.0")
        assert options[3] == socket.inet_aton("10.0.0.254")
        assert options[6] == socket.inet_aton("192.0.2.53")
        assert (options[12], options[15]) == (b"web", b"example.org")
        assert struct.unpack("!H", options[26]) == (1450,)
        metadata = b"\x20" + socket.inet_aton(w.METADATA_ADDRESS) + bytes(4)
        assert metadata in options[121]
        assert b"\x0c\xac\x10" + socket.inet_aton("10.0.0.7") in options[121]
        assert options[121].endswith(b"\0" + socket.inet_aton("10.0.0.254"))


@needs_packets
async def test_a_ports_own_options_come_beside_the_usual_and_in_place_of_them() -> None:
    async with lab(["host1"]) as place:
        own = (
            w.DhcpOption(version=4, code=67, content=b"pxelinux.0".hex()),
            w.DhcpOption(version=4, code=26, content="0578"),
            w.DhcpOption(version=4, code=3, content=""),
            w.DhcpOption(version=4, code=0, content="c0000209"),
            w.DhcpOption(version=6, code=59, content="ff"),
        )
        a, b = port("10.0.0.5", dhcp_options=own), port("10.0.0.6")
        await wire(place, "host1", a, b)
        guest = await place.plug("host1", a)
        guest.send(asks(DISCOVER, a.mac))
        while (got := await guest.receive())[6:12] != f.mac(BRIDGE_MAC):
            pass
        _, _, options = told(got)
        assert got[42 + 20 : 42 + 24] == socket.inet_aton("192.0.2.9")
        assert (options[67], options[26]) == (b"pxelinux.0", b"\x05\x78")
        assert 3 not in options
        assert 59 not in {code for code in options if options[code] == b"\xff"}
        _, _, usual = await answered(await place.plug("host1", b), asks(DISCOVER, b.mac))
        assert 67 not in usual
        assert usual[3] == socket.inet_aton("10.0.0.254")


@needs_packets
async def test_a_lease_is_renewed_on_the_host_that_the_guest_has_moved_to() -> None:
    async with lab(["host1", "host2"]) as place:
        a = port("10.0.0.5")
        await wire(place, "host1", a)
        first = await answered(await place.plug("host1", a), asks(REQUEST, a.mac, wants="10.0.0.5"))
        await wire(place, "host2", replace(a, active=False))
        guest = await place.plug("host2", a)
        renewed = await answered(guest, asks(REQUEST, a.mac, has="10.0.0.5"))
        assert renewed == first


@needs_packets
async def test_what_is_not_the_ports_own_gets_no_address() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.5"), port("10.0.0.6")
        await wire(place, "host1", a, b)
        guest = await place.plug("host1", a)
        await place.plug("host1", b)
        assert await silent(place, guest, asks(DISCOVER, b.mac))
        assert await silent(place, guest, asks(DISCOVER, a.mac, chaddr=b.mac))
        assert (await answered(guest, asks(REQUEST, a.mac, wants="10.0.0.6")))[0] == NAK


@needs_packets
async def test_a_subnet_without_dhcp_is_not_answered_and_a_change_is() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.5"), port("10.0.9.5")
        other = replace(SUBNET, id="other", cidr="10.0.9.0/24", gateway=None)
        await wire(place, "host1", a, b, subnet=replace(SUBNET, dhcp=False), more=(other,))
        guest = await place.plug("host1", a)
        guest.send(asks(DISCOVER, a.mac))
        # Frames are answered in their order, so the answer to the other guest comes after the first was read.
        assert (await answered(await place.plug("host1", b), asks(DISCOVER, b.mac)))[0] == OFFER
        await wire(place, "host1", a)
        kind, _, options = await answered(guest, asks(REQUEST, a.mac, wants="10.0.0.5"))
        assert kind == ACK
        await wire(place, "host1", a, subnet=replace(SUBNET, gateway="10.0.0.1"))
        assert (await answered(guest, asks(DISCOVER, a.mac)))[2][3] == socket.inet_aton("10.0.0.1") != options[3]


@needs_packets
async def test_who_reads_what_guests_send_has_no_power_and_is_replaced_when_it_ends() -> None:
    async with lab(["host1"]) as place:
        a = port("10.0.0.5")
        await wire(place, "host1", a)
        guest = await place.plug("host1", a)
        await answered(guest, asks(DISCOVER, a.mac))
        process = place.networks["host1"]._responding._process
        assert process is not None
        status = Path(f"/proc/{process.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == {str(responding.UID)}
        assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
        assert fields["NoNewPrivs"].strip() == "1"
        process.kill()
        process.wait()
        await wire(place, "host1", a)
        assert (await answered(guest, asks(DISCOVER, a.mac)))[0] == OFFER


@needs_packets
async def test_a_host_whose_kernel_has_no_ipv6_answers_by_ipv4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(taps, "_IPV6", tmp_path / "none")
    async with lab(["host1"]) as place:
        a = port("10.0.0.5")
        await wire(place, "host1", a)
        assert (await answered(await place.plug("host1", a), asks(DISCOVER, a.mac)))[:2] == (OFFER, "10.0.0.5")


@needs_packets
async def test_who_answers_guests_and_is_silent_itself_is_replaced_and_what_it_was_told_is_told_again() -> None:
    async with lab(["host1"]) as place:
        a = port("10.0.0.5")
        await wire(place, "host1", a)
        network = place.networks["host1"]
        stopped = network._responding._process
        assert stopped is not None
        stopped.send_signal(signal.SIGSTOP)
        try:
            assert network._responding._link is not None
            network._responding._link.settimeout(0.1)
            with pytest.raises(DriverError, match="timed out"):
                await network.tell(a.id, {"user_data": b"x"})
            assert stopped.poll() is not None
        finally:
            stopped.kill()
        await network.tell(a.id, {"user_data": b"y"})
        await wire(place, "host1", a)
        assert (await answered(await place.plug("host1", a), asks(DISCOVER, a.mac)))[0] == OFFER


LEASE = dhcp.Lease(
    mac="02:00:00:00:00:01",
    address="10.0.0.5",
    prefix_length=24,
    router=None,
    mtu=1450,
    dns_servers=(),
    domain="",
    hostname="",
    routes=(("10.0.0.0/8", "10.0.0.1"),) * 60,
)


def test_no_frame_makes_it_fail_and_a_long_option_goes_on_in_another() -> None:
    known = {LEASE.mac: LEASE}
    whole = asks(DISCOVER, LEASE.mac)
    reply = dhcp.answer(whole, known, BRIDGE_MAC)
    assert reply is not None
    assert len(told(reply)[2][121]) == 60 * 6
    for length in range(len(whole) - 3):
        assert dhcp.answer(whole[:length], known, BRIDGE_MAC) is None
    for place in range(len(whole)):
        for value in (0, 1, 127, 255):
            dhcp.answer(whole[:place] + bytes([value]) + whole[place + 1 :], known, BRIDGE_MAC)


@pytest.mark.parametrize("kind", [4, 7, 9, 13])
def test_what_needs_no_answer_gets_none(kind: int) -> None:
    assert dhcp.answer(asks(kind, LEASE.mac), {LEASE.mac: LEASE}, BRIDGE_MAC) is None
