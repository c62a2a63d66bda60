"""Questions to the kernel's packet filter and connection tracking by netlink, in the calling thread's namespace.

A process of `nft` or `conntrack` for each would cost a thousand times as much. See linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

_NETLINK_NETFILTER = 12
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER_BYTES, _FAMILY_BYTES = 16, 4
_RECEIVE_BYTES = 1 << 20


def opened() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    netlink.bind((0, 0))
    return netlink


def dumped(netlink: socket.socket, message: int, family: int, content: bytes) -> Iterator[tuple[int, bytes]]:
    """The family and the attributes of each answer. OSError if the kernel refuses."""
    _ask(netlink, message, _REQUEST | _DUMP, family, content)
    while True:
        received = netlink.recv(_RECEIVE_BYTES)
        while len(received) >= _HEADER_BYTES:
            length, kind = struct.unpack_from("=IH", received)
            if kind == _ERROR:
                (number,) = struct.unpack_from("=i", received, _HEADER_BYTES)
                raise OSError(-number, os.strerror(-number))
            if kind == _DONE:
                return
            yield received[_HEADER_BYTES], received[_HEADER_BYTES + _FAMILY_BYTES : length]
            received = received[(length + 3) & ~3 :]


def command(netlink: socket.socket, message: int, family: int, content: bytes) -> None:
    """Have it done, or refused: this does not tell which."""
    _ask(netlink, message, _REQUEST | _ACK, family, content)
    netlink.recv(_RECEIVE_BYTES)


def _ask(netlink: socket.socket, message: int, flags: int, family: int, content: bytes) -> None:
    body = struct.pack("=BBH", family, 0, 0) + content
    header = struct.pack("=IHHII", _HEADER_BYTES + len(body), message, flags, os.getpid() & 0xFFFF, 0)
    netlink.send(header + body)


def attributes(content: bytes) -> dict[int, bytes]:
    """The attributes in there, by their kinds."""
    found: dict[int, bytes] = {}
    while len(content) >= 4:
        length, kind = struct.unpack_from("=HH", content)
        if length < 4:
            break
        found[kind & 0x3FFF] = content[4:length]
        content = content[(length + 3) & ~3 :]
    return found


def attribute(kind: int, content: bytes, *, nested: bool = False) -> bytes:
    padding = b"\0" * (-len(content) % 4)
    return struct.pack("=HH", 4 + len(content), kind | (0x8000 if nested else 0)) + content + padding
