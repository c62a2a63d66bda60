"""Messages to the kernel by netlink, and what it answers, in the calling thread's namespace. See linux/netlink.h."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
"""NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP."""
_INTERRUPTED = 0x10
"""NLM_F_DUMP_INTR."""
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 20
_TRIES = 10


def opened(protocol: int) -> socket.socket:
    """`protocol`: NETLINK_ROUTE (0), NETLINK_NETFILTER (12)."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    netlink.bind((0, 0))
    return netlink


def message(kind: int, flags: int, content: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(content), kind, flags, 0, 0) + content


def dumped(netlink: socket.socket, kind: int, content: bytes) -> list[bytes]:
    """What the kernel lists, without headers. Where something has changed meanwhile, it lists again: else a thing could
    be missing. OSError if it refuses."""
    for _ in range(_TRIES):
        netlink.send(message(kind, REQUEST | DUMP, content))
        answers = list(_listed(netlink))
        if not any(flags & _INTERRUPTED for flags, _ in answers):
            break
    return [answer for _, answer in answers[:-1]]


def _listed(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The flags and the content of each message. The last one says that it is the last."""
    while True:
        for kind, flags, content in _received(netlink):
            if kind == _ERROR:
                number = _error(content)
                raise OSError(number, os.strerror(number))
            yield flags, content
            if kind == _DONE:
                return


def acknowledged(netlink: socket.socket) -> Iterator[int]:
    """The numbers of the errors in what the kernel sends next; 0 for what is done."""
    for _, _, content in _received(netlink):
        yield _error(content)


def _received(netlink: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    received, place = netlink.recv(_RECEIVE_BYTES), 0
    while place + _HEADER.size <= len(received):
        length, kind, flags, _, _ = _HEADER.unpack_from(received, place)
        yield kind, flags, received[place + _HEADER.size : place + length]
        place += (length + 3) & ~3


def _error(content: bytes) -> int:
    return -int(struct.unpack_from("=i", content)[0])


def attributes(content: bytes) -> dict[int, bytes]:
    """The attributes in there, by their kinds."""
    found: dict[int, bytes] = {}
    place = 0
    while place + _ATTRIBUTE.size <= len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, place)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = content[place + _ATTRIBUTE.size : place + length]
        place += (length + 3) & ~3
    return found


def attribute(kind: int, content: bytes, *, nested: bool = False) -> bytes:
    padding = b"\0" * (-len(content) % 4)
    return _ATTRIBUTE.pack(4 + len(content), kind | (0x8000 if nested else 0)) + content + padding
