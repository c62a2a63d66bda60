"""Extra DHCP options by the names that dnsmasq, and so Neutron, calls them, as the bytes that guests get.

A number may stand for a name; its value is then addresses, bytes in hexadecimal with colons, or text.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_network

NEXT_SERVER = 0
"""Not an option but a field of DHCP's header (siaddr): what `server-ip-address` sets."""
_OURS = {
    4: frozenset({50, 51, 52, 53, 54, 55, 57, 58, 59, 61, 82}),
    6: frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 25, 26}),
}
"""Options that the protocol itself needs, by IP version: an option of a port cannot replace them."""


class NotAnOption(Exception):
    """Not the name of an option, or not a value that it can have; the message says which."""


def _addresses_4(value: str) -> bytes:
    return b"".join(IPv4Address(part.strip()).packed for part in value.split(",") if part.strip())


def _addresses_6(value: str) -> bytes:
    return b"".join(IPv6Address(part.strip().strip("[]")).packed for part in value.split(",") if part.strip())


def _text(value: str) -> bytes:
    return value.encode("utf-8")


def _number(size: str) -> Callable[[str], bytes]:
    def encode(value: str) -> bytes:
        try:
            return struct.pack(size, int(value))
        except struct.error as wrong:
            raise ValueError(str(wrong)) from wrong

    return encode


def _truth(value: str) -> bytes:
    if value not in ("0", "1"):
        raise ValueError("it is 0 or 1")
    return bytes([int(value)])


def _names(value: str) -> bytes:
    found = b""
    for name in value.split(","):
        labels = name.strip().rstrip(".").encode("ascii").split(b".")
        if not all(1 <= len(label) <= 63 for label in labels):
            raise ValueError(f"{name} is no domain name")
        found += b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return found


def _routes(value: str) -> bytes:
    """``10.0.0.0/8,10.1.0.1,...`` (RFC 3442)."""
    words = [word.strip() for word in value.split(",")] if value else []
    if len(words) % 2:
        raise ValueError("it is pairs of a range and a next hop")
    found = b""
    for destination, hop in zip(words[::2], words[1::2], strict=True):
        prefix = ip_network(destination, strict=False)
        found += bytes([prefix.prefixlen]) + prefix.network_address.packed[: (prefix.prefixlen + 7) // 8]
        found += IPv4Address(hop).packed
    return found


_BY_NAME_4: dict[str, tuple[int, Callable[[str], bytes]]] = {
    "server-ip-address": (NEXT_SERVER, _addresses_4),
    "netmask": (1, _addresses_4),
    "time-offset": (2, _number("!i")),
    "router": (3, _addresses_4),
    "dns-server": (6, _addresses_4),
    "log-server": (7, _addresses_4),
    "lpr-server": (9, _addresses_4),
    "hostname": (12, _text),
    "boot-file-size": (13, _number("!H")),
    "domain-name": (15, _text),
    "swap-server": (16, _addresses_4),
    "root-path": (17, _text),
    "extension-path": (18, _text),
    "ip-forward-enable": (19, _truth),
    "non-local-source-routing": (20, _truth),
    "policy-filter": (21, _addresses_4),
    "max-datagram-reassembly": (22, _number("!H")),
    "default-ttl": (23, _number("!B")),
    "mtu": (26, _number("!H")),
    "all-subnets-local": (27, _truth),
    "broadcast": (28, _addresses_4),
    "router-discovery": (31, _truth),
    "router-solicitation": (32, _addresses_4),
    "static-route": (33, _addresses_4),
    "trailer-encapsulation": (34, _truth),
    "arp-timeout": (35, _number("!I")),
    "ethernet-encap": (36, _truth),
    "tcp-ttl": (37, _number("!B")),
    "tcp-keepalive": (38, _number("!I")),
    "nis-domain": (40, _text),
    "nis-server": (41, _addresses_4),
    "ntp-server": (42, _addresses_4),
    "netbios-ns": (44, _addresses_4),
    "netbios-dd": (45, _addresses_4),
    "netbios-nodetype": (46, _number("!B")),
    "netbios-scope": (47, _text),
    "x-windows-fs": (48, _addresses_4),
    "x-windows-dm": (49, _addresses_4),
    "vendor-class": (60, _text),
    "nis+-domain": (64, _text),
    "nis+-server": (65, _addresses_4),
    "tftp-server": (66, _text),
    "bootfile-name": (67, _text),
    "mobile-ip-home": (68, _addresses_4),
    "smtp-server": (69, _addresses_4),
    "pop3-server": (70, _addresses_4),
    "nntp-server": (71, _addresses_4),
    "irc-server": (74, _addresses_4),
    "user-class": (77, _text),
    "posix-timezone": (100, _text),
    "tzdb-timezone": (101, _text),
    "domain-search": (119, _names),
    "classless-static-route": (121, _routes),
    "tftp-server-address": (150, _addresses_4),
}
_BY_NAME_6: dict[str, tuple[int, Callable[[str], bytes]]] = {
    "sip-server-domain": (21, _names),
    "sip-server": (22, _addresses_6),
    "dns-server": (23, _addresses_6),
    "domain-search": (24, _names),
    "nis-server": (27, _addresses_6),
    "nis+-server": (28, _addresses_6),
    "nis-domain": (29, _names),
    "nis+-domain": (30, _names),
    "sntp-server": (31, _addresses_6),
    "information-refresh-time": (32, _number("!I")),
    "posix-timezone": (41, _text),
    "tzdb-timezone": (42, _text),
    "bootfile-url": (59, _text),
    "bootfile-param": (60, _text),
}


def require_option(name: str, version: int) -> tuple[int, Callable[[str], bytes]]:
    """Code of an option and how its content is written. Raises `NotAnOption`."""
    plain = name.removeprefix("option:").removeprefix("option6:")
    known = (_BY_NAME_4 if version == 4 else _BY_NAME_6).get(plain)
    if known is not None:
        return known
    if not re.fullmatch("[0-9]{1,5}", plain):
        raise NotAnOption(f"there is no DHCP option '{name}' for IPv{version}; a number may stand for its name")
    code = int(plain)
    if not 1 <= code <= (254 if version == 4 else 65_535) or code in _OURS[version]:
        raise NotAnOption(f"the value of {name} cannot be sent: {code} is none that a port may set")
    return code, partial(_as_it_looks, version=version)


def encoded(name: str, value: str, version: int) -> tuple[int, bytes]:
    """Code and content of an option. Raises `NotAnOption`."""
    code, encode = require_option(name, version)
    try:
        content = encode(value)
    except (ValueError, UnicodeError) as wrong:
        raise NotAnOption(f"the value of {name} cannot be sent: {wrong}") from wrong
    if code == NEXT_SERVER and len(content) != 4:
        raise NotAnOption(f"the value of {name} cannot be sent: it is one address")
    return code, content


def _as_it_looks(value: str, version: int) -> bytes:
    if re.fullmatch("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2})+", value):
        return bytes.fromhex(value.replace(":", ""))
    try:
        return _addresses_4(value) if version == 4 else _addresses_6(value)
    except ValueError:
        return _text(value)
