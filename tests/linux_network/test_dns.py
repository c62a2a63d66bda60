"""Guests are told the names of the ports of their own network, by the host they are on, and no other names."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from cumulet.drivers.linux_network import dhcp, dns, ipv6
from cumulet.drivers.linux_network.responder import Asked
from cumulet.host import wiring as w
from tests.linux_network.lab import Lab, lab, needs_packets
from tests.linux_network.stacks import StackGuest
from tests.linux_network.wirings import ALL_OUT, NETWORK, group, network, port, revisions

OK, FORMAT_ERROR, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = 0, 1, 3, 4, 5
A, PTR, AAAA, ANY = 1, 12, 28, 255
OTHER = "08000000-0000-0000-0000-000000000000"


def subnet(cidr: str = "10.0.0.0/24", **more: object) -> w.Subnet:
    values: dict[str, object] = {
        "id": cidr,
        "cidr": cidr,
        "gateway": None,
        "dhcp": True,
        "ra_mode": None,
        "address_mode": None,
        "dns_servers": (),
        "routes": (),
    }
    return w.Subnet(**(values | more))  # type: ignore[arg-type]


def name(hostname: str, *addresses: str) -> w.Name:
    return w.Name(hostname=hostname, addresses=addresses)


def known(*names: w.Name, domain: str = "example.org.") -> dns.Known:
    made = dns.zone(network(dns_domain=domain, names=names, subnets=(subnet(), subnet("2001:db8::/64"))))
    assert made is not None
    return dns.Known(made)


def question(text: str, kind: int = A, *, number: int = 7, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label)
    return struct.pack("!6H", number, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def told(reply: bytes | None, asked: bytes) -> tuple[int, list[str]]:
    """The code of an answer, and its addresses and names."""
    assert reply is not None
    assert len(reply) <= 512
    number, flags, questions, answers, authorities, more = struct.unpack_from("!6H", reply)
    assert (number, flags & 0x8000, authorities, more) == (struct.unpack_from("!H", asked)[0], 0x8000, 0, 0)
    place, found = 12 + len(asked[12:] if questions else b""), []
    for _ in range(answers):
        pointer, kind, _, ttl, length = struct.unpack_from("!HHHIH", reply, place)
        assert (pointer, ttl) == (0xC00C, dns.TTL_SECONDS)
        content = reply[place + 12 : place + 12 + length]
        found.append(str(ip_address(content)) if kind != PTR else _text(content))
        place += 12 + length
    assert place == len(reply)
    return flags & 15, found


def _text(content: bytes) -> str:
    labels = []
    while content[0]:
        labels.append(content[1 : 1 + content[0]].decode())
        content = content[1 + content[0] :]
    return ".".join(labels)


def asked(text: str, kind: int, zone: dns.Known) -> tuple[int, list[str]]:
    message = question(text, kind)
    return told(dns.answer(message, zone), message)


ZONE = known(
    name("web", "10.0.0.5", "2001:db8::5"),
    name("web", "10.0.0.6"),
    name("host-10-0-0-7", "10.0.0.7"),
    name("a.b", "10.0.0.8"),
    name("whole.example.org.", "10.0.0.9"),
    name("www.google.com.", "10.0.0.10"),
)


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        ("web.example.org", A, (OK, ["10.0.0.5", "10.0.0.6"])),
        ("WEB.Example.org", AAAA, (OK, ["2001:db8::5"])),
        ("web.example.org", ANY, (OK, ["10.0.0.5", "2001:db8::5", "10.0.0.6"])),
        ("web", A, (OK, ["10.0.0.5", "10.0.0.6"])),
        ("host-10-0-0-7.example.org", A, (OK, ["10.0.0.7"])),
        ("host-10-0-0-7.example.org", AAAA, (OK, [])),
        ("a.b.example.org", A, (OK, ["10.0.0.8"])),
        ("whole.example.org", A, (OK, ["10.0.0.9"])),
        ("example.org", A, (OK, [])),
        ("nobody.example.org", A, (NO_SUCH_NAME, [])),
        ("nobody", A, (NO_SUCH_NAME, [])),
        ("www.google.com", A, (REFUSED, [])),
        ("web.openstacklocal", A, (REFUSED, [])),
        ("webexample.org", A, (REFUSED, [])),
        ("", A, (REFUSED, [])),
        ("5.0.0.10.in-addr.arpa", PTR, (OK, ["web.example.org"])),
        ("5.0.0.10.in-addr.arpa", A, (OK, [])),
        ("99.0.0.10.in-addr.arpa", PTR, (NO_SUCH_NAME, [])),
        ("5.0.0.11.in-addr.arpa", PTR, (REFUSED, [])),
        (IPv6Address("2001:db8::5").reverse_pointer, PTR, (OK, ["web.example.org"])),
        (IPv6Address("2001:db9::5").reverse_pointer, PTR, (REFUSED, [])),
    ],
)
def test_a_name_of_the_network_is_answered_and_any_other_is_left_to_others(
    text: str, kind: int, answer: tuple[int, list[str]]
) -> None:
    assert asked(text, kind, ZONE) == answer


@pytest.mark.parametrize("domain", ["", ".", "a..b", "\xe9.org", "\u0436.org", f"{'x' * 64}.", "y." * 127 + "y"])
def test_without_a_domain_no_name_is_answered_and_no_guest_is_told_to_ask(domain: str) -> None:
    """Networks from before domains were checked may have such ones. No guest could read the answers."""
    empty = network(dns_domain=domain, names=(name("web", "10.0.0.5"),), subnets=(subnet(),))
    assert dns.zone(empty) is None
    assert dns.servers(empty, empty.subnets, 4) == ()


def test_many_ports_of_one_name_are_answered_in_one_message() -> None:
    long = "x" * 60
    domain = ".".join(["y" * 60] * 3) + "."
    zone = known(*(name(long, f"2001:db8::{number}") for number in range(1, 100)), domain=domain)
    code, addresses = asked(f"{long}.{domain}", AAAA, zone)
    assert (code, len(addresses)) == (OK, dns.MOST_ADDRESSES)


def test_a_name_that_is_too_long_with_the_domain_of_its_network_is_not_answered() -> None:
    """A network's domain can change after its ports have their names."""
    domain = ".".join(["y" * 60] * 3)
    fits, longer = ".".join(["x" * 34] * 2), ".".join(["x" * 35] * 2)
    zone = known(name(fits, "10.0.0.5"), name(longer, "10.0.0.6"), domain=f"{domain}.")
    assert asked("5.0.0.10.in-addr.arpa", PTR, zone) == (OK, [f"{fits}.{domain}"])
    assert asked("6.0.0.10.in-addr.arpa", PTR, zone) == (NO_SUCH_NAME, [])
    assert asked(longer, A, zone)[0] != OK


def test_no_message_makes_it_fail_and_what_is_no_question_is_told_so() -> None:
    whole = question("web.example.org")
    assert dns.answer(question("web", flags=0x8000), ZONE) is None
    for flags, code in ((0x2800, NOT_IMPLEMENTED), (0x0100, OK)):
        message = question("web", flags=flags)
        reply = dns.answer(message, ZONE)
        assert reply is not None
        assert reply[3] & 15 == code
    for length in range(len(whole)):
        reply = dns.answer(whole[:length], ZONE)
        assert reply is None if length < 12 else reply is not None and reply[3] & 15 == FORMAT_ERROR
    pointer = whole[:12] + b"\xc0\x0c\0\1\0\1"
    reply = dns.answer(pointer, ZONE)
    assert reply is not None
    assert reply[3] & 15 == FORMAT_ERROR
    chance = random.Random(1)
    for _ in range(5000):
        place = chance.randrange(len(whole))
        noise = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 40)))
        said = dns.answer(whole[:place] + noise + whole[place:], ZONE)
        assert said is None or len(said) <= 512 + len(noise)


def test_who_asks_too_much_is_not_answered_and_keeps_nobody_else_from_asking() -> None:
    counted = Asked()
    answered = sum(counted.may("cmb1", "10.0.0.5", 5.0) for _ in range(1000))
    assert answered == dns.QUESTIONS_A_SECOND
    assert counted.may("cmb1", "10.0.0.6", 5.5)
    assert counted.may("cmb2", "10.0.0.5", 5.5)
    assert counted.may("cmb1", "10.0.0.5", 6.0)
    many = sum(counted.may("cmb1", f"10.1.{number}.1", 7.0) for number in range(256) for _ in range(10))
    assert many == dns.QUESTIONS_A_SECOND_OF_A_NETWORK


@pytest.mark.parametrize(
    ("listed", "four", "six"),
    [
        ((), (w.METADATA_ADDRESS,), (w.METADATA_ADDRESS_6,)),
        (("192.0.2.53",), ("192.0.2.53",), ()),
        (("0.0.0.0",), (), ()),
    ],
)
def test_guests_are_told_to_ask_their_host_unless_their_subnet_lists_other_servers(
    listed: tuple[str, ...], four: tuple[str, ...], six: tuple[str, ...]
) -> None:
    of_four = subnet(dns_servers=listed)
    modes = {"ra_mode": "slaac", "address_mode": "dhcpv6-stateful", "router_mac": "r"}
    of_six = subnet("2001:db8::/64", dns_servers=listed, **modes)
    a = port("10.0.0.5", hostname="web")
    for names in ((name("web", "10.0.0.5"),), ()):
        made = network(subnets=(of_four, of_six), names=names, dns_domain="openstacklocal.")
        (lease,), (lease_6,), (router,) = dhcp.leases([a], made), ipv6.leases([a], made), ipv6.advertised(made)
        told = (lease.dns_servers, lease_6.dns_servers, router.dns_servers)
        assert told == ((four, six, six) if names or listed else ((), (), ()))
        assert (lease.domain, lease_6.domain) == ("openstacklocal", "openstacklocal")


async def wire(place: Lab, *ports: w.Port, names: Mapping[str, tuple[w.Name, ...]]) -> None:
    networks = tuple(
        network(network_id, vni, subnets=(subnet(),), names=names[network_id], dns_domain="openstacklocal.")
        for network_id, vni in ((NETWORK, 7), (OTHER, 8))
        if network_id in names
    )
    made = w.Wiring(host="host1", revision=next(revisions), networks=networks, ports=ports, groups=(group(*ALL_OUT),))
    assert (await place.networks["host1"].apply(made)).not_done == ()


def resolve(server: str, text: str, kind: int = A) -> tuple[int, list[str]]:
    """Ask as a guest's resolver does, from the namespace of the calling thread."""
    message = question(text, kind)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10.0)
        place = (server, 53, 0, socket.if_nametoindex("eth0")) if ":" in server else (server, 53)
        asking.connect(place)
        asking.send(message)
        return told(asking.recv(4096), message)


@needs_packets
async def test_a_guests_resolver_finds_the_ports_of_its_own_network_alone() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.5", hostname="web"), port("10.0.0.5", hostname="web", network=OTHER)
        names: dict[str, tuple[w.Name, ...]] = {
            NETWORK: (name("web", "10.0.0.5"), name("far", "10.0.0.77")),
            OTHER: (name("web", "10.0.0.5"), name("secret", "10.0.0.88")),
        }
        await wire(place, a, b, names=names)
        ours, theirs = [StackGuest(await place.networks["host1"].plug(one.id), one) for one in (a, b)]
        try:
            for guest in (ours, theirs):
                guest.ip("route", "add", f"{w.METADATA_ADDRESS}/32", "dev", "eth0")
            ask = partial(resolve, w.METADATA_ADDRESS)
            assert ours.do(partial(ask, "far.openstacklocal")) == (OK, ["10.0.0.77"])
            assert ours.do(partial(ask, "secret.openstacklocal")) == (NO_SUCH_NAME, [])
            assert theirs.do(partial(ask, "secret.openstacklocal")) == (OK, ["10.0.0.88"])
            assert theirs.do(partial(ask, "far.openstacklocal")) == (NO_SUCH_NAME, [])
            ours.until(ours.ready, "its link-local address")
            assert ours.do(partial(resolve, w.METADATA_ADDRESS_6, "far")) == (OK, ["10.0.0.77"])
            names[NETWORK] = (name("web", "10.0.0.5"), name("new", "10.0.0.78"))
            await wire(place, a, b, names=names)
            assert ours.do(partial(ask, "far")) == (NO_SUCH_NAME, [])
            assert ours.do(partial(ask, IPv4Address("10.0.0.78").reverse_pointer, PTR)) == (OK, ["new.openstacklocal"])
        finally:
            ours.remove()
            theirs.remove()
