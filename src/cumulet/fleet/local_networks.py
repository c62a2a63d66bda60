"""Network namespaces for the hosts of one machine, joined by a bridge (the wire) in a namespace of its own.

Root makes them at a start. Beside the wire there is the bridge `public`, the physical network of routers' gateways;
`fleet.public_network` joins the machine to it. The machine's own network is not changed. It reaches guests only
through `public`, or from inside a namespace. Names are made from the state folder, so that the next start finds what
a killed cloud left.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cumulet.fleet import left_networks
from cumulet.host.reach import WIRE
from cumulet.settings import HostNetwork

MOST_HOSTS = 65_000
_NAMESPACES = left_networks.NAMESPACES
_WIRE, _DEVICE = left_networks.WIRE, "net0"
PUBLIC = "public"
"""The bridge of the physical network of this name, in the wire's namespace."""
PUBLIC_DEVICE = "pub0"
"""In each host's namespace, what leads to the physical network `public`."""


class NoNamespaces(Exception):
    """Namespaces cannot be made here; the message says why."""


class LocalNetworks:
    """The namespaces of one cloud's hosts."""

    def __init__(self, state: Path, hosts: Sequence[str]) -> None:
        self._prefix = f"cumulet-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"
        self._hosts = tuple(hosts[:MOST_HOSTS])
        self._made: list[Path] = []

    def make(self) -> dict[str, HostNetwork]:
        """Make the namespaces. Those that exist stay as they are; those that killed clouds left are removed. Returns
        the address and namespace of each host. Raises `NoNamespaces`; then nothing new was made."""
        from pyroute2 import IPRoute, netns
        from pyroute2.netlink.exceptions import NetlinkError

        def up(*, address: str) -> None:
            with IPRoute() as route:
                for name in ("lo", _DEVICE):
                    (index,) = route.link_lookup(ifname=name)
                    if name == _DEVICE:
                        route.addr("replace", index=index, address=address, prefixlen=16)
                    route.link("set", index=index, state="up")

        def join(bridge_name: str, beginning: str, device: str) -> None:
            with IPRoute() as route:
                if not route.link_lookup(ifname=bridge_name):
                    route.link("add", ifname=bridge_name, kind="bridge", br_forward_delay=0)
                (bridge,) = route.link_lookup(ifname=bridge_name)
                if bridge_name == left_networks.BRIDGE:
                    route.link("set", index=bridge, ifalias=left_networks.this_process())
                route.link("set", index=bridge, state="up", mtu=_MTU)
                for number, host in enumerate(self._hosts, start=1):
                    name = f"{beginning}{number}"
                    if not route.link_lookup(ifname=name):
                        peer = {"ifname": device, "net_ns_fd": self._namespace(host), "mtu": _MTU}
                        route.link("add", ifname=name, kind="veth", peer=peer, mtu=_MTU)
                    (port,) = route.link_lookup(ifname=name)
                    route.link("set", index=port, master=bridge, state="up")

        try:
            for prefix in left_networks.left():
                if prefix != self._prefix:
                    self._remove(_of(prefix))
            for path in (_NAMESPACES / self._namespace(name) for name in (_WIRE, *self._hosts)):
                if not path.exists():
                    netns.create(path.name)
                    self._made.append(path)
            inside(self.wire, lambda: join(left_networks.BRIDGE, "host", _DEVICE))
            inside(self.wire, lambda: join(PUBLIC, "pub", PUBLIC_DEVICE))
            for number, host in enumerate(self._hosts, start=1):
                address = _address(number)
                inside(self._namespace(host), lambda address=address: up(address=address))  # type: ignore[misc]
        except (OSError, NetlinkError) as refused:
            self.undo()
            raise NoNamespaces(str(refused)) from refused
        return {
            host: HostNetwork(address=_address(number), namespace=self._namespace(host))
            for number, host in enumerate(self._hosts, start=1)
        }

    def remove(self) -> None:
        """Remove all namespaces of this cloud, also of earlier hosts. A process inside keeps its own until it ends."""
        self._remove(_of(self._prefix))

    def undo(self) -> None:
        """Remove those that `make` made. What a killed cloud left stays: its guests may run in there."""
        self._remove(self._made)

    def _remove(self, paths: Iterable[Path]) -> None:
        from pyroute2 import netns

        for path in paths:
            routers: list[Path] = []
            with contextlib.suppress(FileNotFoundError):  # Another cloud that starts may remove it at the same time.
                # What a host's agent calls its routers' namespaces (`drivers.linux_network.names`).
                routers += _NAMESPACES.glob(f"cmr-{path.stat().st_ino}-*")
            for one in (*(router.name for router in routers), path.name):
                try:
                    netns.remove(one)
                except OSError as gone:
                    if gone.errno not in (errno.ENOENT, errno.EINVAL):
                        raise

    @property
    def prefix(self) -> str:
        """How the names of this cloud's namespaces begin."""
        return self._prefix

    @property
    def wire(self) -> str:
        """The namespace of the wire, and of `public`."""
        return self._namespace(_WIRE)

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"


def _of(prefix: str) -> list[Path]:
    """The namespaces of a cloud. The wire's is the last, because it names the owner."""
    return sorted(_NAMESPACES.glob(f"{prefix}-*"), key=lambda path: (path.name == f"{prefix}-{_WIRE}", path.name))


_MTU = 1550
"""VXLAN takes 50 bytes of it, so guests can have 1,500 where an administrator asks for that."""


def _address(number: int) -> str:
    """A host's address on the wire, which exists inside the namespaces only."""
    return str(WIRE[number])


def inside(namespace: str, work: Callable[[], None]) -> None:
    """Run `work` in a thread inside a network namespace."""
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
