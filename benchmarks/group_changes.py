"""How soon a change of a security group reaches all ports of many hosts, through the API. As root.

Ten hosts in network namespaces, each an agent of its own with tables of nftables; 1,000 ports on each, all in one
group. The ports are of servers, but no guest runs: what is compared and sent is the same. A change has reached a port
when its host has answered that the rules are in force. In the end nftables itself is asked.
"""

from __future__ import annotations

import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial

import cumulet.testing
from benchmarks.report import Measure, Result
from cumulet.compute.wiring import Wirings
from cumulet.db.engine import Tx
from cumulet.drivers.linux_network import namespaces, nft, skeleton
from cumulet.drivers.linux_network.probe import probe
from cumulet.fleet.local_networks import LocalNetworks
from cumulet.host.wiring import Group, Wiring
from cumulet.network import port_life
from cumulet.network.store import Network, get
from cumulet.testing import TestCloud

HOSTS, PORTS = 10, int(os.environ.get("CUMULET_BENCH_PORTS", "1000"))
"""Ports of each host."""
NETWORKS = 10
TIMES = 5
SECONDS = 120.0
_AT_ONCE = 100

RULE = Measure(
    name="group_rule_10_hosts", title=f"10 hosts of {PORTS:,} ports: a group's rule is in force", unit="s", goal=1
)
MEMBER = Measure(
    name="group_member_10_hosts", title=f"10 hosts of {PORTS:,} ports: a group's new member is known", unit="s", goal=1
)


def measure() -> Iterator[Result]:
    """Medians, each from the request until the last host has it in force."""
    with cumulet.testing.cloud(hosts=HOSTS, driver="qemu") as cloud:
        story = _Story(cloud)
        story.furnish()
        yield Result(RULE, statistics.median(story.rule_s(10_000 + number) for number in range(TIMES)))
        yield Result(MEMBER, statistics.median(story.member_s() for _ in range(TIMES)))
        story.look()


class _Story:
    def __init__(self, cloud: TestCloud) -> None:
        self._cloud = cloud
        self._admin = cloud.persona("admin")
        path = f"/network/v2.0/quotas/{self._admin.project_id}"
        assert self._admin.request("PUT", path, {"quota": {"port": -1}}).status == 200
        self._networks = [self._network(number) for number in range(NETWORKS)]
        group = self._made("security_group", {"name": "bench"})
        self._group = str(group)
        self._rule({"remote_group_id": self._group})
        self._last = 0

    def _made(self, kind: str, values: dict[str, object]) -> str:
        answer = self._admin.request("POST", f"/network/v2.0/{kind.replace('_', '-')}s", {kind: values})
        assert answer.status == 201, answer.text
        return str(answer[kind]["id"])

    def _network(self, number: int) -> str:
        made = self._made("network", {"name": f"bench{number}"})
        self._made("subnet", {"network_id": made, "ip_version": 4, "cidr": f"10.{number}.0.0/16"})
        return made

    def _rule(self, more: dict[str, object]) -> str:
        wanted = {"security_group_id": self._group, "direction": "ingress", "ethertype": "IPv4", **more}
        return self._made("security_group_rule", wanted)

    def furnish(self) -> None:
        """Ports as Compute makes them for servers, on all hosts and networks; returns when all are wired."""
        running = self._cloud.embedded

        def add(tx: Tx, host: str, first: int) -> None:
            networks = [get(tx, Network, network) for network in self._networks]
            for number in range(first, min(first + _AT_ONCE, PORTS)):
                network = networks[number % NETWORKS]
                assert network is not None
                server = str(uuid.uuid4())
                new = port_life.NewPort(
                    project_id=self._admin.project_id or "", host=host, server_id=server, device_id=server,
                    device_owner="compute:nova", security_group_ids=[self._group], created_by_compute=True,
                )  # fmt: skip
                port_life.make(tx, running.clock, network, new)

        wirings = running.conductor.reconciler(Wirings)
        self._cloud.await_(wirings.stop())  # Else each part would be told.
        for host in self._cloud.hosts:
            for first in range(0, PORTS, _AT_ONCE):
                running.db.write(partial(add, host=host, first=first))
        self._cloud.await_(wirings.start())
        self._until(lambda wiring: len(wiring.ports) == PORTS)

    def rule_s(self, port: int) -> float:
        began = time.monotonic()
        rule = self._rule({"protocol": "tcp", "port_range_min": port, "port_range_max": port})
        self._last = port
        return self._until(lambda wiring: any(one.id == rule for one in self._its(wiring).rules)) - began

    def member_s(self) -> float:
        before = {host: len(self._its(self._told(host)).members) for host in self._cloud.hosts}
        began = time.monotonic()
        self._made("port", {"network_id": self._networks[0], "security_groups": [self._group]})
        return self._until(lambda wiring: len(self._its(wiring).members) > before[wiring.host]) - began

    def _its(self, wiring: Wiring) -> Group:
        return next(group for group in wiring.groups if group.id == self._group)

    def _told(self, host: str) -> Wiring:
        told = self._cloud.embedded.hosts.told(host)
        assert told is not None
        return told[0]

    def _until(self, reached: Callable[[Wiring], bool]) -> float:
        """When every host has answered that such a wiring is in force; monotonic."""
        missing = set(self._cloud.hosts)
        until = time.monotonic() + SECONDS
        while missing:
            assert time.monotonic() < until, f"not wired: {sorted(missing)}"
            time.sleep(0.002)
            for host in sorted(missing):
                told = self._cloud.embedded.hosts.told(host)
                if told is not None and not told[1].not_done and reached(told[0]):
                    missing.remove(host)
        return time.monotonic()

    def look(self) -> None:
        """Every host's tables lead each of its ports to a chain that has the newest rule."""
        tracking = probe().tracking
        assert tracking is not None
        settings = self._cloud.embedded.settings
        places = LocalNetworks(settings.state_dir, settings.host_names).make()  # They exist: this only says where.
        for host in self._cloud.hosts:
            with namespaces.inside(places[host].namespace or ""):
                listed = nft.run_json("list", "table", tracking.value, skeleton.state_table(tracking)) or []
            chains = {
                entry["rule"]["chain"] for entry in listed if "rule" in entry and str(self._last) in str(entry["rule"])
            }
            (into,) = (entry["map"]["elem"] for entry in listed if entry.get("map", {}).get("name") == "to")
            with_it = sum(verdict["jump"]["target"] in chains for _, verdict in into)
            assert with_it >= PORTS, f"{host}: {with_it} ports have the newest rule"


if __name__ == "__main__":
    for result in measure():
        print(f"{result.measure.title}: {result.value:.4g} {result.measure.unit}", flush=True)
