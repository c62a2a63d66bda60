"""The metadata service: each guest hears about itself, whatever it says, and on whichever host it is."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, IFA_F_TENTATIVE

from cumulet.drivers.linux_network import metadata, names, namespaces
from cumulet.drivers.linux_network.names import BRIDGE_MAC
from cumulet.host import telling
from cumulet.host import wiring as w
from tests.linux_network import frames as f
from tests.linux_network.lab import Guest, Lab, lab, needs_packets
from tests.linux_network.stacks import StackGuest
from tests.linux_network.wirings import ALL_OUT, group, network, port, revisions

OTHER = str(uuid.UUID(int=8 << 96))
META = b'{"hostname": "one", "uuid": "1"}'


class Call:
    """A TCP connection made by hand, from a guest that may send what it likes."""

    def __init__(self, guest: Guest, number: int) -> None:
        self.guest = guest
        self.number = number
        self.sequence, self.seen = 1000, 0

    def _send(self, flags: int, data: bytes = b"") -> None:
        source, target = self.guest.port.addresses[0], w.METADATA_ADDRESS
        header = struct.pack("!HHIIBBHHH", self.number, 80, self.sequence, self.seen, 5 << 4, flags, 65_000, 0, 0)
        ends = IPv4Address(source).packed + IPv4Address(target).packed
        total = f.checksum(ends + struct.pack("!HH", f.TCP, len(header + data)) + header + data)
        segment = header[:16] + struct.pack("!H", total) + header[18:] + data
        self.guest.send(f.ip(self.guest.port.mac, BRIDGE_MAC, source, target, f.TCP, segment))
        self.sequence += len(data) + (flags == f.SYN)

    async def _segment(self) -> tuple[int, bytes]:
        """Flags and data of the next segment that is new."""
        while True:
            frame = await self.guest.receive()
            if frame[12:14] != b"\x08\0" or frame[23] != f.TCP or frame[36:38] != struct.pack("!H", self.number):
                continue
            sequence, flags = struct.unpack_from("!I", frame, 38)[0], frame[47]
            data = frame[34 + (frame[46] >> 4) * 4 : 14 + struct.unpack_from("!H", frame, 16)[0]]
            if flags & f.SYN or sequence == self.seen:
                self.seen = sequence + len(data) + bool(flags & f.SYN) + bool(flags & 1)
                return flags, data

    async def get(self, path: str, *, method: str = "GET", more: str = "", body: bytes = b"") -> tuple[int, bytes]:
        self.guest.send(
            f.arp(
                self.guest.port.mac, says=(self.guest.port.addresses[0], self.guest.port.mac), asks=w.METADATA_ADDRESS
            )
        )
        self._send(f.SYN)
        await self._segment()
        self._send(f.ACK, f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode() + body)
        got, flags = b"", 0
        while not flags & 1:
            flags, data = await self._segment()
            got += data
            self._send(f.ACK)
        head, _, found = got.partition(b"\r\n\r\n")
        return int(head.split()[1]), found


async def wire(place: Lab, host: str, *ports: w.Port) -> None:
    wanted = {one.network_id for one in ports}
    networks = tuple(network(name, vni) for name, vni in ((network().id, 7), (OTHER, 8)) if name in wanted)
    made = w.Wiring(host=host, revision=next(revisions), networks=networks, ports=ports, groups=(group(*ALL_OUT),))
    assert (await place.networks[host].apply(made)).not_done == ()


def told(name: str) -> dict[str, bytes]:
    return {"meta_data.json": b'{"uuid": "%s"}' % name.encode(), "user_data": name.encode()}


@needs_packets
async def test_each_guest_hears_about_itself_though_tenants_have_the_same_addresses() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.5"), port("10.0.0.5", network=OTHER)
        await wire(place, "host1", a, b)
        one, other = await place.plug("host1", a), await place.plug("host1", b)
        for name, own in (("ours", a), ("theirs", b)):
            await place.networks["host1"].tell(own.id, told(name))
        # The same connection, as far as addresses and numbers tell.
        assert await Call(one, 40_001).get("/openstack/latest/user_data") == (200, b"ours")
        assert await Call(other, 40_001).get("/openstack/latest/user_data") == (200, b"theirs")


@needs_packets
async def test_who_asks_is_known_by_its_port_and_nothing_it_says_matters() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.5"), port("10.0.0.6")
        await wire(place, "host1", a, b)
        one = await place.plug("host1", a)
        for name, own in (("own", a), ("other", b)):
            await place.networks["host1"].tell(own.id, told(name))
        lies = "X-Forwarded-For: 10.0.0.6\r\nX-Instance-ID: other\r\nX-Tenant-ID: other\r\n"
        assert await Call(one, 40_001).get("/openstack/latest/user_data", more=lies) == (200, b"own")


@needs_packets
async def test_a_spoofer_without_port_security_hears_about_itself_only() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.6", secured=False, groups=()), port("10.0.0.6")
        await wire(place, "host1", a, b)
        spoofer = await place.plug("host1", a)
        await place.networks["host1"].tell(b.id, told("victim"))
        assert (await Call(spoofer, 40_001).get("/openstack/latest/user_data"))[0] == 404
        await place.networks["host1"].tell(a.id, told("spoofer"))
        assert await Call(spoofer, 40_002).get("/openstack/latest/user_data") == (200, b"spoofer")


@needs_packets
async def test_it_is_answered_by_the_host_a_guest_has_moved_to_and_forgotten_where_it_was() -> None:
    async with lab(["host1", "host2"]) as place:
        a, b = port("10.0.0.5"), port("10.0.0.6")
        for host in ("host1", "host2"):
            await wire(place, host, a)
            await place.networks[host].tell(a.id, told("moving"))
            assert await Call(await place.plug(host, a), 40_001).get("/latest/user-data") == (200, b"moving")
        place.guests[0].close()
        place.guests.pop(0)
        await wire(place, "host1")
        await wire(place, "host1", b)
        # It has the number that the other had.
        assert (await Call(await place.plug("host1", b), 40_001).get("/openstack/latest/user_data"))[0] == 404


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET / HTTP/1.1", 200, b"2009-04-04\nlatest\nopenstack"),
        ("GET /openstack HTTP/1.0", 200, b"2012-08-10\n2018-08-27\nlatest"),
        ("GET /openstack/latest/ HTTP/1.1", 200, b"meta_data.json\npassword"),
        ("GET /openstack/2012-08-10 HTTP/1.1", 200, b"meta_data.json"),
        ("GET /openstack/2018-08-27/meta_data.json?x=y HTTP/1.1", 200, META),
        ("GET /openstack/2018-08-28/meta_data.json HTTP/1.1", 404, b""),
        ("GET /latest/meta-data/instance-id HTTP/1.1", 200, b"1"),
        ("GET /latest/meta-data HTTP/1.1", 200, b"hostname\ninstance-id\nlocal-hostname"),
        ("GET /latest/user-data HTTP/1.1", 404, b""),
        ("GET /openstack/latest/../../etc/passwd HTTP/1.1", 404, b""),
        ("HEAD /openstack/latest/meta_data.json HTTP/1.1", 200, b""),
        ("POST /openstack/latest/meta_data.json HTTP/1.1", 405, b""),
        ("GET /", 400, b""),
        ("\0\xff", 400, b""),
    ],
)
def test_paths(request_line: str, status: int, body: bytes) -> None:
    assert asked(request_line) == (status, body)


EC2 = {
    "instance-id": "i-0000000a",
    "security-groups": ["default", "web"],
    "placement": {"availability-zone": "nova"},
    "public-keys": {"0": {"_name": "0=mine", "openssh-key": "ssh-ed25519 AAAA"}},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", b"instance-id\nplacement/\npublic-keys/\nsecurity-groups"),
        ("instance-id", b"i-0000000a"),
        ("security-groups/", b"default\nweb"),
        ("placement/availability-zone", b"nova"),
        ("public-keys/", b"0=mine"),
        ("public-keys/0/", b"openssh-key"),
        ("public-keys/0/openssh-key", b"ssh-ed25519 AAAA"),
        ("public-keys/0/_name", None),
        ("public-keys/1/openssh-key", None),
        ("instance-id/x", None),
    ],
)
def test_what_ec2_calls_meta_data_is_a_tree(path: str, found: bytes | None) -> None:
    documents = {"meta_data.json": META, telling.EC2: json.dumps(EC2).encode()}
    for version in ("latest", "2009-04-04"):
        status, body = asked(f"GET /{version}/meta-data/{path} HTTP/1.1", documents=documents)
        assert (status, body) == ((404, b"") if found is None else (200, found))
    assert asked("GET /openstack/latest HTTP/1.1", documents=documents) == (200, b"meta_data.json\npassword")


TOKENS = metadata.Tokens(b"s" * 32)


def asked(
    request_line: str,
    *headers: str,
    port: int = 7,
    now: float = 1000.0,
    documents: Mapping[str, bytes] = MappingProxyType({"meta_data.json": META}),
) -> tuple[int, bytes]:
    head = "\r\n".join((request_line, *headers, "", "")).encode("latin-1")
    reply = metadata.answer(head, documents, TOKENS, port, now)
    first, _, found = reply.partition(b"\r\n\r\n")
    return int(first.split()[1]), found


PUT_TOKEN, GET_META = "PUT /latest/api/token HTTP/1.1", "GET /openstack/latest/meta_data.json HTTP/1.1"


def test_a_session_token_is_one_ports_for_its_time_and_whoever_shows_another_is_refused() -> None:
    status, token = asked(PUT_TOKEN, "x-aws-ec2-metadata-token-ttl-seconds: 60")
    assert status == 200
    shown = f"X-AWS-EC2-Metadata-Token: {token.decode()}"
    assert asked(GET_META, shown) == (200, META)
    assert asked(GET_META) == (200, META), "nobody has to have one"
    assert asked(GET_META, shown, port=8)[0] == 401
    assert asked(GET_META, shown, now=1060.0)[0] == 401
    for wrong in ("", "x", token.decode()[:-4] + "AAAA", token.decode()[4:], "\xff"):
        assert asked(GET_META, f"X-aws-ec2-metadata-token: {wrong}")[0] == 401


@pytest.mark.parametrize("seconds", [None, "", "0", "21601", "x", "-1", "1.5", "99999999"])
def test_a_session_has_a_length_that_may_be(seconds: str | None) -> None:
    headers = () if seconds is None else (f"X-aws-ec2-metadata-token-ttl-seconds: {seconds}",)
    assert asked(PUT_TOKEN, *headers)[0] == 400
    assert asked(PUT_TOKEN, "X-aws-ec2-metadata-token-ttl-seconds: 60", "X-Forwarded-For: 10.0.0.1")[0] == 403
    assert asked("PUT /latest/user-data HTTP/1.1")[0] == 405


def posting(body: bytes, *headers: str, path: str = "/openstack/latest/password", known: bytes | None = None) -> object:
    """The password that is taken, or the status of the refusal; None where nothing is posted."""
    head = "\r\n".join((f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", *headers, "", ""))
    documents = {"meta_data.json": META} | ({} if known is None else {"password": known})
    said = metadata.posted(head.encode() + body, documents, TOKENS, 7, 1000.0)
    return int(said.split()[1]) if isinstance(said, bytes) else said


def test_a_password_is_taken_once_and_then_told() -> None:
    assert posting(b"c2VjcmV0") == "c2VjcmV0"
    assert posting(b"c2VjcmV0", path="/openstack/2018-08-27/password") == "c2VjcmV0"
    assert posting(b"c2VjcmV0", known=b"another") == 409
    assert posting(b"x" * 1020) == "x" * 1020
    assert posting(b"x" * 1021) == 400
    assert posting(b"\xff") == 400
    assert posting(b"") == 200, "there is none yet, as Nova has it"
    assert posting(b"x", f"X-aws-ec2-metadata-token: {TOKENS.give(8, 2000)}") == 401
    assert posting(b"x", f"X-aws-ec2-metadata-token: {TOKENS.give(7, 2000)}") == "x"
    for elsewhere in ("/openstack/2012-08-10/password", "/openstack/latest/user_data", "/latest/password", "/"):
        assert posting(b"x", path=elsewhere) is None
    line = "GET /openstack/latest/password HTTP/1.1"
    assert asked(line) == (200, b"")
    assert asked(line, documents={"meta_data.json": META, "password": b"c2VjcmV0"}) == (200, b"c2VjcmV0")
    assert asked("PUT /openstack/latest/password HTTP/1.1")[0] == 400
    assert asked(
        "GET /openstack/2012-08-10/password HTTP/1.1", documents={"meta_data.json": META, "password": b"x"}
    ) == (
        404,
        b"",
    )
    of_nobody = metadata.posted(b"POST /openstack/latest/password HTTP/1.1\n\n", None, TOKENS, 7, 1000.0)
    assert isinstance(of_nobody, bytes)
    assert of_nobody.split()[1] == b"404"
    unmeasured = metadata.posted(b"POST /openstack/latest/password HTTP/1.1\n\nx", {}, TOKENS, 7, 1000.0)
    assert isinstance(unmeasured, bytes)
    assert unmeasured.split()[1] == b"411"


@pytest.mark.parametrize(
    ("received", "whole"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n", False),
        (b"POST / HTTP/1.1\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + b"x" * 4080, True),
        (b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", True),
    ],
)
def test_a_password_is_waited_for_and_no_other_body(received: bytes, whole: bool) -> None:
    assert metadata.complete(received) is whole


def test_an_unknown_port_hears_nothing() -> None:
    for line in (b"GET / HTTP/1.1", b"PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60"):
        reply = metadata.answer(line + b"\r\n\r\n", None, TOKENS, 7, 1000.0)
        assert reply.startswith(b"HTTP/1.1 404 ")


@needs_packets
async def test_a_guest_hears_about_itself_by_ipv6_and_by_nobody_elses_word() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.5"), port("10.0.0.5", network=OTHER)
        await wire(place, "host1", a, b)
        for name, own in (("ours", a), ("theirs", b)):
            await place.networks["host1"].tell(own.id, told(name))
        for name, own in (("ours", a), ("theirs", b)):
            guest = StackGuest(await place.networks["host1"].plug(own.id), own, addresses=False)
            try:
                guest.until(lambda guest=guest: guest.ready(), "its own address")  # type: ignore[misc]
                assert guest.fetches(f"{w.METADATA_ADDRESS_6}%eth0", "/openstack/latest/user_data") == name.encode()
            finally:
                guest.remove()


@needs_packets
async def test_the_address_of_ipv6_is_never_tentative_so_that_a_socket_is_bound_to_it_at_once() -> None:
    async with lab(["host1"]) as place:
        await wire(place, "host1", a := port("10.0.0.5"))

        def flags() -> int:
            with namespaces.inside(place.namespaces["host1"]), IPRoute() as route:
                (index,) = route.link_lookup(ifname=names.bridge(a.network_id))
                (found,) = route.get_addr(index=index, address=w.METADATA_ADDRESS_6)
                return int(found["flags"])

        assert await asyncio.to_thread(flags) & (IFA_F_NODAD | IFA_F_TENTATIVE) == IFA_F_NODAD


@needs_packets
async def test_the_metadata_service_of_ipv6_stays_on_its_host_and_no_guest_is_it() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.5"), port("10.0.0.6")
        await wire(place, "host1", a, b)
        one, two = await place.plug("host1", a), await place.plug("host1", b)
        target = IPv6Address(w.METADATA_ADDRESS_6).packed
        before = await place.networks["host1"].counters()
        asks = f.transport(f.ICMP6, w.link_local(a.mac), "ff02::1:fffe:a9fe", 135, 0, data=target)
        says = f.transport(f.ICMP6, w.link_local(a.mac), "ff02::1", 136, 0, data=target)
        for to, body in (("ff02::1:fffe:a9fe", asks), ("ff02::1", says)):
            assert not await two.gets(one, f.ip(a.mac, f.BROADCAST, w.link_local(a.mac), to, f.ICMP6, body))
        dropped = await place.networks["host1"].counters()
        assert dropped["spoofed_neighbour"] == before["spoofed_neighbour"] + 1
