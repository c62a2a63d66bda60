"""The hosts of this machine: agents in this process for simulated ones, a process of its own for each real one."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cumulet import rootless
from cumulet.agent.agent import Agent
from cumulet.agent.simulated_fence import SimulatedFence
from cumulet.agent.simulated_lease import SimulatedLease, SimulatedWatchdog
from cumulet.bus.in_process import InProcessLink
from cumulet.ca import CertificateAuthority, Issued
from cumulet.clock import Clock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.errors import ApiError
from cumulet.fleet.hosts import Hosts
from cumulet.host.driver import DriverError
from cumulet.host.limits import limits_of
from cumulet.settings import HostNetwork, Settings

if TYPE_CHECKING:
    from cumulet.fleet.image_door import Find, Receive
    from cumulet.fleet.local_agents import AgentPlace, AgentProcesses
    from cumulet.fleet.local_networks import LocalNetworks

log = logging.getLogger(__name__)


async def connect(
    settings: Settings,
    clock: Clock,
    hosts: Hosts,
    authority: CertificateAuthority,
    certificate: Issued,
    find_image: Find,
    receive_image: Receive,
    stack: AsyncExitStack,
) -> tuple[World | None, AgentProcesses | None]:
    """Start what `settings.driver` asks for and link it to `hosts`; `stack` ends it. `certificate`: what the
    control plane shows them; `find_image`: what each may fetch; `receive_image`: what each may bring."""
    if settings.driver == "qemu":
        from cumulet.fleet.image_door import ImageDoor
        from cumulet.fleet.local_agents import AgentProcesses

        door = ImageDoor(find_image, receive_image, certificate)
        stack.push_async_callback(door.close)
        await door.listen(_images(settings))
        local, networks = await asyncio.to_thread(_networks, settings)
        if local is not None:
            stack.push(partial(_undo_if_failed, local))
        agents = AgentProcesses(
            [_place(settings, authority, name, networks) for name in settings.host_names], networks=local
        )
        stack.push_async_callback(agents.stop)
        await agents.start(hosts)
        return None, agents
    world = World()

    async def take(host: str, image_id: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        try:
            await receive_image(host, image_id, size, pieces)
        except ApiError as refused:
            raise DriverError(f"the image was not taken: {refused}") from refused

    world.take = take
    for name in settings.host_names:
        folder = settings.state_dir / "hosts" / name
        driver = SimulatedDriver(name=name, world=world, clock=clock, settings=settings, directory=folder / "guests")
        fence = SimulatedFence(folder / "fence.txt")
        stack.callback(fence.close)
        lease = None
        if settings.fence_silent_hosts:
            watchdog = SimulatedWatchdog(clock, driver.lose_power)
            stack.push_async_callback(watchdog.close)
            lease = SimulatedLease(watchdog, seconds=settings.lease_seconds)
            lease.begin()  # The last one ended with the process, and so did the time its guests have.
        agent = Agent(name=name, driver=driver, fence=fence, lease=lease, session=clock.uuid())
        hosts.add(name, InProcessLink(agent))
    return world, None


def join_public(settings: Settings, agents: AgentProcesses | None, gateways: Sequence[str]) -> str | None:
    """Where hosts' networks were made here, lead their `public` to the machine, or beyond. Answers what to tell people.

    Raises `NotPublic` for an interface that cannot.
    """
    if agents is None or agents.networks is None:
        return None
    from cumulet.fleet.public_network import join_interface, join_machine

    if settings.public_interface is not None:
        return join_interface(agents.networks, settings.public_interface)
    if not settings.machine_on_public:
        return None
    if rootless.inside() is None:
        return join_machine(agents.networks, gateways)
    return f"in the cloud's own network (`cumulet enter COMMAND`) {join_machine(agents.networks, gateways)}"


def _images(settings: Settings) -> Path:
    """Where the hosts of this machine fetch images."""
    return settings.state_dir / "hosts" / "images.sock"


def _networks(settings: Settings) -> tuple[LocalNetworks | None, Mapping[str, HostNetwork]]:
    """As the settings say; where they say nothing, root gives each host a namespace, so that it can wire guests."""
    if settings.host_networks or not settings.host_names or os.geteuid() != 0:
        return None, settings.host_networks
    from cumulet.fleet.local_networks import LocalNetworks, NoNamespaces

    local = LocalNetworks(settings.state_dir, settings.host_names)
    try:
        made = local.make()
    except NoNamespaces as problem:
        log.warning("hosts have no networks for guests: %s", problem)
        return None, settings.host_networks
    return local, made


def _undo_if_failed(local: LocalNetworks, failed: type[BaseException] | None, *_: object) -> None:
    """On the stack of a start: a cloud that has started decides itself when its namespaces go."""
    if failed is not None:
        local.undo()


def _place(
    settings: Settings, authority: CertificateAuthority, name: str, networks: Mapping[str, HostNetwork]
) -> AgentPlace:
    from cumulet.fleet.local_agents import AgentPlace
    from cumulet.fleet.local_networks import PUBLIC_DEVICE

    folder = settings.state_dir / "hosts" / name
    network = networks.get(name, HostNetwork())
    made_here = network.namespace is not None and name not in settings.host_networks
    return AgentPlace(
        name=name,
        state=folder,
        tls=authority.issue_host(name),
        socket=folder / "agent.sock",
        images=_images(settings),
        address=network.address,
        guest_uids=settings.guest_uids,
        limits=limits_of(settings),
        network_namespace=network.namespace,
        public_device=PUBLIC_DEVICE if made_here else settings.public_interface,
        lease_seconds=settings.lease_seconds if settings.fence_silent_hosts else None,
        sharing=len(settings.host_names),
    )
