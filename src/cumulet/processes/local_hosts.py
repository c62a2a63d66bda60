"""The hosts of this machine: agents in this process for simulated ones, a process of its own for each real one."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from cumulet.agent.agent import Agent
from cumulet.agent.simulated_fence import SimulatedFence
from cumulet.bus.in_process import InProcessLink
from cumulet.ca import CertificateAuthority
from cumulet.clock import Clock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.fleet.hosts import Hosts
from cumulet.settings import HostNetwork, Settings

if TYPE_CHECKING:
    from cumulet.fleet.local_agents import AgentPlace, AgentProcesses


async def connect(
    settings: Settings, clock: Clock, hosts: Hosts, authority: CertificateAuthority, stack: AsyncExitStack
) -> tuple[World | None, AgentProcesses | None]:
    """Start what `settings.driver` asks for and link it to `hosts`; `stack` ends it."""
    if settings.driver == "qemu":
        from cumulet.fleet.local_agents import AgentProcesses

        agents = AgentProcesses([_place(settings, authority, name) for name in settings.host_names])
        stack.push_async_callback(agents.stop)
        await agents.start(hosts)
        return None, agents
    world = World()
    for name in settings.host_names:
        folder = settings.state_dir / "hosts" / name
        driver = SimulatedDriver(name=name, world=world, clock=clock, settings=settings, directory=folder / "guests")
        agent = Agent(name=name, driver=driver, fence=SimulatedFence(folder / "fence.txt"), session=clock.uuid())
        hosts.add(name, InProcessLink(agent))
    return world, None


def _place(settings: Settings, authority: CertificateAuthority, name: str) -> AgentPlace:
    from cumulet.fleet.local_agents import AgentPlace

    folder = settings.state_dir / "hosts" / name
    network = settings.host_networks.get(name, HostNetwork())
    return AgentPlace(
        name=name,
        state=folder,
        tls=authority.issue_host(name),
        socket=folder / "agent.sock",
        address=network.address,
        network_namespace=network.namespace,
        lease_seconds=settings.lease_seconds if settings.fence_silent_hosts else None,
        sharing=len(settings.host_names),
    )
