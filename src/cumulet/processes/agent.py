"""The process on a host: one agent with its driver, fence and lease. It ends with the process that started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import threading
from contextlib import AsyncExitStack

from cumulet.agent.agent import Agent
from cumulet.agent.fence import FileFence
from cumulet.agent.images import ImagesOfControlPlane
from cumulet.agent.only_one import only_one
from cumulet.agent.watched_lease import lease_of
from cumulet.bus.unix_socket import serve_agent
from cumulet.confined import user_ids
from cumulet.drivers.linux_network.alone import NotAlone, alone
from cumulet.drivers.linux_network.opening import network_of
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.fleet.local_agents import AgentPlace
from cumulet.signals import Stopped, unless


async def run_agent(place: AgentPlace) -> None:
    """Be the agent of one host until standard input closes."""
    ended = _parent_ended()
    try:
        with contextlib.suppress(Stopped):
            await _serve(place, ended)
    except NotAlone as refused:
        raise SystemExit(f"{place.name}: {refused}") from None


async def _serve(place: AgentPlace, ended: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        await unless(ended, stack.enter_async_context(only_one(place.state)))
        if wired := place.network_namespace is not None:
            stack.enter_context(alone(f"the agent of {place.name} with the state folder {place.state}"))
        lease = await lease_of(place.state, place.lease_seconds)
        images = ImagesOfControlPlane(place.images, place.tls)
        driver = await QemuDriver.open(
            name=place.name,
            state=place.state / "qemu",
            images=images,
            sink=images,
            address=place.address,
            network=await network_of(place.name, place.address, place.public_device) if wired else None,
            sharing=place.sharing,
            guest_uids=user_ids.of(place.guest_uids),
            limits=place.limits,
        )
        fence, session = FileFence(place.state / "fence"), secrets.token_hex(8)
        agent = Agent(name=place.name, driver=driver, fence=fence, lease=lease, session=session)
        server = await serve_agent(agent, place.socket)
        try:
            await ended.wait()
        finally:
            server.close()
            await driver.close()


def _parent_ended() -> asyncio.Event:
    """Is set when standard input closes. Its thread does not keep an agent that fails from ending."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def read() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        with contextlib.suppress(RuntimeError):  # The loop has ended meanwhile.
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, name="parent", daemon=True).start()
    return ended
