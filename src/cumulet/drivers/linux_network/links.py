"""Bridges, VXLAN devices and forwarding entries, by rtnetlink, in the network namespace of the calling thread.

The present state is read and compared with the wiring. Interfaces whose names are not ours are never touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD

from cumulet.drivers.linux_network import names
from cumulet.drivers.linux_network.taps import kernel_has_ipv6, silence, speak_only_as
from cumulet.host import wiring as w
from cumulet.host.traffic import PortTraffic

VXLAN_UDP_PORT = 4789
"""IANA's."""
EVERYBODY = "00:00:00:00:00:00"
_BY_DEVICE, _BY_BRIDGE = 2, 4
"""NTF_SELF, NTF_MASTER: the forwarding table of the device itself, and that of the bridge it is a port of."""
_STICKY = 0x40
"""NTF_STICKY: frames that come in at another port of the bridge do not move the entry."""
_NOARP, _PERMANENT = 0x40, 0x80


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of ours as it is."""

    index: int
    name: str
    kind: str
    """`tun` for a tap, `ifb` for a subport's device, `bridge`, `vxlan`, `veth`."""
    mtu: int
    master: int | None
    up: bool
    vni: int | None
    local: str | None


class NoDevice(Exception):
    """A device is not there: the one that leads to a physical network, or a network's bridge."""


class Links:
    """All of a host's links of ours."""

    def __init__(self, local_address: str, physical: Mapping[str, str] | None = None) -> None:
        """`physical`: the device that leads to each physical network."""
        self._local = local_address
        """Where other hosts reach this one: the outer address of what is sent to them."""
        self.physical = dict(physical or {})
        self._answering: set[str] = set()
        """The bridges that `_answer` has given their addresses."""
        self._route = IPRoute()

    def close(self) -> None:
        self._route.close()

    def present(self) -> dict[str, Link]:
        """Our interfaces by name."""
        return {link.name: link for link in map(_link, self._route.get_links()) if link.name[:3] in names.OURS}

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
        present = self.present()
        there = self._forwarding()
        not_done: list[w.NotDone] = []
        taps: dict[str, list[w.Port]] = {}
        for port in wiring.ports:
            taps.setdefault(port.network_id, []).append(port)
        wanted = set()
        for router in wiring.routers:
            wanted |= {names.router_port(port.id) for port in router.ports}
        for network in wiring.networks:
            wanted |= {names.bridge(network.id), names.vxlan(network.id)}
            problem = self._refused(network)
            if problem is None:
                try:
                    self._network(network, taps.get(network.id, []), present, there)
                except (NetlinkError, NoDevice) as refused:
                    problem = str(refused)
            if problem is not None:
                not_done.append(w.NotDone(subject=network.id, reason=problem))
        for name, link in present.items():
            if name not in wanted and not name.startswith(names.TAP):
                self._delete(link.index)
                self._answering.discard(name)
        return not_done

    def remove(self) -> None:
        """Remove every interface of ours, also taps that guests hold open."""
        self._answering = set()
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
        self._fdb("replace", index, port.mac, _BY_BRIDGE | _STICKY)

    def _refused(self, network: w.Network) -> str | None:
        if network.kind == "flat" and network.physical not in self.physical:
            return f"no device of this host leads to the physical network {network.physical}"
        if network.kind not in ("vxlan", "local", "flat"):
            return f"this host cannot connect guests to networks of type {network.kind}"
        return None

    def _network(
        self, network: w.Network, ports: list[w.Port], present: Mapping[str, Link], there: Mapping[int, list[object]]
    ) -> None:
        bridge = present.get(names.bridge(network.id)) or self._add_bridge(network)
        # A flat network has machines that are not guests.
        if network.kind != "flat" and bridge.name not in self._answering:
            self._answer(bridge)
        if bridge.mtu != network.mtu:
            self._route.link("set", index=bridge.index, mtu=network.mtu)
        for port in ports:
            tap = present.get(names.tap(port.id))
            if tap is not None and tap.mtu != network.mtu:
                self._route.link("set", index=tap.index, mtu=network.mtu)
        if network.kind == "flat":
            self._outside(bridge, network)
        if network.vni is None:
            return
        vxlan = present.get(names.vxlan(network.id))
        if vxlan is not None and (vxlan.vni, vxlan.local) != (network.vni, self._local):
            self._delete(vxlan.index)
            vxlan = None
        vxlan = vxlan or self._add_vxlan(names.vxlan(network.id), network, bridge)
        if vxlan.mtu != network.mtu:
            self._route.link("set", index=vxlan.index, mtu=network.mtu)
        self._forward(vxlan.index, network, there.get(vxlan.index, []))
        for port in ports:
            tap = present.get(names.tap(port.id))
            if tap is not None and tap.master == bridge.index and port.active:
                static = any(_is_ours(entry, port.mac) for entry in there.get(tap.index, ()))
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

    def _forwarding(self) -> dict[int, list[Any]]:
        """All entries, by the index of their interface, in one request."""
        found: dict[int, list[object]] = {}
        for entry in self._route.fdb("dump"):
            found.setdefault(entry["ifindex"], []).append(entry)
        return found

    def _forward(self, vxlan: int, network: w.Network, entries: list[Any]) -> None:
        """Broadcasts go to each peer; what is for one address goes to the host that has it."""
        there: set[tuple[str, str]] = set()
        through: set[str] = set()
        for entry in entries:
            mac = str(entry.get("lladdr"))
            if entry["flags"] & _BY_DEVICE:
                there.add((mac, str(entry.get("dst"))))
            elif entry["state"] & _NOARP:
                through.add(mac)
        wanted = {(EVERYBODY, peer) for peer in network.peers}
        # Where the wiring has a MAC address on two hosts, the host that sorts last counts.
        wanted |= set({remote.mac: remote.host_address for remote in network.remotes}.items())
        for mac, address in there - wanted:
            self._fdb("del", vxlan, mac, _BY_DEVICE, dst=address)
        for mac, address in wanted - there:
            self._fdb("append" if mac == EVERYBODY else "replace", vxlan, mac, _BY_DEVICE, dst=address)
        remote = {entry.mac for entry in network.remotes}
        for mac in through - remote:
            self._fdb("del", vxlan, mac, _BY_BRIDGE)
        for mac in remote - through:
            self._fdb("replace", vxlan, mac, _BY_BRIDGE)

    def _reach(self, tap: int, mac: str) -> None:
        """The bridge sends frames for this MAC address to this tap, also before its guest has sent any."""
        self._fdb("replace", tap, mac, _BY_BRIDGE)

    def _fdb(self, what: str, index: int, mac: str, which: int, **more: object) -> None:
        state = _NOARP | (_PERMANENT if which == _BY_DEVICE else 0)
        with _absent_is_fine() if what == "del" else contextlib.nullcontext():
            self._route.fdb(what, ifindex=index, lladdr=mac, flags=which, state=state, **more)

    def _delete(self, index: int) -> None:
        with _absent_is_fine():
            self._route.link("del", index=index)


def _is_ours(entry: Any, mac: str) -> bool:
    """Whether an entry is the one that `_reach` writes for this MAC address."""
    return entry.get("lladdr") == mac and not entry["flags"] & _BY_DEVICE and bool(entry["state"] & _NOARP)


@contextlib.contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except NetlinkError as problem:
        if problem.code not in (errno.ENODEV, errno.ENOENT):
            raise


def _link(message: Any) -> Link:
    data = message.get(("linkinfo", "data"))
    kind = message.get(("linkinfo", "kind"))
    of_vxlan = data if kind == "vxlan" and data is not None else {}
    return Link(
        index=message["index"],
        name=str(message.get("ifname")),
        kind=str(kind),
        mtu=int(message.get("mtu") or 0),
        master=message.get("master"),
        up=message.get("state") == "up",
        vni=of_vxlan.get("vxlan_id") if of_vxlan else None,
        local=of_vxlan.get("vxlan_local") if of_vxlan else None,
    )
