"""The hosts of this machine. Agents of simulated hosts are in this process; each real host has a process."""

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
    """Start the hosts of `settings.driver` and link them to `hosts`; `stack` ends them. `certificate`: the control
    plane's, for them; `find_image`: gives an image that a host may fetch; `receive_image`: stores one it brings."""
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
            lease.begin()  # The lease of the last process ended with it.
        agent = Agent(name=name, driver=driver, fence=fence, lease=lease, session=clock.uuid())
        hosts.add(name, InProcessLink(agent))
    return world, None


def join_public(settings: Settings, agents: AgentProcesses | None, gateways: Sequence[str]) -> str | None:
    """If the hosts' networks were made here, join `public` to the machine or to the interface in the settings.

    Returns a sentence for people, or None. Raises `NotPublic` for an interface that cannot be used.
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
    """The socket where the hosts of this machine fetch images."""
    return settings.state_dir / "hosts" / "images.sock"


def _networks(settings: Settings) -> tuple[LocalNetworks | None, Mapping[str, HostNetwork]]:
    """The networks of the settings. If there are none, root makes a namespace for each host, to wire guests in."""
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
    """If the start fails, remove the namespaces. A cloud that has started removes them itself at its end."""
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
