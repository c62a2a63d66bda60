"""Routers of a host: each is a network namespace, joined to the bridges of its networks by veth pairs.

A router is made as its description says, part by part. What an earlier process left is found by name. The rules of a
router are in force before it is joined to its first network.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cumulet.drivers.linux_network import metering, names, namespaces, nft, router_rules
from cumulet.drivers.linux_network.announcements import announce
from cumulet.drivers.linux_network.connections import Connection, forget
from cumulet.drivers.linux_network.links import Links
from cumulet.drivers.linux_network.names import TABLE
from cumulet.host import routing
from cumulet.host import wiring as w
from cumulet.host.traffic import Metered

_MAIN_TABLE, _STATIC = 254, 4
"""RT_TABLE_MAIN, RTPROT_STATIC: these are ours; routes that follow from addresses have another protocol."""
_PRIORITY = 1
_SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/conf/all/arp_ignore": "1",
    "ipv4/conf/all/arp_announce": "2",
}


class Routers:
    """Used only by the network's thread, which lives in the host's namespace."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._host = namespaces.identity()
        self._there: dict[str, w.Router] = {}
        """The description in force of each router. A router that is not here is compared with the kernel."""
        self._of_gone: Counter[str] = Counter()
        """Packets dropped by routers that have left this host."""
        self._metered_by_gone: dict[str, Metered] = {}
        """What those routers have passed, by metering label, as long as a router here has that label."""

    def apply(self, wiring: w.Wiring, *, but: Collection[str] = ()) -> list[w.NotDone]:
        """Make all routers as the wiring says; returns what failed. `but`: networks that are not connected here."""
        networks = {network.id: network for network in wiring.networks if network.id not in but}
        wanted = {names.namespace(self._host, router.id) for router in wiring.routers}
        for name in namespaces.named(names.namespaces_of(self._host)) - wanted:
            self._of_gone.update(_counted(name))
            self._metered_by_gone = metering.total((self._metered_by_gone, _metered(name)))
            namespaces.remove(name)
        labels = {meter.label for router in wiring.routers for meter in router.meters}
        self._metered_by_gone = {label: of for label, of in self._metered_by_gone.items() if label in labels}
        self._there = {router.id: self._there[router.id] for router in wiring.routers if router.id in self._there}
        present = self._links.present() if wiring.routers else {}
        not_done = []
        for router in wiring.routers:
            cables = {names.router_port(port.id) for port in router.ports}
            if self._there.get(router.id) == router and cables <= present.keys():
                continue
            before = self._there.pop(router.id, None)
            missing = [port.network_id for port in router.ports if port.network_id not in networks]
            if missing:
                not_done.append(
                    w.NotDone(subject=router.id, reason=f"network {missing[0]} is not connected on this host")
                )
                continue
            try:
                self._apply(router, before, networks)
            except (OSError, NetlinkError, nft.NftFailed) as refused:
                not_done.append(w.NotDone(subject=router.id, reason=str(refused)))
                continue
            self._there[router.id] = router
        return not_done

    def remove(self) -> None:
        """Remove all routers."""
        for name in namespaces.named(names.namespaces_of(self._host)):
            namespaces.remove(name)
        self._there = {}

    def dropped(self) -> dict[str, int]:
        """Packets that routers of this host have dropped, by cause. A router counts from when it was made."""
        total = Counter(dict.fromkeys(router_rules.COUNTERS, 0))
        total.update(self._of_gone)
        for name in sorted(namespaces.named(names.namespaces_of(self._host))):
            total.update(_counted(name))
        return dict(total)

    def metered(self) -> dict[str, Metered]:
        """What routers of this host have passed, by metering label, likewise."""
        there = sorted(namespaces.named(names.namespaces_of(self._host)))
        return metering.total((self._metered_by_gone, *map(_metered, there)))

    # -- one router

    def _apply(self, router: w.Router, before: w.Router | None, networks: dict[str, w.Network]) -> None:
        name = names.namespace(self._host, router.id)
        namespaces.make(name)
        with namespaces.inside(name):
            if before is None:
                _prepare()
            _rules(router, before)
        for port in router.ports:
            self._links.plug_router(port, networks[port.network_id], _end(router, port), namespaces.FOLDER / name)
        with namespaces.inside(name), IPRoute() as route:
            added = _addresses(route, router, networks)
            _routes(route, router)
            translation = _Translation(router)
            forget(lambda connection: not translation.lasts(connection))
            if router.gateway is not None:
                announce(names.OUTSIDE, router.gateway.mac, [one for one in added if ":" not in one])


def _prepare() -> None:
    for setting, value in _SETTINGS.items():
        path = Path("/proc/sys/net") / setting
        if path.exists():  # A kernel without IPv6 lacks some.
            path.write_text(value)
    with IPRoute() as route:
        route.link("set", index=1, state="up")
    if nft.run_json("list", "chain", "inet", TABLE, router_rules.VERSION) is None:
        nft.run_text(router_rules.TEXT)


def _counted(namespace: str) -> dict[str, int]:
    """Packets that the router in this namespace has dropped, by cause; empty without its table."""
    with contextlib.suppress(OSError, nft.NftFailed), namespaces.inside(namespace):
        found = nft.counters("inet", TABLE)
        return {name: packets for name, packets in found.items() if name in router_rules.COUNTERS}
    return {}


def _metered(namespace: str) -> dict[str, Metered]:
    """What the router in this namespace has passed, by metering label."""
    with contextlib.suppress(OSError, nft.NftFailed), namespaces.inside(namespace):
        return metering.read(nft.counted("inet", TABLE))
    return {}


def _rules(router: w.Router, before: w.Router | None) -> None:
    """Write all maps in one transaction: a packet meets the old content or the new."""
    limits = router_rules.limits(router)
    former = nft.limits("inet", TABLE) if before is None else router_rules.limits(before)
    commands: list[nft.Command] = [
        {"add": {"limit": limits[name].described("inet", TABLE)}} for name in limits.keys() - former.keys()
    ]
    for name, elements in router_rules.content(router).items():
        place: dict[str, object] = {"family": "inet", "table": TABLE, "name": name}
        commands.append({"flush": {"set" if name in router_rules.SETS else "map": place}})
        if elements:
            commands.append({"add": {"element": place | {"elem": elements}}})
    for name in former.keys() - limits.keys():
        commands.append({"delete": {"limit": {"family": "inet", "table": TABLE, "name": name}}})
    there = metering.names_in(nft.counters("inet", TABLE)) if before is None else metering.named(before)
    nft.run_commands([*commands, *metering.commands(router, there)])


def _end(router: w.Router, port: w.RouterPort) -> str:
    return names.OUTSIDE if router.gateway is not None and port.id == router.gateway.id else names.inside(port.id)


def _addresses(route: IPRoute, router: w.Router, networks: dict[str, w.Network]) -> list[str]:
    """Give each interface its addresses, and remove other interfaces. Returns the new addresses outside."""
    ends = {_end(router, port): port for port in router.ports}
    links = {link.get("ifname"): link for link in route.get_links()}
    for name, link in links.items():
        if name != "lo" and name not in ends:
            route.link("del", index=link["index"])
    added = []
    for name, port in ends.items():
        index = links[name]["index"]
        wanted = set(port.addresses)
        if name == names.OUTSIDE:
            translated = {one.outside for one in router.floating_ips} | {one.outside for one in router.forwardings}
            wanted |= {f"{address}/32" for address in translated}
        there = {
            f"{entry.get('address')}/{entry['prefixlen']}"
            for entry in route.get_addr(index=index)
            if not str(entry.get("address")).startswith("fe80:")
        }
        for text in there - wanted:
            address, _, length = text.partition("/")
            route.addr("del", index=index, address=address, prefixlen=int(length))
        route.link("set", index=index, mtu=networks[port.network_id].mtu, state="up")
        for text in sorted(wanted - there):
            address, _, length = text.partition("/")
            route.addr("replace", index=index, address=address, prefixlen=int(length))
            if name == names.OUTSIDE:
                added.append(address)
    return added


def _routes(route: IPRoute, router: w.Router) -> None:
    """Set the router's routes and its default routes, and remove other static routes.

    A route of the router's owner whose next hop no port reaches is left out; it is set when one does.
    """
    wanted = {(one.destination, one.nexthop) for one in router.routes}
    own = {destination for destination, _ in wanted}
    ways_out = {("::/0" if ":" in hop else "0.0.0.0/0", hop) for hop in router.next_hops}
    wanted |= {way for way in ways_out if way[0] not in own}
    wanted |= {(cidr, "") for cidr in router.on_link}
    there = set()
    for family in (2, 10):
        for entry in route.get_routes(family=family, table=_MAIN_TABLE):
            if entry["proto"] == _STATIC:
                everywhere = "::/0" if family == 10 else "0.0.0.0/0"
                destination = entry.get("dst")
                text = everywhere if destination is None else f"{destination}/{entry['dst_len']}"
                there.add((text, str(entry.get("gateway") or "")))
    outside = route.link_lookup(ifname=names.OUTSIDE)
    for what, ways in (("del", there - wanted), ("replace", wanted - there)):
        # Routes without a next hop first: by them the next hops of others are reached.
        for destination, nexthop in sorted(ways, key=lambda way: (way[1] != "", way)):
            way: dict[str, object] = {"gateway": nexthop} if nexthop else {"oif": outside[0], "scope": 253}
            if ":" not in destination:  # Routes that follow from addresses have no priority, and are not replaced.
                way["priority"] = _PRIORITY
            try:
                route.route(what, dst=destination, proto=_STATIC, table=_MAIN_TABLE, **way)
            except NetlinkError:
                if what == "replace" and destination not in ("0.0.0.0/0", "::/0"):
                    continue
                raise


class _Translation:
    """How a router translates, made once and asked of each of its connections. A router may have as many floating IPs
    and forwardings as its project, and connections without number."""

    def __init__(self, router: w.Router) -> None:
        self._own = set(router_rules.outside_addresses(router))
        self._lead = {floating.outside: floating.inside for floating in router.floating_ips}
        self._forwardings: dict[tuple[str, int], list[w.Forwarding]] = {}
        """By outside address and protocol. No two of them share an outside port."""
        for forwarding in sorted(router.forwardings, key=_first_port):
            self._forwardings.setdefault((forwarding.outside, forwarding.protocol), []).append(forwarding)

    def lasts(self, connection: Connection) -> bool:
        """Whether a connection would be translated now as it was when it began."""
        came_to = (connection.destination, connection.destination_port)
        goes_to = (connection.answered_by, connection.answered_from_port)
        led = came_to == goes_to or self._lead.get(connection.destination) == connection.answered_by
        if not led and not self._forwards(connection):
            return False
        seen_as = connection.answered_to
        return seen_as == connection.source or seen_as in self._own or self._lead.get(seen_as) == connection.source

    def _forwards(self, connection: Connection) -> bool:
        port = connection.destination_port
        forwardings = self._forwardings.get((connection.destination, connection.protocol))
        if forwardings is None or port is None:
            return False
        place = bisect_right(forwardings, port, key=_first_port)
        if place == 0:
            return False
        forwarding = forwardings[place - 1]
        leads_to = (forwarding.inside, routing.inside_port(forwarding, port))
        return leads_to == (connection.answered_by, connection.answered_from_port)


def _first_port(forwarding: w.Forwarding) -> int:
    return forwarding.outside_ports[0]
