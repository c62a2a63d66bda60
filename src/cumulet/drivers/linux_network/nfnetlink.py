"""Questions to the kernel's packet filter and connection tracking by netlink, in the calling thread's namespace.

A process of `nft` or `conntrack` for each would cost a thousand times as much. See linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from cumulet.drivers.linux_network import netlink

_NETLINK_NETFILTER = 12
_FAMILY = struct.Struct("=BBH")


def opened() -> socket.socket:
    return netlink.opened(_NETLINK_NETFILTER)


def dumped(asked: socket.socket, message: int, family: int, content: bytes) -> Iterator[tuple[int, bytes]]:
    """The family and the attributes of each answer. OSError if the kernel refuses."""
    for answer in netlink.dumped(asked, message, _FAMILY.pack(family, 0, 0) + content):
        yield answer[0], answer[_FAMILY.size :]


def command(asked: socket.socket, message: int, family: int, content: bytes) -> None:
    """Have it done, or refused: this does not tell which."""
    asked.send(netlink.message(message, netlink.REQUEST | netlink.ACK, _FAMILY.pack(family, 0, 0) + content))
    list(netlink.acknowledged(asked))
