"""The network between the hosts of a crash run: each in a namespace of its own, joined by a bridge in a third.

Made by root, with iproute2. It can be cut in two ways: silently, by taking the hosts' ports off the bridge, so that
every packet is lost and neither end is told; or by the links going down, as when a cable is drawn.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence

from cumulet.drivers.linux_network import names, namespaces
from tests.left_over import remove_left_over

_numbers = itertools.count(1)


class HostNetworks:
    """Namespaces that nobody else on the machine has, until `remove`."""

    def __init__(self, hosts: Sequence[str]) -> None:
        remove_left_over()
        name = f"cumulet-crash-{os.getpid()}-{next(_numbers)}"
        self._wire = f"{name}-wire"
        self._namespaces = {host: f"{name}-{host}" for host in hosts}
        self._made: list[str] = []
        try:
            self._join()
        except BaseException:
            self.remove()
            raise

    def _join(self) -> None:
        self._make(self._wire)
        _ip("-n", self._wire, "link", "add", "bridge", "up", "type", "bridge")
        for n, (host, namespace) in enumerate(self._namespaces.items(), start=1):
            self._make(namespace)
            _ip("-n", self._wire, "link", "add", host, "type", "veth", "peer", "name", "net0", "netns", namespace)
            _ip("-n", self._wire, "link", "set", "dev", host, "master", "bridge", "up")
            _ip("-n", namespace, "address", "add", f"192.0.2.{n}/24", "dev", "net0")
            _ip("-n", namespace, "link", "set", "dev", "net0", "up")

    def _make(self, namespace: str) -> None:
        _ip("netns", "add", namespace)
        self._made.append(namespace)

    @property
    def options(self) -> list[str]:
        """For `cumulet up`."""
        hosts = enumerate(self._namespaces.items(), start=1)
        return [
            word for n, (host, namespace) in hosts for word in ("--host-network", f"{host}=192.0.2.{n}@{namespace}")
        ]

    @property
    def namespaces(self) -> dict[str, str]:
        """Of each host."""
        return dict(self._namespaces)

    def namespace(self, host: str) -> str:
        return self._namespaces[host]

    def cut(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        for host in self._namespaces:
            _ip("-n", self._wire, "link", "set", "dev", host, "nomaster")

    def heal(self) -> None:
        for host in self._namespaces:
            _ip("-n", self._wire, "link", "set", "dev", host, "master", "bridge")

    def links_down(self) -> None:
        for namespace in self._namespaces.values():
            _ip("-n", namespace, "link", "set", "dev", "net0", "down")

    def links_up(self) -> None:
        for namespace in self._namespaces.values():
            _ip("-n", namespace, "link", "set", "dev", "net0", "up")

    def remove(self) -> None:
        """Once no process is left in them."""
        while self._made:
            name = self._made.pop()
            routers = namespaces.named(names.namespaces_of((namespaces.FOLDER / name).stat().st_ino))
            for one in (*routers, name):  # What ends a host's routers with its lease may come first.
                namespaces.remove(one)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
