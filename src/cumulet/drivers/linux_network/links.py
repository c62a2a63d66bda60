"""Bridges, VXLAN devices and forwarding entries, by rtnetlink, in the network namespace of the calling thread.

The present state is read and compared with the wiring: at first, when the same is told again, and once a minute. Else
only what the wiring changes is done. Interfaces whose names are not ours are never touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD

from cumulet.drivers.linux_network import names, rtnetlink
from cumulet.drivers.linux_network.rtnetlink import BY_BRIDGE, NOARP, Change, Entry, Link
from cumulet.drivers.linux_network.taps import kernel_has_ipv6, silence, speak_only_as
from cumulet.host import wiring as w
from cumulet.host.traffic import PortTraffic

VXLAN_UDP_PORT = 4789
"""IANA's."""
EVERYBODY = "00:00:00:00:00:00"
_STICKY = 0x40
"""NTF_STICKY: frames that come in at another port of the bridge do not move the entry."""
MOST_LEARNED = 4096
"""Forwarding entries that the bridge of a network learns from what guests send. Ports with port security send from few
MAC addresses; one without may send from any number, and what is learned takes the kernel's memory."""
SECONDS_UNTIL_COMPARED = 60.0
"""How long what was done is taken for what is there."""


class NoDevice(Exception):
    """A device is not there: the one that leads to a physical network, or a network's bridge."""


UNDONE = (NetlinkError, NoDevice, OSError, ValueError)
"""Raised by what cannot be done of one network: the kernel refuses it, or what it is told is no address."""


class Links:
    """All of a host's links of ours."""

    def __init__(self, local_address: str, physical: Mapping[str, str] | None = None) -> None:
        """`physical`: the device that leads to each physical network."""
        self._local = local_address
        """Where other hosts reach this one: the outer address of what is sent to them."""
        self.physical = dict(physical or {})
        self._answering: set[str] = set()
        """The bridges that `_answer` has given their addresses."""
        self._done: w.Wiring | None = None
        """What was done last, if all of it was."""
        self._compared = 0.0
        """When it was compared with what is there; monotonic."""
        self._route = IPRoute()

    def close(self) -> None:
        self._route.close()

    def present(self) -> dict[str, Link]:
        """Our interfaces by name."""
        return {link.name: link for link in rtnetlink.links()}

    def traffic(self, port_id: str) -> PortTraffic | None:
        """What went through a port's tap, as its guest counts it: what the tap sends, the guest receives."""
        for index in self._route.link_lookup(ifname=names.tap(port_id)):
            (link,) = self._route.get_links(index)
            counted = link.get("stats64")
            return PortTraffic(
                rx_packets=counted["tx_packets"],
                rx_bytes=counted["tx_bytes"],
                tx_packets=counted["rx_packets"],
                tx_bytes=counted["rx_bytes"],
                rx_drops=counted["tx_dropped"],
            )
        return None

    def apply(self, wiring: w.Wiring) -> list[w.NotDone]:
        """Make bridges, VXLAN devices and forwarding entries as the wiring says; returns what failed."""
        done, self._done = self._done, None
        now = time.monotonic()
        if done is not None and (now - self._compared >= SECONDS_UNTIL_COMPARED or _same(done, wiring)):
            done = None
        not_done = self._apply(wiring, done)
        if not not_done:
            self._done = wiring
            self._compared = now if done is None else self._compared
        return not_done

    def _apply(self, wiring: w.Wiring, done: w.Wiring | None) -> list[w.NotDone]:
        """`done`: what is there; None while that is not known."""
        wanted, there = _parts(wiring), {} if done is None else _parts(done)
        cables = _cables(wiring)
        if done is not None and wanted == there and cables == _cables(done):
            return []
        present = self.present()
        entries = rtnetlink.entries() if done is None else None
        not_done: list[w.NotDone] = []
        for part in wanted.values():
            network, before = part.network, there.get(part.network.id)
            if part == before:
                continue
            problem = self._refused(network)
            if problem is None:
                try:
                    self._network(part, before, present, entries)
                except UNDONE as refused:
                    problem = str(refused) or type(refused).__name__
            if problem is not None:
                not_done.append(w.NotDone(subject=network.id, reason=problem))
        kept = {made(network_id) for network_id in wanted for made in (names.bridge, names.vxlan)} | cables
        for name, link in present.items():
            if name not in kept and not name.startswith(names.TAP):
                self._delete(link.index)
                self._answering.discard(name)
        return not_done

    def remove(self) -> None:
        """Remove every interface of ours, also taps that guests hold open."""
        self._answering, self._done = set(), None
        for link in self.present().values():
            self._delete(link.index)

    def attach(self, tap: str, network: w.Network, *, mac: str, active: bool) -> None:
        """Put a tap on its network's bridge and its link up. Its rules must be in force. NoDevice without a bridge."""
        present = self.present()
        bridge, link = present.get(names.bridge(network.id)), present[tap]
        if bridge is None:
            raise NoDevice(f"network {network.id} is not connected on this host yet")
        self._route.link("set", index=link.index, master=bridge.index, mtu=network.mtu)
        self._route.link("set", index=link.index, state="up")
        if active:
            self._reach(link.index, mac)

    def plug_router(self, port: w.RouterPort, network: w.Network, end: str, namespace: Path) -> None:
        """Join a router's namespace to a network's bridge by a veth pair; `end`: the name of the router's end."""
        present = self.present()
        bridge, name = present[names.bridge(network.id)], names.router_port(port.id)
        link = present.get(name)
        if link is None:
            there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                peer = {"ifname": end, "net_ns_fd": there, "address": port.mac}
                self._route.link("add", ifname=name, kind="veth", peer=peer)
            finally:
                os.close(there)
            silence(name)
            (index,) = self._route.link_lookup(ifname=name)
        else:
            index = link.index
        if link is None or link.master != bridge.index or link.mtu != network.mtu or not link.up:
            self._route.link("set", index=index, master=bridge.index, mtu=network.mtu)
            self._route.brport("set", index=index, learning=0)
            self._route.link("set", index=index, state="up")
        # Frames under its MAC address that come in elsewhere, as from its former host, do not move the entry.
        self._set_entry(index, port.mac, BY_BRIDGE | _STICKY)

    def _refused(self, network: w.Network) -> str | None:
        if network.kind == "flat" and network.physical not in self.physical:
            return f"no device of this host leads to the physical network {network.physical}"
        if network.kind not in ("vxlan", "local", "flat"):
            return f"this host cannot connect guests to networks of type {network.kind}"
        return None

    def _network(
        self, part: _Part, before: _Part | None, present: Mapping[str, Link], entries: Mapping[int, list[Entry]] | None
    ) -> None:
        """`before`: what was done of it. `entries`: all that are there; None where `before` says them."""
        network = part.network
        bridge = present.get(names.bridge(network.id)) or self._add_bridge(network)
        if bridge.most_learned not in (None, MOST_LEARNED):
            rtnetlink.bound_learned(bridge.index, MOST_LEARNED)
        # A flat network has machines that are not guests.
        if network.kind != "flat" and bridge.name not in self._answering:
            self._answer(bridge)
        if bridge.mtu != network.mtu:
            self._route.link("set", index=bridge.index, mtu=network.mtu)
        taps = [(port, tap) for port in part.ports if (tap := present.get(names.tap(port.id))) is not None]
        for port, tap in taps:
            if tap.master is None and tap.kind == "tun":  # Its guest was started when there were no rules for it.
                self.attach(tap.name, network, mac=port.mac, active=port.active)
            elif tap.mtu != network.mtu:
                self._route.link("set", index=tap.index, mtu=network.mtu)
        if network.kind == "flat":
            self._outside(bridge, network)
        if network.vni is None:
            return
        vxlan = present.get(names.vxlan(network.id))
        if vxlan is not None and (vxlan.vni, vxlan.local) != (network.vni, self._local):
            self._delete(vxlan.index)
            vxlan = None
        if vxlan is None:
            vxlan, before = self._add_vxlan(names.vxlan(network.id), network, bridge), None
        if vxlan.mtu != network.mtu:
            self._route.link("set", index=vxlan.index, mtu=network.mtu)
        if before is not None:
            self._forward(vxlan.index, network, *_forwarded(before.network))
        else:
            self._forward(vxlan.index, network, *_listed((entries or {}).get(vxlan.index, ())))
        known = set(before.ports) if before is not None else set()
        for port, tap in taps:
            if tap.master == bridge.index and port.active and port not in known:
                static = entries is not None and any(_is_ours(entry, port.mac) for entry in entries.get(tap.index, ()))
                if not static:
                    self._reach(tap.index, port.mac)

    def _outside(self, bridge: Link, network: w.Network) -> None:
        """Make the device that leads to a physical network a port of the network's bridge."""
        for index in self._route.link_lookup(ifname=self.physical[network.physical or ""]):
            (device,) = self._route.get_links(index)
            if device.get("master") != bridge.index:
                self._route.link("set", index=index, master=bridge.index)
            self._route.link("set", index=index, state="up")
            return
        raise NoDevice(f"the device {self.physical[network.physical or '']} is not there")

    def _add_bridge(self, network: w.Network) -> Link:
        name, mtu = names.bridge(network.id), network.mtu
        self._route.link(
            "add",
            ifname=name,
            kind="bridge",
            address=names.BRIDGE_MAC,
            br_mcast_snooping=0,
            br_forward_delay=0,
            br_nf_call_iptables=1,
            br_nf_call_ip6tables=1,
        )
        silence(name)
        (index,) = self._route.link_lookup(ifname=name)
        rtnetlink.bound_learned(index, MOST_LEARNED)
        self._route.link("set", index=index, mtu=mtu, state="up")
        return Link(index=index, name=name, kind="bridge", mtu=mtu, master=None, up=True, vni=None, local=None)

    def _answer(self, bridge: Link) -> None:
        """Give the host's own end of a bridge the addresses of the metadata service, and no other.

        The IPv6 address gets `IFA_F_NODAD`. Without this flag an address is tentative until a worker of the kernel has
        run, also on an interface without duplicate address detection, and `bind` refuses it (EADDRNOTAVAIL).
        """
        self._route.addr("replace", index=bridge.index, address=w.METADATA_ADDRESS, prefixlen=32)
        if kernel_has_ipv6():
            speak_only_as(bridge.name)
            address = w.METADATA_ADDRESS_6
            self._route.addr("replace", index=bridge.index, address=address, prefixlen=64, flags=IFA_F_NODAD)
        self._answering.add(bridge.name)

    def _add_vxlan(self, name: str, network: w.Network, bridge: Link) -> Link:
        """A VXLAN device that learns no addresses from packets: `_forward` says which host has which."""
        self._route.link(
            "add",
            ifname=name,
            kind="vxlan",
            vxlan_id=network.vni,
            vxlan_local=self._local,
            vxlan_port=VXLAN_UDP_PORT,
            vxlan_learning=0,
        )
        silence(name)
        (index,) = self._route.link_lookup(ifname=name)
        self._route.link("set", index=index, master=bridge.index, mtu=network.mtu)
        self._route.brport("set", index=index, learning=0)
        self._route.link("set", index=index, state="up")
        return Link(
            index=index,
            name=name,
            kind="vxlan",
            mtu=network.mtu,
            master=bridge.index,
            up=True,
            vni=network.vni,
            local=self._local,
        )

    # -- forwarding entries

    def _forward(self, vxlan: int, network: w.Network, there: set[tuple[str, str]], through: set[str]) -> None:
        """Broadcasts go to each peer; what is for one address goes to the host that has it. `there` and `through`: the
        entries that the device and its bridge have."""
        wanted, remote = _forwarded(network)
        changes = [
            *(Change(mac=mac, by_device=True, destination=host, remove=True) for mac, host in there - wanted),
            *(
                Change(mac=mac, by_device=True, destination=host, beside=mac == EVERYBODY)
                for mac, host in wanted - there
            ),
            *(Change(mac=mac, by_device=False, remove=True) for mac in through - remote),
            *(Change(mac=mac, by_device=False) for mac in remote - through),
        ]
        rtnetlink.change(vxlan, changes)

    def _reach(self, tap: int, mac: str) -> None:
        """The bridge sends frames for this MAC address to this tap, also before its guest has sent any."""
        self._set_entry(tap, mac, BY_BRIDGE)

    def _set_entry(self, index: int, mac: str, which: int) -> None:
        self._route.fdb("replace", ifindex=index, lladdr=mac, flags=which, state=NOARP)

    def _delete(self, index: int) -> None:
        with _absent_is_fine():
            self._route.link("del", index=index)


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """What is done here of one network."""

    network: w.Network
    ports: tuple[_Plug, ...]


class _Plug(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    mac: str
    active: bool


def _parts(wiring: w.Wiring) -> dict[str, _Part]:
    """By network."""
    ports: dict[str, list[_Plug]] = {}
    for port in wiring.ports:
        ports.setdefault(port.network_id, []).append(_Plug(id=port.id, mac=port.mac, active=port.active))
    return {
        network.id: _Part(
            network=replace(network, subnets=(), names=(), dns_domain=""), ports=tuple(ports.get(network.id, ()))
        )
        for network in wiring.networks
    }


def _cables(wiring: w.Wiring) -> set[str]:
    return {names.router_port(port.id) for router in wiring.routers for port in router.ports}


def _same(one: w.Wiring, other: w.Wiring) -> bool:
    return replace(one, revision=other.revision) == other


def _forwarded(network: w.Network) -> tuple[set[tuple[str, str]], set[str]]:
    """The entries of a network's VXLAN device, and the addresses that its bridge sends there."""
    # Where the wiring has a MAC address on two hosts, the host that sorts last counts.
    remotes = {remote.mac: remote.host_address for remote in network.remotes}
    return {(EVERYBODY, peer) for peer in network.peers} | set(remotes.items()), set(remotes)


def _listed(entries: Sequence[Entry]) -> tuple[set[tuple[str, str]], set[str]]:
    """The same, as the kernel has them."""
    there = {(entry.mac, str(entry.destination)) for entry in entries if entry.by_device}
    return there, {entry.mac for entry in entries if entry.static and not entry.by_device}


def _is_ours(entry: Entry, mac: str) -> bool:
    """Whether an entry is the one that `_reach` writes for this MAC address."""
    return entry.mac == mac and entry.static and not entry.by_device


@contextlib.contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except NetlinkError as problem:
        if problem.code not in (errno.ENODEV, errno.ENOENT):
            raise
