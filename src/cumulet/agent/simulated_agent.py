"""The agent of a simulated host, with its model of a machine."""

from __future__ import annotations

from contextlib import AsyncExitStack

from cumulet.agent.agent import Agent
from cumulet.agent.simulated_fence import SimulatedFence
from cumulet.agent.simulated_lease import SimulatedLease, SimulatedWatchdog
from cumulet.clock import Clock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.settings import Settings


def simulated_agent(name: str, world: World, settings: Settings, clock: Clock, stack: AsyncExitStack) -> Agent:
    """That of the host `name` in `world`; `stack` ends it."""
    folder = settings.state_dir / "hosts" / name
    driver = SimulatedDriver(name=name, world=world, clock=clock, settings=settings, directory=folder / "guests")
    fence = SimulatedFence(folder / "fence.txt")
    stack.callback(fence.close)
    lease = None
    if settings.fence_silent_hosts:
        watchdog = SimulatedWatchdog(clock, driver.lose_power)
        stack.push_async_callback(watchdog.close)
        lease = SimulatedLease(watchdog, seconds=settings.host_lease_seconds)
        lease.begin()  # The lease of the last process ended with it.
    return Agent(name=name, driver=driver, fence=fence, lease=lease, session=clock.uuid())
