"""A cloud of random networks, routers and rules, made through the API, and random packets for it."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from cumulet.db.engine import Tx
from cumulet.host.verdict import Packet
from cumulet.network import addresses
from cumulet.network.store import Network, Port, find, networks
from cumulet.network.trunk_ports import carriers
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import ask_for
from tests.linux_network import frames as f
from tests.testing.test_reachability import made

OUTSIDE_MAC = "02:00:00:aa:aa:aa"
PROJECTS = ("member", "other_member")
NUMBERS = (22, 53, 80, 443)
OUTSIDE = ("172.24.4.1", "198.51.100.7")
"""Addresses outside of the cloud."""
QUESTIONS, ANSWERS = (8, 13), (0, 3, 11)
"""ICMP types that begin a connection, and types that do not."""
_own_numbers = itertools.cycle(range(10_000, 60_000))


@dataclass(slots=True)
class Project:
    """What one project has. The other has networks with the same addresses."""

    client: Client
    chance: random.Random
    public: str
    networks: list[str] = field(default_factory=list)
    subnets: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    routers: list[str] = field(default_factory=list)

    def put(self, path: str, **body: object) -> None:
        """A refusal is accepted: a random request may be impossible."""
        answer = self.client.request("PUT", f"/network/v2.0{path}", body)
        assert answer.status in (200, 400, 404, 409), answer.text

    def make(self) -> None:
        for number in range(self.chance.choice((2, 2, 3))):
            self._network(number)
        for _ in range(self.chance.choice((1, 2, 3))):
            group = made(self.client, "security_group", name="g", stateful=self.chance.random() < 0.8)
            self.groups.append(group)
        for group in self.groups:
            for _ in range(self.chance.randint(2, 6)):
                self._rule(group)
        for _ in range(self.chance.choice((0, 1, 1, 1, 2))):
            self._router()

    def _network(self, number: int) -> None:
        network = made(self.client, "network", name=f"n{number}")
        self.networks.append(network)
        attributes = {"network_id": network, "enable_dhcp": self.chance.random() < 0.8}
        self.subnets.append(made(self.client, "subnet", ip_version=4, cidr=f"10.0.{number}.0/24", **attributes))
        if self.chance.random() < 0.5:
            self.subnets.append(made(self.client, "subnet", ip_version=6, cidr=f"2001:db8:{number}::/64", **attributes))

    def _rule(self, group: str) -> None:
        chance = self.chance
        six = chance.random() < 0.3
        rule: dict[str, object] = {
            "security_group_id": group,
            "direction": chance.choice(("ingress", "ingress", "egress")),
            "ethertype": "IPv6" if six else "IPv4",
        }
        protocol = chance.choice((None, None, None, "tcp", "udp", "icmp"))
        if protocol is not None:
            rule["protocol"] = protocol
        if protocol in ("tcp", "udp") and chance.random() < 0.6:
            rule["port_range_min"], rule["port_range_max"] = sorted(chance.choices(NUMBERS, k=2))
        elif protocol == "icmp" and chance.random() < 0.6:
            rule["port_range_min"] = chance.choice((128, 1) if six else (8, 3))
        remote = chance.random()
        if remote < 0.25:
            some = ("2001:db8::/63", "2001:db8:1::/64") if six else ("10.0.0.0/24", "10.0.0.0/23", "172.24.4.0/24")
            rule["remote_ip_prefix"] = chance.choice(some)
        elif remote > 0.8:
            rule["remote_group_id"] = chance.choice(self.groups)
        elif remote > 0.7:
            lists = ["10.0.0.0/30", "10.0.1.3", "2001:db8:1::/126", "172.24.4.0/28", "10.0.0.2/31"]
            addresses = chance.sample(lists, chance.randrange(4))
            rule["remote_address_group_id"] = made(self.client, "address_group", name="a", addresses=addresses)
        answer = self.client.request("POST", "/network/v2.0/security-group-rules", {"security_group_rule": rule})
        assert answer.status in (201, 409), answer.text

    def _router(self) -> None:
        router = made(self.client, "router", name="r")
        self.routers.append(router)
        for subnet in self.chance.sample(self.subnets, self.chance.randint(1, min(3, len(self.subnets)))):
            self.put(f"/routers/{router}/add_router_interface", subnet_id=subnet)
        if self.chance.random() < 0.8:
            self.put(f"/routers/{router}", router={"external_gateway_info": {"network_id": self.public}})

    def port(self) -> str:
        """Of a server of its own."""
        chance = self.chance
        attributes: dict[str, object] = {
            "network_id": chance.choice(self.networks),
            "security_groups": chance.sample(self.groups, min(len(self.groups), chance.choice((0, 1, 2, 2)))),
        }
        if chance.random() < 0.25:
            pair = {"ip_address": chance.choice(("10.9.0.0/30", "10.0.0.250", "2001:db8:9::/126"))}
            if chance.random() < 0.5:
                pair["mac_address"] = "02:00:00:ee:ee:ee"
            attributes["allowed_address_pairs"] = [pair]
        if chance.random() < 0.1:
            attributes |= {"admin_state_up": False}
        if chance.random() < 0.15:
            attributes |= {"port_security_enabled": False, "security_groups": [], "allowed_address_pairs": []}
        return made(self.client, "port", **attributes)

    def trunk(self, parent: str) -> list[str]:
        """Now and then a trunk with this parent; the ids of its subports."""
        subports = [self.port() for _ in range(self.chance.choice((0, 0, 1, 2)))]
        if subports:
            tags = self.chance.sample(range(1, 4095), len(subports))
            carried = [
                {"port_id": port, "segmentation_type": "vlan", "segmentation_id": tag}
                for port, tag in zip(subports, tags, strict=True)
            ]
            made(self.client, "trunk", port_id=parent, sub_ports=carried)
        return subports

    def change(self, admin: Client, port_ids: list[str]) -> None:
        """Floating IPs, forwardings, routes, and what only an administrator may set."""
        chance = self.chance
        for router in self.routers:
            if chance.random() < 0.2:
                gateway = {"network_id": self.public, "enable_snat": False}
                admin.request("PUT", f"/network/v2.0/routers/{router}", {"router": {"external_gateway_info": gateway}})
            if chance.random() < 0.3:
                routes = [
                    {"destination": "10.0.2.0/24", "nexthop": chance.choice(("10.0.0.1", "10.0.1.1", "10.0.0.9"))}
                ]
                self.put(f"/routers/{router}", router={"routes": routes})
            if chance.random() < 0.1:
                self.put(f"/routers/{router}", router={"admin_state_up": False})
        for port in chance.sample(port_ids, min(3, len(port_ids))):
            wanted: dict[str, object] = {"floating_network_id": self.public}
            forwards = chance.random() < 0.4
            if not forwards and chance.random() < 0.9:
                wanted["port_id"] = port
            answer = self.client.request("POST", "/network/v2.0/floatingips", {"floatingip": wanted})
            if answer.status == 201 and forwards:
                self._forwardings(answer["floatingip"]["id"], port)

    def _forwardings(self, floating: str, port: str) -> None:
        fixed = self.client.request("GET", f"/network/v2.0/ports/{port}")["port"]["fixed_ips"]
        address = next((one["ip_address"] for one in fixed if ":" not in one["ip_address"]), None)
        if address is None:
            return
        one = {"protocol": self.chance.choice(("tcp", "udp")), "internal_port_id": port, "internal_ip_address": address}
        one |= self.chance.choice(
            (
                {"external_port": 80, "internal_port": 22},
                {"external_port_range": "53:80", "internal_port_range": "22:49"},
                {"external_port_range": "22:443", "internal_port_range": "53:53"},
            )
        )
        path = f"/network/v2.0/floatingips/{floating}/port_forwardings"
        assert self.client.request("POST", path, {"port_forwarding": one}).status in (201, 400, 404, 409)


def populate(cloud: TestCloud, chance: random.Random) -> None:
    """Two projects, with servers on both hosts."""
    admin = cloud.persona("admin")
    public = admin.request("GET", "/network/v2.0/networks?router:external=true")["networks"][0]["id"]
    projects = [Project(cloud.persona(persona), chance, public) for persona in PROJECTS]
    ports_of = {}
    booting: list[tuple[Client, str]] = []
    for project in projects:
        project.make()
        ports_of[project.client.project_id] = plugged = [project.port() for _ in range(chance.choice((3, 4)))]
        for port in list(plugged):
            plugged += project.trunk(port)
            answer = ask_for(project.client, networks=[{"port": port}])
            assert answer.status == 202, answer.text
            booting.append((project.client, answer["server"]["id"]))
    for client, server in booting:
        client.wait_for_status(server, "ACTIVE")
    for project in projects:
        project.change(admin, ports_of[project.client.project_id])


@dataclass(frozen=True, slots=True)
class Known:
    """The ends of random packets: ports of servers, subports too, with their addresses; all addresses on `public`."""

    ports: dict[str, Port]
    addresses: dict[str, list[str]]
    public: list[str]
    others: list[str]
    """Of routers, and of nobody."""


def known(tx: Tx) -> Known:
    """In the order of creation, so that a seed makes the same choices again although ids differ."""
    all_ports = sorted(find(tx, Port), key=lambda port: port.created_at_us)
    external = {network.id for network in find(tx, Network, networks.c.external)}
    held_by = addresses.held_by(tx, [port.id for port in all_ports])
    held = {port.id: [one.address for one in held_by.get(port.id, ()) if one.address] for port in all_ports}
    subports = carriers(tx, held)
    guests = {port.id: port for port in all_ports if port.server_id is not None or port.id in subports}
    public = [port.id for port in all_ports if port.network_id in external]
    others = [port.id for port in all_ports if port.network_id not in external and port.id not in guests]
    return Known(
        ports=guests,
        addresses={port_id: held[port_id] for port_id in guests},
        public=[address for port_id in public for address in held[port_id]],
        others=[address for port_id in others for address in held[port_id]]
        + ["10.0.0.99", "10.0.9.9", "2001:db8:1::99"],
    )


def packet_of(chance: random.Random, at: Known, sender: Port | None) -> Packet:
    """From a port, or (None) from outside."""
    if sender is None:
        source, destination = chance.choice(OUTSIDE), chance.choice(at.public)
    else:
        everywhere = [one for held in at.addresses.values() for one in held]
        near = [
            one for port in at.ports.values() if port.network_id == sender.network_id for one in at.addresses[port.id]
        ]
        ours = [
            one for port in at.ports.values() if port.project_id == sender.project_id for one in at.addresses[port.id]
        ]
        choices = chance.choice((at.public, OUTSIDE, at.others, everywhere, ours, ours, ours, near, near))
        destination = chance.choice([one for one in choices if one not in at.addresses[sender.id]] or everywhere)
        own = [one for one in at.addresses[sender.id] if (":" in one) == (":" in destination)]
        source = chance.choice(own) if own and chance.random() < 0.9 else spoofed(chance, destination)
    six = ":" in destination
    kind = chance.choice((f.TCP, f.TCP, f.UDP, f.ICMP6 if six else f.ICMP))
    if kind in (f.ICMP, f.ICMP6):
        types = (128, 128, 1, 130, 143) if six else (*QUESTIONS, 8, *ANSWERS)
        first, second = chance.choice(types), chance.choice((0, 0, 1))
    elif kind == f.UDP and chance.random() < 0.1:
        first, second = chance.choice(((68, 67), (67, 68), (546, 547), (547, 546)))
    else:
        # No two packets have the same number, so that none is an answer to another.
        first, second = next(_own_numbers), chance.choice(NUMBERS)
    mac = OUTSIDE_MAC if sender is None else sender.mac_address
    if sender is not None and chance.random() < 0.05:
        mac = "02:00:00:ee:ee:ee"
    return Packet(
        mac=mac, source=source, destination=destination, protocol=kind, source_port=first, destination_port=second
    )


def spoofed(chance: random.Random, destination: str) -> str:
    return chance.choice(
        ("2001:db8::99", "2001:db8:9::1") if ":" in destination else ("10.0.0.250", "10.9.0.1", "10.0.0.77")
    )
