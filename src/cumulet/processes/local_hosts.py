"""The hosts of this machine. Agents of simulated hosts are in this process; each real host has a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from cumulet.agent.simulated_agent import simulated_agent
from cumulet.bus.in_process import InProcessLink
from cumulet.ca import Issued
from cumulet.drivers.simulated.driver import World
from cumulet.errors import ApiError
from cumulet.fleet.api_certificate import issue_server
from cumulet.host.driver import DriverError
from cumulet.host.images import Find, Receive
from cumulet.processes.certificates import Certificates
from cumulet.processes.ground import Ground

if TYPE_CHECKING:
    from cumulet.fleet.local_agents import AgentProcesses


async def connect_real(
    ground: Ground, certificates: Certificates, images: tuple[Find, Receive], stack: AsyncExitStack
) -> AgentProcesses:
    """Start the agents of real hosts, and link them to the ground's; `stack` ends them."""
    from cumulet.fleet.image_door import ImageDoor
    from cumulet.fleet.local_agents import AgentProcesses
    from cumulet.fleet.local_hosts import image_socket, networks_of, place_of, undo_if_failed

    settings, authority = ground.settings, certificates.authority

    def again() -> Issued:
        return issue_server(settings, authority, settings.state_dir)

    door = ImageDoor(*images, issued := again())
    certificates.keep("images for hosts here", issued, again, door.show)
    stack.push_async_callback(door.close)
    await door.listen(image_socket(settings))
    local, networks = await asyncio.to_thread(networks_of, settings)
    if local is not None:
        stack.push(partial(undo_if_failed, local))
    places = [place_of(settings, authority, name, networks) for name in settings.host_names]
    for name in settings.host_names:
        of_host = partial(authority.issued_to_host, name)
        certificates.keep(f"host {name}", of_host(), of_host, lambda _: None)  # Agents read it for each image.
    agents = AgentProcesses(places, networks=local)
    stack.push_async_callback(agents.stop)
    await agents.start(ground.hosts)
    return agents


def connect_simulated(ground: Ground, receive: Receive, stack: AsyncExitStack) -> World:
    """Start the agents of simulated hosts, which are in one world, and link them to the ground's; `stack` ends them."""

    async def take(host: str, image_id: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        try:
            await receive(host, image_id, size, pieces)
        except ApiError as refused:
            raise DriverError(f"the image was not taken: {refused}") from refused

    world = World()
    world.take = take
    for name in ground.settings.host_names:
        agent = simulated_agent(name, world, ground.settings, ground.clock, stack)
        ground.hosts.add(name, InProcessLink(agent), own=True)
    return world
