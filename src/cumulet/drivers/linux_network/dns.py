"""DNS for guests (RFC 1035): the names of the ports of their own network. Pure functions of the wiring.

Every host gives the same answers, and asks no other server. A name outside the network's domain is answered REFUSED, so
that a resolver with further servers asks the next one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from cumulet.host import wiring as w
from cumulet.host.record import Record

TTL_SECONDS = 30
LARGEST_QUESTION_BYTES = 512
MOST_ADDRESSES = 8
"""Of one name: an answer is never longer than the 512 bytes that every client accepts."""
QUESTIONS_A_SECOND = 100
"""From one address. Further questions get no answer."""
QUESTIONS_A_SECOND_OF_A_NETWORK = 1000
_HEADER = struct.Struct("!6H")
_RESPONSE, _AUTHORITATIVE, _RECURSION_DESIRED = 0x8000, 0x0400, 0x0100
_OK, _FORMAT_ERROR, _NO_SUCH_NAME, _NOT_IMPLEMENTED, _REFUSED = 0, 1, 3, 4, 5
_A, _PTR, _AAAA, _ANY = 1, 12, 28, 255
_INTERNET = 1
_LONGEST_NAME, _LONGEST_LABEL = 253, 63
_TO_THE_QUESTION = b"\xc0\x0c"
_REVERSE = {"in-addr.arpa": 4, "ip6.arpa": 6}


class Zone(Record, frozen=True):
    """What guests of a network can ask for: names of ports in its domain, and names of addresses in its prefixes."""

    domain: str
    hosts: tuple[tuple[str, tuple[str, ...]], ...]
    prefixes: tuple[str, ...]


def zone(network: w.Network) -> Zone | None:
    """The zone of a network; None where its wiring has no names, or no domain that DNS can say."""
    if not _is_served(network):
        return None
    return Zone(
        domain=domain(network),
        hosts=tuple((name.hostname, name.addresses) for name in network.names),
        prefixes=tuple(subnet.cidr for subnet in network.subnets),
    )


def _is_served(network: w.Network) -> bool:
    return bool(network.names) and _can_be_said(domain(network))


def _can_be_said(name: str) -> bool:
    """Whether a message can have this name. Domains from before they were checked are any text."""
    labels_fit = all(0 < len(label) <= _LONGEST_LABEL for label in name.split("."))
    return name.isascii() and len(name) <= _LONGEST_NAME and labels_fit


def domain(network: w.Network) -> str:
    """The domain that guests of a network search, without a last dot."""
    return network.dns_domain.rstrip(".").lower()


def servers(network: w.Network, subnets: Iterable[w.Subnet], version: int) -> tuple[str, ...]:
    """The DNS servers that guests on these subnets are told: the listed ones, else the host that they are on.

    As in Neutron, a list with the unspecified address means no server.
    """
    listed = [ip_address(server) for subnet in subnets for server in subnet.dns_servers]
    if not listed and _is_served(network):
        return (w.METADATA_ADDRESS if version == 4 else w.METADATA_ADDRESS_6,)
    wanted = (str(server) for server in listed if server.version == version and not server.is_unspecified)
    return tuple(dict.fromkeys(wanted))


class Known:
    """A zone, indexed. Names are in lower case, without a last dot."""

    def __init__(self, zone: Zone) -> None:
        self.domain = zone.domain
        self.forward: dict[str, tuple[str, ...]] = {}
        self.reverse: dict[str, str] = {}
        self.prefixes = [ip_network(prefix) for prefix in zone.prefixes]
        for hostname, addresses in zone.hosts:
            whole = hostname.lower().rstrip(".") if hostname.endswith(".") else f"{hostname.lower()}.{zone.domain}"
            if not self.holds(whole) or not _can_be_said(whole):
                continue  # Outside the domain, for which the network does not answer; or too long with the domain.
            for name in {whole, whole.removesuffix(f".{zone.domain}")}:
                self.forward[name] = (*self.forward.get(name, ()), *addresses)[:MOST_ADDRESSES]
            for address in addresses:
                self.reverse[address] = whole

    def holds(self, name: str) -> bool:
        """Whether a name is in the domain, or is a single label."""
        return "." not in name or name == self.domain or name.endswith(f".{self.domain}")


def answer(question: bytes, known: Known) -> bytes | None:
    """The message that answers a guest's message; None for no answer. Never raises."""
    if len(question) < _HEADER.size:
        return None
    number, flags, questions, _, _, _ = _HEADER.unpack_from(question)
    if flags & _RESPONSE:
        return None
    said = _RESPONSE | flags & (_RECURSION_DESIRED | 0x7800)
    if flags & 0x7800:
        return _HEADER.pack(number, said | _NOT_IMPLEMENTED, 0, 0, 0, 0)
    asked = _asked(question) if questions == 1 else None
    if asked is None:
        return _HEADER.pack(number, said | _FORMAT_ERROR, 0, 0, 0, 0)
    name, kind, network_class, end = asked
    code, records = _found(name, kind, known) if network_class == _INTERNET else (_REFUSED, [])
    if code != _REFUSED:
        said |= _AUTHORITATIVE
    head = _HEADER.pack(number, said | code, 1, len(records), 0, 0)
    return head + question[_HEADER.size : end] + b"".join(_record(*record) for record in records)


def _asked(message: bytes) -> tuple[str, int, int, int] | None:
    """Name, type and class of the question, and where it ends; None for a malformed one."""
    labels: list[str] = []
    place = _HEADER.size
    while place < len(message) and (length := message[place]):
        if length > 63 or place + 1 + length - _HEADER.size > 254:
            return None
        labels.append(message[place + 1 : place + 1 + length].decode("latin-1").lower())
        place += 1 + length
    if place + 5 > len(message):
        return None
    kind, network_class = struct.unpack_from("!HH", message, place + 1)
    return ".".join(labels), kind, network_class, place + 5


def _found(name: str, kind: int, known: Known) -> tuple[int, list[tuple[int, bytes]]]:
    """The code of the answer, and its records: type and content."""
    address = _reversed(name)
    if address is not None:
        if not any(address in prefix for prefix in known.prefixes):
            return _REFUSED, []
        pointed = known.reverse.get(str(address))
        if pointed is None:
            return _NO_SUCH_NAME, []
        return _OK, [(_PTR, _name(pointed))] if kind in (_PTR, _ANY) else []
    if not name or not known.holds(name):
        return _REFUSED, []
    if name == known.domain:
        return _OK, []
    if name not in known.forward:
        return _NO_SUCH_NAME, []
    found = [(_AAAA if ":" in text else _A, ip_address(text).packed) for text in known.forward[name]]
    return _OK, [record for record in found if kind in (record[0], _ANY)]


def _reversed(name: str) -> IPv4Address | IPv6Address | None:
    """The address of a name below ``in-addr.arpa`` or ``ip6.arpa``; None for other names."""
    for suffix, version in _REVERSE.items():
        if name.endswith(f".{suffix}"):
            parts = name.removesuffix(f".{suffix}").split(".")[::-1]
            groups = ["".join(parts[place : place + 4]) for place in range(0, len(parts), 4)]
            text = ".".join(parts) if version == 4 else ":".join(groups)
            try:
                return ip_address(text)
            except ValueError:
                return None
    return None


def _name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name.split(".")) + b"\0"


def _record(kind: int, content: bytes) -> bytes:
    return _TO_THE_QUESTION + struct.pack("!HHIH", kind, _INTERNET, TTL_SECONDS, len(content)) + content
