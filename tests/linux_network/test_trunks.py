"""Trunks with real packets: tagged frames of a guest are those of subports, each with rules of its own."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import uuid

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cumulet.drivers.linux_network import bpf, names, namespaces
from cumulet.drivers.linux_network.carrying import Carrying
from cumulet.host import wiring as w
from cumulet.host.driver import DriverError
from tests.linux_network import frames as f
from tests.linux_network.lab import Guest, Lab, lab, needs_packets, reopened
from tests.linux_network.test_metadata import Call, told
from tests.linux_network.wirings import ALL_IN, ALL_OUT, group, network, port, revisions, rule, tcp, udp

pytestmark = needs_packets
OTHER, THIRD = (str(uuid.UUID(int=number << 96)) for number in (8, 9))
OPEN = group(*ALL_OUT, *ALL_IN)


def subport(parent: w.Port, tag: int, address: str, network_id: str = OTHER, **more: object) -> w.Port:
    return port(address, network=network_id, carried=w.Carried(parent=parent.id, tag=tag), **more)


def tagged(frame: bytes, tag: int, kind: int = f.VLAN) -> bytes:
    return frame[:12] + struct.pack("!HH", kind, tag) + frame[12:]


class Tagged(Guest):
    """A guest's end of a subport: what it sends has the tag, and of what comes it reads only what has the tag."""

    def __init__(self, parent: Guest, carried: w.Port) -> None:
        super().__init__(parent.fd, carried)
        assert carried.carried is not None
        self.tag = carried.carried.tag

    def send(self, frame: bytes) -> None:
        super().send(tagged(frame, self.tag))

    async def receive(self) -> bytes:
        while True:
            frame = await super().receive()
            if frame[12:16] == struct.pack("!HH", f.VLAN, self.tag):
                return frame[:12] + frame[16:]


async def wire(place: Lab, *ports: w.Port, host: str = "host1", groups: tuple[w.Group, ...] = (OPEN,)) -> w.InForce:
    wanted = {one.network_id for one in ports}
    networks = tuple(network(name, vni) for name, vni in ((network().id, 7), (OTHER, 8), (THIRD, 9)) if name in wanted)
    made = w.Wiring(host=host, revision=next(revisions), networks=networks, ports=ports, groups=groups)
    answer = await place.networks[host].apply(made)
    assert answer.not_done == ()
    return answer


async def devices(place: Lab, host: str = "host1") -> dict[str, str]:
    """The devices of ports on a host, and what kind each is."""
    return await asyncio.to_thread(_devices, place, host)


def _devices(place: Lab, host: str) -> dict[str, str]:
    with namespaces.inside(place.namespaces[host]), IPRoute() as route:
        links = {str(link.get("ifname")): str(link.get(("linkinfo", "kind"))) for link in route.get_links()}
        return {name: kind for name, kind in links.items() if name.startswith(names.TAP)}


async def programs(place: Lab, host: str = "host1") -> int:
    """How many devices of a host have hooks for programs."""
    return await asyncio.to_thread(_programs, place, host)


def _programs(place: Lab, host: str) -> int:
    with namespaces.inside(place.namespaces[host]), IPRoute() as route:
        return sum(queue.get_attr("TCA_KIND") == "clsact" for queue in route.get_qdiscs())


async def test_tagged_frames_are_their_subports_and_untagged_ones_the_parents() -> None:
    async with lab(["host1"]) as place:
        parent, near = port("10.0.0.1"), port("10.0.0.2")
        one, two = subport(parent, 100, "10.1.0.1"), subport(parent, 4094, "10.2.0.1", THIRD)
        far, third = port("10.1.0.2", network=OTHER), port("10.2.0.2", network=THIRD)
        answer = await wire(place, parent, near, one, two, far, third)
        assert answer.linked == ()
        guest = await place.plug("host1", parent)
        answer = await place.networks["host1"].in_force()
        assert set(answer.linked) == {parent.id, one.id, two.id}
        peers = {own.id: await place.plug("host1", own) for own in (near, far, third)}
        ends = {parent.id: guest, one.id: Tagged(guest, one), two.id: Tagged(guest, two)}
        for own, other in ((parent, near), (one, far), (two, third)):
            mine, its = ends[own.id], peers[other.id]
            assert await its.gets(mine, udp(own, other)), own.addresses
            assert await its.gets(mine, udp(own, other, source=own.addresses[1]))
            assert await mine.gets(its, udp(other, own)), own.addresses
            assert await mine.gets(its, tcp(other, own, 80))


async def test_a_subport_has_rules_of_its_own() -> None:
    async with lab(["host1"]) as place:
        parent, far = port("10.0.0.1"), port("10.1.0.2", network=OTHER)
        web = rule("ingress", protocol=f.TCP, range_min=80, range_max=80)
        own_group = str(uuid.UUID(int=5 << 96))
        one = subport(parent, 7, "10.1.0.1", groups=(own_group,))
        await wire(place, parent, one, far, groups=(OPEN, group(*ALL_OUT, web, group_id=own_group)))
        guest, its = await place.plug("host1", parent), await place.plug("host1", far)
        mine = Tagged(guest, one)
        assert await its.gets(mine, udp(one, far))
        assert await mine.gets(its, tcp(far, one, 80))
        before = await place.networks["host1"].counters()
        for name, frame in (
            ("spoofed_mac", udp(one, far, mac=parent.mac)),
            ("spoofed_ipv4", udp(one, far, source="10.1.0.9")),
            ("spoofed_arp", f.arp(one.mac, says=("10.1.0.9", one.mac), asks="10.1.0.2")),
            ("ethertype", tagged(udp(one, far), 7)),
        ):
            assert not await its.gets(mine, frame), name
            after = await place.networks["host1"].counters()
            assert after[name] == before[name] + 1, name
            before = after
        assert not await mine.gets(its, tcp(far, one, 22))
        assert (await place.networks["host1"].counters())["denied_in"] == before["denied_in"] + 1
        down = w.Port(**{name: getattr(one, name) for name in one.__struct_fields__} | {"up": False})
        await wire(place, parent, down, far, groups=(OPEN, group(*ALL_OUT, web, group_id=own_group)))
        up = Tagged(guest, subport(parent, 8, "10.1.0.3", groups=(own_group,)))
        await wire(place, parent, down, up.port, far, groups=(OPEN, group(*ALL_OUT, web, group_id=own_group)))
        mark = f.marker(up.port.mac)
        mine.send(udp(one, far))
        up.send(mark)
        assert await its.until(mark) == []
        # What it has sent, and the other's marker, which is for everybody.
        assert (await place.networks["host1"].counters())["not_wired"] == before["not_wired"] + 2


async def test_other_tags_are_dropped_and_counted_also_without_port_security() -> None:
    async with lab(["host1"]) as place:
        parent = port("10.0.0.1", secured=False, groups=())
        one, near = subport(parent, 7, "10.1.0.1"), port("10.0.0.2")
        await wire(place, parent, one, near)
        guest, its = await place.plug("host1", parent), await place.plug("host1", near)
        for kind, tag in ((f.VLAN, 8), (f.QINQ, 7), (f.VLAN, 4095)):
            before = (await place.networks["host1"].counters())["ethertype"]
            assert not await its.gets(guest, tagged(udp(parent, near), tag, kind)), (kind, tag)
            assert (await place.networks["host1"].counters())["ethertype"] == before + 1
        assert await its.gets(guest, udp(parent, near))


@pytest.mark.parametrize("count", [1, 400, 4094])
def test_the_kernel_takes_the_program_of_a_trunk_with_every_tag(count: int) -> None:
    os.close(bpf.load(bpf.sorting({tag: 1000 + tag for tag in range(1, count + 1)})))


def test_a_program_that_the_kernel_refuses_is_refused_with_its_words() -> None:
    with pytest.raises(bpf.NoProgram, match=r"^the kernel takes no program: Permission denied .*R0 !read_ok"):
        bpf.load([(0x95, 0, 0, 0, 0)])


async def test_subports_come_and_go_while_the_guest_runs_and_nothing_is_left_of_them() -> None:
    async with lab(["host1"]) as place:
        parent, far = port("10.0.0.1"), port("10.1.0.2", network=OTHER)
        one = subport(parent, 7, "10.1.0.1")
        await wire(place, parent, far)
        guest, its = await place.plug("host1", parent), await place.plug("host1", far)
        assert await programs(place) == 0
        mine = Tagged(guest, one)
        mine.send(udp(one, far))
        assert one.id in (await wire(place, parent, far, one)).linked
        assert await its.gets(mine, udp(one, far))
        # The same port with another tag, and then in no trunk.
        moved = subport(parent, 8, "10.1.0.1")
        again = w.Port(**{name: getattr(one, name) for name in one.__struct_fields__} | {"carried": moved.carried})
        await wire(place, parent, far, again)
        before = (await place.networks["host1"].counters())["ethertype"]
        mine.send(udp(one, far))
        assert await its.gets(Tagged(guest, again), udp(one, far, number=5001))
        assert (await place.networks["host1"].counters())["ethertype"] == before + 1
        await wire(place, parent, far)
        assert await devices(place) == {names.tap(own.id): "tun" for own in (parent, far)}
        assert await programs(place) == 0
        # A guest that ends takes its tap along; the subport's device follows.
        await wire(place, parent, far, one)
        assert (await devices(place))[names.tap(one.id)] == "ifb"
        place.guests.remove(guest)
        guest.close()
        assert (await place.networks["host1"].in_force()).linked == (far.id,)
        await wire(place, parent, far, one)
        assert await devices(place) == {names.tap(far.id): "tun"}
        guest = await place.plug("host1", parent)
        assert await its.gets(Tagged(guest, one), udp(one, far))


async def test_an_agent_that_starts_again_finds_subports_and_disturbs_none() -> None:
    async with lab(["host1"]) as place:
        parent, far = port("10.0.0.1"), port("10.1.0.2", network=OTHER)
        one, gone = subport(parent, 7, "10.1.0.1"), subport(parent, 9, "10.1.0.3")
        await wire(place, parent, far, one, gone)
        guest, its = await place.plug("host1", parent), await place.plug("host1", far)
        before = await devices(place)
        await place.networks["host1"].close()
        assert await its.gets(Tagged(guest, one), udp(one, far)), "without an agent"
        place.networks["host1"] = await reopened("192.0.2.1", place.namespaces["host1"])
        assert await its.gets(Tagged(guest, one), udp(one, far)), "before the first wiring"
        await wire(place, parent, far, one)
        assert await devices(place) == {name: kind for name, kind in before.items() if name != names.tap(gone.id)}
        assert await its.gets(Tagged(guest, one), udp(one, far))


async def test_what_an_earlier_agent_left_goes_also_if_the_first_wiring_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lab(["host1"]) as place:
        parent, far = port("10.0.0.1"), port("10.1.0.2", network=OTHER)
        one = subport(parent, 7, "10.1.0.1")
        await wire(place, parent, far, one)
        await place.plug("host1", parent)
        await place.networks["host1"].close()
        place.networks["host1"] = await reopened("192.0.2.1", place.namespaces["host1"])
        # It has applied as far as ports can be plugged, and no further.
        with monkeypatch.context() as patched:
            patched.setattr(Carrying, "apply", broken)
            with pytest.raises(DriverError):
                await wire(place, parent, far)
        await place.plug("host1", far)
        await wire(place, parent, far)
        assert await devices(place) == {names.tap(own.id): "tun" for own in (parent, far)}
        assert await programs(place) == 0


async def test_a_device_that_a_killed_agent_has_just_made_is_used_and_is_silent() -> None:
    async with lab(["host1"]) as place:
        parent, far = port("10.0.0.1"), port("10.1.0.2", network=OTHER)
        one = subport(parent, 7, "10.1.0.1")
        await wire(place, parent, far)
        guest, its = await place.plug("host1", parent), await place.plug("host1", far)
        await asyncio.to_thread(_made, place, names.tap(one.id))
        await wire(place, parent, far, one)
        assert await its.gets(Tagged(guest, one), udp(one, far))
        assert await asyncio.to_thread(_own_addresses, place, names.tap(one.id)) == []


def _made(place: Lab, name: str) -> None:
    with namespaces.inside(place.namespaces["host1"]), IPRoute() as route:
        route.link("add", ifname=name, kind="ifb")


def _own_addresses(place: Lab, name: str) -> list[str]:
    with namespaces.inside(place.namespaces["host1"]), IPRoute() as route:
        [index] = route.link_lookup(ifname=name)
        return [str(one.get_attr("IFA_ADDRESS")) for one in route.get_addr(index=index)]


async def test_a_plug_that_fails_at_the_subports_leaves_no_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lab(["host1"]) as place:
        parent = port("10.0.0.1")
        one = subport(parent, 7, "10.1.0.1")
        await wire(place, parent, one)
        with monkeypatch.context() as patched:
            patched.setattr(Carrying, "apply", broken)
            with pytest.raises(DriverError, match="ENOBUFS"):
                await place.networks["host1"].plug(parent.id)
        assert await devices(place) == {}
        await place.plug("host1", parent)
        assert await devices(place) == {names.tap(parent.id): "tun", names.tap(one.id): "ifb"}


def broken(*_arguments: object, **_more: object) -> list[w.NotDone]:
    raise NetlinkError(errno.ENOBUFS, "ENOBUFS")


async def test_a_guest_hears_about_itself_on_its_subports_too() -> None:
    async with lab(["host1"]) as place:
        parent = port("10.0.0.1")
        one, late = subport(parent, 7, "10.1.0.1"), subport(parent, 8, "10.2.0.1", THIRD)
        await wire(place, parent, one)
        guest = await place.plug("host1", parent)
        await place.networks["host1"].tell(parent.id, told("ours"))
        await wire(place, parent, one, late)
        for number, own in ((40_001, one), (40_002, late)):
            assert await Call(Tagged(guest, own), number).get("/openstack/latest/user_data") == (200, b"ours")
        await place.networks["host1"].tell(parent.id, told("changed"))
        assert await Call(Tagged(guest, late), 40_003).get("/openstack/latest/user_data") == (200, b"changed")
        await place.networks["host1"].tell(parent.id, None)
        assert (await Call(Tagged(guest, one), 40_004).get("/openstack/latest/user_data"))[0] == 404


async def test_a_move_takes_subports_along_and_frames_for_them_follow_at_the_commit() -> None:
    async with lab(["host1", "host2", "host3"]) as place:
        parent, far = port("10.0.0.1"), port("10.1.0.2", network=OTHER)
        one = subport(parent, 7, "10.1.0.1")

        async def tell(active: str) -> None:
            for number, host in enumerate(("host1", "host2"), start=1):
                here = active == host
                ports = [
                    w.Port(**{name: getattr(own, name) for name in own.__struct_fields__} | {"active": here})
                    for own in (parent, one)
                ]
                await apply(host, ports, peers=("192.0.2.3",), remotes=(w.Remote(far.mac, "192.0.2.3"),))
                del number
            at = {"host1": "192.0.2.1", "host2": "192.0.2.2"}
            await apply("host3", [far], peers=tuple(at.values()), remotes=(w.Remote(one.mac, at[active]),))

        async def apply(host: str, ports: list[w.Port], **of_other: object) -> None:
            networks = [network(OTHER, 8, **of_other)]
            if parent.id in {own.id for own in ports}:
                networks.append(network())
            wiring = w.Wiring(
                host=host, revision=next(revisions), networks=tuple(networks), ports=tuple(ports), groups=(OPEN,)
            )
            assert (await place.networks[host].apply(wiring)).not_done == ()

        await tell("host1")
        source, its = await place.plug("host1", parent), await place.plug("host3", far)
        destination = await place.plug("host2", parent)
        assert await its.gets(Tagged(source, one), udp(one, far))
        assert await Tagged(source, one).gets(its, udp(far, one))
        await tell("host2")
        assert await Tagged(destination, one).gets(its, udp(far, one))
        assert await its.gets(Tagged(destination, one), udp(one, far))
