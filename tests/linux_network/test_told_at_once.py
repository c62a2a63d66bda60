"""A group's change, from the API to the rules of nftables in the namespaces of several hosts, on its event alone."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from unittest import mock

import cumulet.testing
from cumulet.compute import hosts_in_memory
from cumulet.compute.wiring import Wirings
from cumulet.drivers.linux_network import names, namespaces, nft
from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.host import messages as m
from cumulet.host.link import Link
from tests.compute.test_told_at_once import NEVER
from tests.links import Way, instead
from tests.linux_network.lab import Lab, lab, needs_packets
from tests.testing.test_reachability import made, port_of

pytestmark = needs_packets

HOSTS = ("host1", "host2", "host3")
PORT = 4242
WITHIN_SECONDS = 60


class Wired(Way):
    """A simulated host with a real network: what it is told is in force when it answers."""

    def __init__(self, link: Link, network: LinuxNetwork) -> None:
        super().__init__(link)
        self._network = network
        self.applied = asyncio.Event()

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.ApplyWiring):
            await self._network.apply(message.wiring)
        answer = await super().send(message)
        if isinstance(message, m.ApplyWiring):
            self.applied.set()
        return answer

    async def until_rules_have(self, namespace: str) -> None:
        """The kernel is asked each time that the host was told something."""
        while not await asyncio.to_thread(_rules_have_port, namespace):
            await self.applied.wait()
            self.applied.clear()


def _rules_have_port(namespace: str) -> bool:
    with namespaces.inside(namespace):
        return str(PORT) in str(nft.run_json("list", "table", "inet", names.TABLE))


def test_a_rule_is_in_force_on_all_hosts_of_its_group_without_a_timer() -> None:
    with cumulet.testing.cloud(hosts=len(HOSTS)) as cloud, ExitStack() as stack:
        opened = AsyncExitStack()
        real: Lab = cloud.await_(opened.enter_async_context(lab(HOSTS)))
        stack.callback(lambda: cloud.await_(opened.aclose()))
        ways = {
            host: stack.enter_context(instead(cloud, host, lambda link, host=host: Wired(link, real.networks[host])))  # type: ignore[misc]
            for host in HOSTS
        }
        wirings = cloud.embedded.conductor.reconciler(Wirings)
        # Nothing passes through the networks of simulated hosts, so they would be told by sagas alone.
        stack.enter_context(mock.patch.object(hosts_in_memory, "with_packets", return_value=list(HOSTS)))
        cloud.await_(wirings.stop())
        wirings.seconds = NEVER
        cloud.await_(wirings.start())
        stack.callback(lambda: cloud.await_(wirings.stop()))
        member = cloud.persona("admin")
        network = made(member, "network", name="n")
        made(member, "subnet", network_id=network, cidr="10.8.0.0/24", ip_version=4)
        group = made(member, "security_group", name="web")
        for host in HOSTS:
            port_of(member, network, security_groups=[{"name": "web"}], availability_zone=f"nova:{host}")
        rule = {"direction": "ingress", "protocol": "tcp", "port_range_min": PORT, "port_range_max": PORT}
        assert not any(_rules_have_port(real.namespaces[host]) for host in HOSTS)
        made(member, "security_group_rule", security_group_id=group, **rule)

        async def in_force() -> None:
            async with asyncio.timeout(WITHIN_SECONDS):
                await asyncio.gather(*(way.until_rules_have(real.namespaces[host]) for host, way in ways.items()))

        cloud.await_(in_force())
