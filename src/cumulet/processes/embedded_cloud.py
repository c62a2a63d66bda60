"""A whole cloud that runs in this process (`processes.all` starts it)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import msgspec

from cumulet.ca import CertificateAuthority
from cumulet.clock import Clock
from cumulet.compute.ending_moves import end_moves
from cumulet.conductor.conductor import Conductor
from cumulet.conductor.runner import Runner
from cumulet.db.engine import Database
from cumulet.drivers.simulated.driver import World
from cumulet.fleet.addresses import url_here
from cumulet.fleet.hosts import Hosts
from cumulet.identity.bootstrap import Passwords
from cumulet.identity.service import Identity
from cumulet.settings import Settings
from cumulet.web.context import Cloud
from cumulet.web.server import Server

if TYPE_CHECKING:
    from cumulet.fleet.local_agents import AgentProcesses


class EmbeddedCloud(msgspec.Struct, kw_only=True):
    """A running cloud. `url` has no trailing slash."""

    settings: Settings
    clock: Clock
    db: Database
    identity: Identity
    conductor: Conductor
    hosts: Hosts
    context: Cloud
    server: Server
    authority: CertificateAuthority
    passwords: Passwords
    world: World | None
    reach: str | None
    """A sentence on how floating IPs are reached from this machine; None: there is nothing to say."""
    _agents: AgentProcesses | None
    _closing: AsyncExitStack = msgspec.field(default_factory=AsyncExitStack)

    def __repr__(self) -> str:
        """Without settings and parts, which hold passwords."""
        return f"<EmbeddedCloud {self.url}>"

    @property
    def runner(self) -> Runner:
        return self.conductor.runner

    @property
    def url(self) -> str:
        return url_here(self.settings, self.server.address, self.server.port)

    def clouds_yaml(self) -> str:
        """The text of clouds.yaml: credentials of `cumulet` and `demo`."""
        return (self.settings.state_dir / "clouds.yaml").read_text(encoding="utf-8")

    async def stop(self) -> None:
        """Stop the API, then the conductor, then the hosts. Real guests go on only with the setting `leave_guests`."""
        await self.server.stop()
        if self._agents is not None and not self.settings.leave_guests:
            await end_moves(self.db, self.runner)
            await self.conductor.stop()  # It would record the stopped guests as a fault.
            await self._agents.stop_guests(self.hosts)
        await self._closing.aclose()
        if self._agents is not None and self._agents.networks is not None and not self.settings.leave_guests:
            await asyncio.to_thread(self._agents.networks.remove)
