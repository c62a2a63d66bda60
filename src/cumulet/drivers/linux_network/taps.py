"""A tap as an open file: QEMU inherits it and needs no right to make one. It is gone once nobody holds it open."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path

TUN = "/dev/net/tun"
HEADER_BYTES = 10
"""What stands before each frame that is read or written (`virtio_net_hdr`): QEMU asks for it, so that a guest may leave
checksums and segments to the host's."""
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def open_tap(name: str) -> int:
    """A new tap of this name in the calling thread's network namespace, its link down. OSError where it is in use."""
    fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
        silence(name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def silence(interface: str) -> None:
    """The kernel speaks no IPv6 on it: it would greet its neighbours among the guests."""
    with contextlib.suppress(FileNotFoundError):  # A kernel without IPv6.
        Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").write_text("1")


def speak_only_as(interface: str, settings: Path = Path("/proc/sys/net/ipv6/conf")) -> bool:
    """The kernel speaks IPv6 on it, under no address of its own making. False for a kernel without IPv6."""
    try:
        for name, value in (("accept_ra", "0"), ("accept_dad", "0"), ("addr_gen_mode", "1"), ("disable_ipv6", "0")):
            (settings / interface / name).write_text(value)
    except FileNotFoundError:
        return False
    return True
