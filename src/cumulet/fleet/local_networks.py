"""Hosts of one machine, each in a network namespace of its own, joined by a wire in another: made by root at a start.

Nothing of the machine's own network is touched, and nothing can be reached from there but by who enters a namespace.
Names follow from the state folder, so that the next start finds what a killed one has left.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cumulet.settings import HostNetwork

MOST_HOSTS = 65_000
_NAMESPACES = Path("/run/netns")
_WIRE, _DEVICE = "wire", "net0"


class NoNamespaces(Exception):
    """Namespaces cannot be made here; the message says why."""


class LocalNetworks:
    """The namespaces of one cloud's hosts."""

    def __init__(self, state: Path, hosts: Sequence[str]) -> None:
        self._prefix = f"cumulet-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"
        self._hosts = tuple(hosts[:MOST_HOSTS])

    def make(self) -> dict[str, HostNetwork]:
        """Where each host is; what is there already stays as it is. Raises `NoNamespaces`."""
        from pyroute2 import IPRoute, netns
        from pyroute2.netlink.exceptions import NetlinkError

        def up(*, address: str | None = None) -> None:
            with IPRoute() as route:
                for name in ("lo", _DEVICE):
                    for index in route.link_lookup(ifname=name):
                        if name == _DEVICE and address is not None:
                            route.addr("replace", index=index, address=address, prefixlen=16)
                        route.link("set", index=index, state="up")

        def join() -> None:
            with IPRoute() as route:
                if not route.link_lookup(ifname="bridge"):
                    route.link("add", ifname="bridge", kind="bridge", br_forward_delay=0)
                (bridge,) = route.link_lookup(ifname="bridge")
                # The wire carries what hosts send each other. No rule of anybody's looks at it.
                route.link("set", index=bridge, kind="bridge", br_nf_call_iptables=0, br_nf_call_ip6tables=0)
                route.link("set", index=bridge, state="up", mtu=_MTU)
                for number, host in enumerate(self._hosts, start=1):
                    name = f"host{number}"
                    if not route.link_lookup(ifname=name):
                        peer = {"ifname": _DEVICE, "net_ns_fd": self._namespace(host), "mtu": _MTU}
                        route.link("add", ifname=name, kind="veth", peer=peer, mtu=_MTU)
                    (port,) = route.link_lookup(ifname=name)
                    route.link("set", index=port, master=bridge, state="up")

        try:
            for name in (_WIRE, *self._hosts):
                if not (_NAMESPACES / self._namespace(name)).exists():
                    netns.create(self._namespace(name))
            _inside(self._namespace(_WIRE), join)
            for number, host in enumerate(self._hosts, start=1):
                address = _address(number)
                _inside(self._namespace(host), lambda address=address: up(address=address))  # type: ignore[misc]
        except (OSError, NetlinkError) as refused:
            self.remove()
            raise NoNamespaces(str(refused)) from refused
        return {
            host: HostNetwork(address=_address(number), namespace=self._namespace(host))
            for number, host in enumerate(self._hosts, start=1)
        }

    def remove(self) -> None:
        """All of them. What still runs inside keeps its own alive until it ends."""
        from pyroute2 import netns

        for name in (*self._hosts, _WIRE):
            try:
                netns.remove(self._namespace(name))
            except OSError as gone:
                if gone.errno not in (errno.ENOENT, errno.EINVAL):
                    raise

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"


_MTU = 1550
"""So that guests have what VXLAN's 50 bytes leave of it, and 1,500 where an administrator asks for that."""


def _address(number: int) -> str:
    """Of the range for tests between networks (RFC 2544): it is seen inside the namespaces only."""
    return f"198.18.{number >> 8}.{number & 255}"


def _inside(namespace: str, work: Callable[[], None]) -> None:
    """Do it in a thread that lives in a namespace."""
    from pyroute2 import netns

    problems: list[BaseException] = []

    def enter() -> None:
        try:
            netns.setns(namespace, flags=0)
            work()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=enter, name=f"in-{namespace}")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
