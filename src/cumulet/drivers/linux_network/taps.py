"""Taps as open files: QEMU inherits one and needs no right to make it. A tap ends when its file is closed."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

TUN = "/dev/net/tun"
HEADER_BYTES = 10
"""Of the header before each frame that is read or written (`virtio_net_hdr`). QEMU asks for it, so that guests can
leave checksums and segmentation to the host."""
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


_IPV6 = Path("/proc/sys/net/ipv6/conf")


def kernel_has_ipv6() -> bool:
    """False also where IPv6 is turned off for the whole machine (`ipv6.disable=1`)."""
    return _IPV6.exists()


def silence(interface: str) -> None:
    """Turn the kernel's own IPv6 off on an interface: it would send to guests."""
    if kernel_has_ipv6():
        (_IPV6 / interface / "disable_ipv6").write_text("1")


def speak_only_as(interface: str) -> None:
    """Turn the kernel's own IPv6 on for an interface, without addresses that it makes itself."""
    for name, value in (("accept_ra", "0"), ("accept_dad", "0"), ("addr_gen_mode", "1"), ("disable_ipv6", "0")):
        (_IPV6 / interface / name).write_text(value)
