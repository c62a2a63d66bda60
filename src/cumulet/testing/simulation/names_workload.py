"""Names of ports in a run, and the domains of their networks: what a host's DNS server would answer its guests."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, ip_address
from random import Random
from sqlite3 import Connection
from typing import TYPE_CHECKING

from cumulet.drivers.linux_network import dns
from cumulet.testing.simulation.network_requests import Asked, Requests

if TYPE_CHECKING:
    from cumulet.host.wiring import Network, Wiring

NAMES = ("db", "web", "mail", "")
DOMAINS = ("", "example.org.", "corp.test.")
NEUTRON_DOMAIN = "openstacklocal"
"""Of networks without one."""
MOST_PORTS = 3
"""Ports of a project that no server has."""
MOST_ADDRESSES = 8
"""Of one name that an answer has room for."""
_A, _PTR, _INTERNET, _NO_SUCH_NAME = 1, 12, 1, 3
_WITHOUT_SERVER = """
SELECT id FROM ports WHERE project_id = ? AND server_id IS NULL AND device_owner = '' ORDER BY id
"""
_NAMED = """
SELECT p.dns_name, a.address FROM ports p JOIN port_addresses a ON a.port_id = p.id WHERE p.network_id = ?
"""
_DOMAIN = "SELECT dns_domain, network_type FROM networks WHERE id = ?"


class NamesWorkload:
    """Requests of a project."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def first(self, project: str) -> None:
        """Give the network of a project a domain, and a port that has a name and no server."""
        network_id = self._requests.cloud.networks[project]
        await self._requests.asked(project, "PUT", f"networks/{network_id}", {"network": {"dns_domain": DOMAINS[1]}})
        port = {"network_id": network_id, "dns_name": "db"}
        await self._requests.asked(project, "POST", "ports", {"port": port})

    def request(self, random: Random, project: str) -> Asked:
        network_id = self._requests.cloud.networks[project]
        if random.random() < 0.2:
            domain = random.choice(DOMAINS)
            change = self._requests.asked(project, "PUT", f"networks/{network_id}", {"network": {"dns_domain": domain}})
            return f"{project} gives its network the domain {domain!r}", change
        alone, name = self._requests.ids(_WITHOUT_SERVER, project), random.choice(NAMES)
        if len(alone) < MOST_PORTS and random.random() < 0.3:
            port = {"network_id": network_id, "dns_name": name}
            return f"{project} makes a port {name!r}", self._requests.asked(project, "POST", "ports", {"port": port})
        if alone and random.random() < 0.2:
            return f"{project} deletes a port", self._requests.asked(project, "DELETE", f"ports/{random.choice(alone)}")
        ports = self._requests.ids("SELECT id FROM ports WHERE network_id = ? ORDER BY id", network_id)
        if not ports:
            return f"{project} looks at its ports", self._requests.asked(project, "GET", "ports")
        port_id = random.choice(ports)
        change = self._requests.asked(project, "PUT", f"ports/{port_id}", {"port": {"dns_name": name}})
        return f"{project} calls port {port_id[:8]} {name!r}", change


def not_as_recorded(driver: Connection, told: Sequence[Wiring]) -> Iterator[str]:
    """At rest: each host that has a network answers the names of its ports, and no others. It is asked in packets."""
    for wiring in told:
        for network in wiring.networks:
            for problem in _answers(driver, network):
                yield f"{wiring.host}: {problem}"


def _answers(driver: Connection, network: Network) -> Iterator[str]:
    found = driver.execute(_DOMAIN, (network.id,)).fetchone()
    if found is None:
        yield f"network {network.id[:8]} is deleted"
        return
    domain, kind = found
    named: dict[str, set[str]] = {name: set() for name in NAMES if name}
    for name, address in driver.execute(_NAMED, (network.id,)) if kind != "flat" else ():
        named.setdefault(name or f"host-{address.replace('.', '-')}", set()).add(address)
    zone = dns.zone(network)
    if zone is None:
        if any(named.values()):
            yield f"network {network.id[:8]} has names, and nobody answers for them"
        return
    known, suffix = dns.Known(zone), domain.rstrip(".") or NEUTRON_DOMAIN
    for name, addresses in named.items():
        code, contents = _asked(f"{name}.{suffix}", _A, known)
        answered = {str(IPv4Address(content)) for content in contents}
        enough = min(len(addresses), MOST_ADDRESSES)
        if not answered <= addresses or len(answered) != enough or (code == _NO_SUCH_NAME) != (not addresses):
            yield f"{name}.{suffix} is {sorted(addresses)}, and the answer is {code} {sorted(answered)}"
        for address in addresses:
            _, pointed = _asked(ip_address(address).reverse_pointer, _PTR, known)
            if pointed != [_in_labels(f"{name}.{suffix}")]:
                yield f"{address} is {name}.{suffix}, and the answer is {pointed!r}"


def _asked(name: str, kind: int, known: dns.Known) -> tuple[int, list[bytes]]:
    """The code of a host's answer to a question of DNS, and the content of its records."""
    question = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + _in_labels(name) + struct.pack("!HH", kind, _INTERNET)
    answer = dns.answer(question, known)
    assert answer is not None
    _, flags, _, number, _, _ = struct.unpack_from("!6H", answer)
    place, found = len(question), []
    for _ in range(number):  # A pointer to the name, type, class, time to live, length, content.
        (length,) = struct.unpack_from("!H", answer, place + 10)
        found.append(answer[place + 12 : place + 12 + length])
        place += 12 + length
    return flags & 0xF, found


def _in_labels(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
