"""Real packets between guests of one host and of two: what passes, and what a hostile guest tries."""

from __future__ import annotations

import struct
import uuid
from ipaddress import ip_address

import pytest

from cumulet.host import wiring as w
from tests.linux_network import frames as f
from tests.linux_network.lab import Guest, Lab, lab, needs_packets
from tests.linux_network.wirings import ALL_IN, ALL_OUT, GROUP, group, network, port, revisions, rule, tcp, udp

pytestmark = needs_packets


async def two(place: Lab, one: w.Port, other: w.Port, *groups: w.Group) -> tuple[Guest, Guest]:
    """Two guests of host1, on one network."""
    await wire(place, one, other, groups=groups)
    return await place.plug("host1", one), await place.plug("host1", other)


async def wire(place: Lab, *ports: w.Port, groups: tuple[w.Group, ...], networks: tuple[w.Network, ...] = ()) -> None:
    made = w.Wiring(
        host="host1", revision=next(revisions), networks=networks or (network(),), ports=ports, groups=groups
    )
    answer = await place.networks["host1"].apply(made)
    assert answer.revision == made.revision
    assert answer.not_done == ()
    assert answer.ports == tuple(port.id for port in ports)


async def test_guests_reach_each_other_in_both_versions_where_rules_let_them() -> None:
    async with lab(["host1"]) as place:
        one, two_ = await two(place, a := port("10.0.0.1"), b := port("10.0.0.2"), group(*ALL_OUT, *ALL_IN))
        assert await two_.gets(one, f.arp(a.mac, says=("10.0.0.1", a.mac), asks="10.0.0.2"))
        assert await two_.gets(one, udp(a, b))
        assert await two_.gets(one, udp(a, b, source=a.addresses[1]))


async def test_what_no_rule_lets_in_is_dropped_and_counted_and_its_reply_passes_where_it_was_let_out() -> None:
    async with lab(["host1"]) as place:
        web = rule("ingress", protocol=6, range_min=80, range_max=80)
        one, two_ = await two(place, a := port("10.0.0.1"), b := port("10.0.0.2"), group(*ALL_OUT, web))
        assert not await two_.gets(one, tcp(a, b, 22))
        assert not await two_.gets(one, udp(a, b))
        assert (await place.networks["host1"].counters())["denied_in"] == 2
        assert not await one.gets(two_, tcp(b, a, 80, flags=f.SYN_ACK, reply=True))
        assert await two_.gets(one, tcp(a, b, 80))
        assert await one.gets(two_, tcp(b, a, 80, flags=f.SYN_ACK, reply=True))
        assert await two_.gets(one, tcp(a, b, 80, flags=f.ACK))


async def test_stateless_groups_let_no_reply_pass_that_no_rule_names() -> None:
    async with lab(["host1"]) as place:
        web = rule("ingress", protocol=6, range_min=80, range_max=80)
        one, two_ = await two(place, a := port("10.0.0.1"), b := port("10.0.0.2"), group(*ALL_OUT, web, stateful=False))
        assert await two_.gets(one, tcp(a, b, 80))
        assert not await one.gets(two_, tcp(b, a, 80, flags=f.SYN_ACK, reply=True))


async def test_beside_a_stateful_group_replies_pass_to_all_that_a_stateless_one_lets_in() -> None:
    other = str(uuid.UUID(int=10 << 96))
    web = rule("ingress", protocol=6, range_min=80, range_max=80)
    async with lab(["host1"]) as place:
        both = (GROUP, other)
        a, b = port("10.0.0.1", groups=both), port("10.0.0.2", groups=both)
        one, two_ = await two(place, a, b, group(*ALL_OUT), group(web, group_id=other, stateful=False))
        assert await two_.gets(one, tcp(a, b, 80))
        assert await one.gets(two_, tcp(b, a, 80, flags=f.SYN_ACK, reply=True))


@pytest.mark.parametrize(("code", "passes"), [(None, [True, True]), (0, [True, False]), (1, [False, True])])
async def test_a_rule_for_icmp_is_for_its_code_where_it_names_one(code: int | None, passes: list[bool]) -> None:
    async with lab(["host1"]) as place:
        echo = rule("ingress", protocol=f.ICMP, range_min=8, range_max=code)
        one, two_ = await two(place, a := port("10.0.0.1"), b := port("10.0.0.2"), group(*ALL_OUT, echo))

        def asks(code: int) -> bytes:
            body = f.transport(f.ICMP, "10.0.0.1", "10.0.0.2", 8, code, head=0x70001 + code)
            return f.ip(a.mac, b.mac, "10.0.0.1", "10.0.0.2", f.ICMP, body)

        assert [await two_.gets(one, asks(code)) for code in (0, 1)] == passes


async def test_without_groups_nothing_goes_out_but_what_every_port_needs() -> None:
    async with lab(["host1"]) as place:
        one, two_ = await two(place, a := port("10.0.0.1", groups=()), b := port("10.0.0.2"), group(*ALL_IN))
        assert not await two_.gets(one, udp(a, b))
        assert (await place.networks["host1"].counters())["denied_out"] == 1
        assert await two_.gets(one, f.arp(a.mac, says=("10.0.0.1", a.mac), asks="10.0.0.2"))


async def test_taking_a_rule_away_cuts_its_connections_and_no_others() -> None:
    async with lab(["host1"]) as place:
        web, shell = (rule("ingress", protocol=6, range_min=n, range_max=n) for n in (80, 22))
        a, b = port("10.0.0.1"), port("10.0.0.2")
        one, two_ = await two(place, a, b, group(*ALL_OUT, web, shell))
        for number in (80, 22):
            assert await two_.gets(one, tcp(a, b, number))
            assert await one.gets(two_, tcp(b, a, number, flags=f.SYN_ACK, reply=True))
            assert await two_.gets(one, tcp(a, b, number, flags=f.ACK))
        await wire(place, a, b, groups=(group(*ALL_OUT, web),))
        assert await two_.gets(one, tcp(a, b, 80, flags=f.ACK))
        assert not await two_.gets(one, tcp(a, b, 22, flags=f.ACK))
        assert await one.gets(two_, tcp(b, a, 80, flags=f.ACK, reply=True))


def behind_headers(me: w.Port, victim: w.Port) -> dict[str, tuple[str, bytes]]:
    """What is looked for behind IPv6's extension headers, and an address of many."""
    mine, link_local = me.addresses[1], w.link_local(me.mac)
    advertised = f.transport(f.ICMP6, link_local, "ff02::1", 134, 0)
    answered = f.transport(f.UDP, link_local, "ff02::1", 547, 546, data=b"0123456789abcdef")

    def packet(source: str, target: str, first: int, *parts: bytes) -> bytes:
        return f.ip(me.mac, victim.mac, source, target, first, b"".join(parts))

    def options(following: int) -> bytes:
        return struct.pack("!BBBB4x", following, 0, 1, 4)

    routed = struct.pack("!BBBBI", f.UDP, 2, 0, 1, 0) + ip_address(victim.addresses[1]).packed
    return {
        "advertisement behind hop-by-hop options": (
            "router_advertisement",
            packet(link_local, "ff02::1", f.HOP_BY_HOP, options(f.ICMP6), advertised),
        ),
        "advertisement behind two headers": (
            "router_advertisement",
            packet(link_local, "ff02::1", f.HOP_BY_HOP, options(f.DESTINATION), options(f.ICMP6), advertised),
        ),
        "dhcp6 server behind options": (
            "dhcp_server",
            packet(link_local, "ff02::1", f.DESTINATION, options(f.UDP), answered),
        ),
        "routing header": ("source_route", packet(mine, victim.addresses[1], f.ROUTING, routed, answered)),
        "routing header behind options": (
            "source_route",
            packet(mine, victim.addresses[1], f.DESTINATION, options(f.ROUTING), routed, answered),
        ),
        "dhcp server in pieces": (
            "dhcp_server",
            f.ip(
                me.mac,
                victim.mac,
                me.addresses[0],
                victim.addresses[0],
                f.UDP,
                struct.pack("!HHHH", 67, 68, 500, 0),
                fragment=0x2000,
            ),
        ),
    }


SOURCE_ROUTES = {"loose": 131, "strict": 137}


def hostile(me: w.Port, victim: w.Port) -> dict[str, tuple[str, bytes]]:
    """What a guest must not send, by name: the counter it belongs to, and the frame."""
    other = "02:00:00:00:99:99"
    mine, theirs, link_local = me.addresses[0], victim.addresses[0], w.link_local(me.mac)

    def packet(
        protocol: int, first: int, second: int, source: str = mine, target: str = theirs, **more: object
    ) -> bytes:
        data = f.transport(protocol, source, target, first, second, data=b"0123456789abcdef")
        return f.ip(me.mac, victim.mac, source, target, protocol, data, **more)  # type: ignore[arg-type]

    neighbour = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + bytes.fromhex("20010db8" + "0" * 22 + "77")
    fragment = struct.pack("!BBHI", f.ICMP6, 0, 1, 9) + f.transport(f.ICMP6, link_local, "ff02::1", 134, 0)
    found = {
        "mac": ("spoofed_mac", udp(me, victim, mac=other)),
        "address": ("spoofed_ipv4", udp(me, victim, source="10.0.0.99")),
        "address 6": ("spoofed_ipv6", udp(me, victim, source="2001:db8::9999")),
        "arp request": ("spoofed_arp", f.arp(me.mac, says=("10.0.0.254", me.mac), asks=theirs)),
        "arp reply": ("spoofed_arp", f.arp(me.mac, says=("10.0.0.254", me.mac), asks=theirs, operation=2)),
        "arp mac": ("spoofed_arp", f.arp(me.mac, says=(mine, other), asks=theirs)),
        "gratuitous arp": ("spoofed_arp", f.arp(me.mac, says=(theirs, me.mac), asks=theirs)),
        "neighbour": ("spoofed_neighbour", f.ip(me.mac, victim.mac, me.addresses[1], "ff02::1", f.ICMP6, neighbour)),
        "router advertisement": ("router_advertisement", packet(f.ICMP6, 134, 0, link_local, "ff02::1")),
        "redirect": ("router_advertisement", packet(f.ICMP6, 137, 0, link_local, "ff02::1")),
        "fragmented advertisement": (
            "router_advertisement",
            f.ip(me.mac, victim.mac, link_local, "ff02::1", 44, fragment),
        ),
        "dhcp server": ("dhcp_server", packet(f.UDP, 67, 68)),
        "dhcp6 server": ("dhcp_server", packet(f.UDP, 547, 546, link_local, "ff02::1")),
        "vlan tag": ("ethertype", f.ethernet(me.mac, victim.mac, f.VLAN, b"\0\5" + udp(me, victim)[12:])),
        "two vlan tags": (
            "ethertype",
            f.ethernet(me.mac, victim.mac, f.QINQ, b"\0\5\x81\0\0\6" + udp(me, victim)[12:]),
        ),
        "priority tag": ("ethertype", f.ethernet(me.mac, victim.mac, f.VLAN, b"\xe0\0" + udp(me, victim)[12:])),
        "link layer control": ("ethertype", f.ethernet(me.mac, victim.mac, 38, b"BB\3" + bytes(35))),
        "unknown ethertype": ("ethertype", f.ethernet(me.mac, victim.mac, 0x88CC, bytes(46))),
        "later fragment": ("spoofed_ipv4", f.ip(me.mac, victim.mac, "10.0.0.98", theirs, f.UDP, bytes(24), fragment=3)),
    }
    found |= behind_headers(me, victim)
    for name, kind in SOURCE_ROUTES.items():
        options = bytes([kind, 7, 4]) + b"\x0a\0\0\7" + b"\0"
        found[f"{name} source route"] = ("source_route", packet(f.UDP, 4000, 5000, options=options))
    return found


async def test_every_spoofing_attempt_is_dropped_and_counted() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        one, two_ = await two(place, a, b, group(*ALL_OUT, *ALL_IN))
        network_ = place.networks["host1"]
        for name, (counter, frame) in hostile(a, b).items():
            before = (await network_.counters())[counter]
            assert not await two_.gets(one, frame), name
            assert (await network_.counters())[counter] == before + 1, name


async def test_without_port_security_the_same_frames_pass() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.1", secured=False, groups=()), port("10.0.0.2", secured=False, groups=())
        one, two_ = await two(place, a, b)
        passing = {name: await two_.gets(one, frame) for name, (_, frame) in hostile(a, b).items()}
        held_back = {name for name, passes in passing.items() if not passes}
        # The kernel waits for the rest of what is a fragment.
        assert held_back <= {"later fragment", "fragmented advertisement", "dhcp server in pieces"}, held_back
        # A bridge takes nothing from an address of many: no rule is asked.
        assert not await two_.gets(one, udp(a, b, mac="01:00:5e:00:00:01"))


async def test_allowed_address_pairs_may_be_used_with_their_mac_and_no_others() -> None:
    async with lab(["host1"]) as place:
        virtual = "02:00:5e:00:01:01"
        a = port(
            "10.0.0.1",
            pairs=(w.Pair(mac="02:00:00:00:aa:aa", prefix="10.7.0.0/16"), w.Pair(mac=virtual, prefix="10.0.0.9")),
        )
        b = port("10.0.0.2")
        one, two_ = await two(place, a, b, group(*ALL_OUT, *ALL_IN))
        assert await two_.gets(one, udp(a, b, source="10.7.3.3", mac="02:00:00:00:aa:aa"))
        assert await two_.gets(one, udp(a, b, source="10.0.0.9", mac=virtual))
        assert await two_.gets(one, f.arp(virtual, says=("10.0.0.9", virtual), asks="10.0.0.2"))
        assert not await two_.gets(one, udp(a, b, source="10.0.0.9"))
        assert not await two_.gets(one, udp(a, b, source="10.8.0.1", mac="02:00:00:00:aa:aa"))


async def test_a_port_that_is_down_neither_sends_nor_receives_until_it_is_up() -> None:
    async with lab(["host1"]) as place:
        a, b, c = port("10.0.0.1"), port("10.0.0.2"), port("10.0.0.3")
        groups = (group(*ALL_OUT, *ALL_IN),)
        one, two_ = await two(place, a, b, *groups)
        down = w.Port(**{name: getattr(a, name) for name in a.__struct_fields__} | {"up": False})
        await wire(place, down, b, c, groups=groups)
        three = await place.plug("host1", c)
        one.send(udp(a, b))
        assert await two_.gets(three, udp(c, b))
        await wire(place, a, b, c, groups=groups)
        assert await two_.gets(one, udp(a, b))
        assert (await place.networks["host1"].counters())["not_wired"] >= 1


async def test_a_tap_without_rules_is_refused() -> None:
    from cumulet.host.driver import DriverError

    async with lab(["host1"]) as place:
        with pytest.raises(DriverError, match="NOT_WIRED"):
            await place.networks["host1"].plug(port("10.0.0.1").id)
        a = port("10.0.0.1")
        await wire(place, a, groups=(group(),))
        await place.plug("host1", a)
        with pytest.raises(DriverError, match="TAP_IN_USE"):
            await place.networks["host1"].plug(a.id)


async def test_a_port_that_lost_its_rules_leads_nowhere_until_it_has_some() -> None:
    """A guest is started all the same. Before the first wiring nobody knows which ports have rules."""
    from cumulet.host.driver import DriverError

    async with lab(["host1"]) as place:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        groups, network_ = (group(*ALL_OUT, *ALL_IN),), place.networks["host1"]
        with pytest.raises(DriverError, match="NOT_WIRED"):
            await network_.plug_anyway(a.id)
        await wire(place, b, groups=groups)
        two_ = await place.plug("host1", b)
        one = Guest(await network_.plug_anyway(a.id), a)
        place.guests.append(one)
        with pytest.raises(DriverError, match="TAP_IN_USE"):
            await network_.plug_anyway(a.id)
        assert a.id not in (await network_.in_force()).linked
        await wire(place, a, b, groups=groups)
        assert set((await network_.in_force()).linked) == {a.id, b.id}
        assert await one.gets(two_, udp(b, a))


async def test_tenants_with_the_same_addresses_never_meet() -> None:
    other = str(uuid.UUID(int=8 << 96))
    async with lab(["host1"]) as place:
        ours = port("10.0.0.1"), port("10.0.0.2")
        theirs = port("10.0.0.1", network=other), port("10.0.0.2", network=other)
        web = rule("ingress", protocol=6, range_min=80, range_max=80)
        await wire(
            place,
            *ours,
            *theirs,
            groups=(group(*ALL_OUT, web),),
            networks=(network(), network(other, 8)),
        )
        a, b, c, d = [await place.plug("host1", one) for one in (*ours, *theirs)]
        assert await b.gets(a, tcp(ours[0], ours[1], 80))
        assert await a.gets(b, tcp(ours[1], ours[0], 80, flags=f.SYN_ACK, reply=True))
        # The same connection of another tenant is none that was let through.
        assert not await c.gets(d, tcp(theirs[1], theirs[0], 80, flags=f.SYN_ACK, reply=True))
        for _ in range(100):
            a.send(f.ip(ours[0].mac, theirs[1].mac, "10.0.0.1", "10.0.0.2", f.UDP, bytes(20)))
            a.send(f.arp(ours[0].mac, says=("10.0.0.1", ours[0].mac), asks="10.0.0.2"))
        mark = f.marker(theirs[0].mac)
        c.send(mark)
        assert await d.until(mark) == []


async def test_an_earlier_revision_changes_nothing() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        await two(place, a, b, group(*ALL_OUT, *ALL_IN))
        newest = next(revisions)
        await place.networks["host1"].apply(
            w.Wiring(host="host1", revision=newest, networks=(network(),), ports=(a, b), groups=(group(),))
        )
        late = await place.networks["host1"].apply(w.Wiring(host="host1", revision=newest - 1))
        assert late.revision == newest
        assert late.linked == (a.id, b.id)
