"""Starts host agents as processes beside the control plane (`processes.agent`), and restarts them when they end.

An agent ends when the control plane that started it ends in any way, because its standard input closes. Guests go on.
The next agent of the same host waits for the lock on the host's folder, so there are never two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cumulet.bus.unix_socket import UnixSocketLink
from cumulet.fleet.hosts import Hosts
from cumulet.fleet.local_networks import LocalNetworks
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.limits import USUAL_LIMITS, HostLimits

log = logging.getLogger(__name__)

READY_SECONDS = 60.0
STOP_GUEST_GRACE_SECONDS = 5.0
RESTART_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPlace:
    """What the agent of one host is started with: its name, its state folder, its TLS files, its socket."""

    name: str
    state: Path
    tls: Path
    socket: Path
    images: Path
    """The socket of the control plane's `fleet.image_door`."""
    address: str = "127.0.0.1"
    """Where guests that move here are received."""
    network_namespace: str | None = None
    """The network namespace of the agent and its guests, by its name in `ip netns`; None: that of this process."""
    public_device: str | None = None
    """The device in that namespace that leads to the physical network `public`."""
    lease_seconds: float | None = None
    """The lease of a host with a watchdog, which stops its guests when the lease has run out."""
    guest_uids: str = "70000-73999"
    """Users of guests, ``FIRST-LAST``."""
    limits: HostLimits = USUAL_LIMITS
    sharing: int = 1
    """How many hosts share this machine, and so its cores, memory and disk."""

    def command(self) -> list[str]:
        # `nsenter` becomes the agent, with the same process number; `ip netns exec` would hide /sys/fs/cgroup.
        enter = [] if self.network_namespace is None else ["nsenter", f"--net=/run/netns/{self.network_namespace}"]
        return [
            *enter, sys.executable, "-m", "cumulet", "agent", "--name", self.name, "--state", str(self.state),
            "--tls", str(self.tls), "--socket", str(self.socket), "--images", str(self.images),
            "--address", self.address,
            "--sharing", str(self.sharing), "--guest-uids", self.guest_uids,
            *(f"--set={name}={value}" for name, value in self.limits.given().items()),
            *([] if self.network_namespace is None else ["--network-namespace", self.network_namespace]),
            *([] if self.public_device is None else ["--public-device", self.public_device]),
            *([] if self.lease_seconds is None else ["--lease-seconds", str(self.lease_seconds)]),
        ]  # fmt: skip


@dataclass(slots=True)
class AgentProcesses:
    """The agents of this machine's hosts: started, linked, restarted when they end, stopped."""

    places: Sequence[AgentPlace]
    networks: LocalNetworks | None = None
    """The namespaces made for the hosts, if there are any."""
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)
    _links: dict[str, UnixSocketLink] = field(default_factory=dict)

    async def start(self, hosts: Hosts) -> None:
        """Start every agent and wait until each answers; raises HostUnreachable with what is known otherwise."""
        for place in self.places:
            place.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            link = self._links[place.name] = UnixSocketLink(place.socket)
            hosts.add(place.name, link, own=True)
            self._keepers.append(asyncio.create_task(self._keep(place), name=f"agent-{place.name}"))
        await asyncio.gather(*(self._answers(hosts, place) for place in self.places))

    async def _keep(self, place: AgentPlace) -> None:
        """Run the agent, and start it again whenever it ends."""
        while True:
            try:
                process = await asyncio.create_subprocess_exec(*place.command(), stdin=asyncio.subprocess.PIPE)
            except OSError:  # As long as the machine is out of memory or descriptors, for example.
                log.exception("agent of %s could not be started, will retry", place.name)
                await asyncio.sleep(RESTART_PAUSE_SECONDS)
                continue
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                if process.stdin is not None:
                    process.stdin.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(10):
                        await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                raise
            log.warning("agent of %s ended with %s, starting it again", place.name, code)
            await asyncio.sleep(RESTART_PAUSE_SECONDS)

    async def _answers(self, hosts: Hosts, place: AgentPlace) -> None:
        last: Exception | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                while True:
                    try:
                        await hosts.facts(place.name)
                        return
                    except m.HostError as error:
                        last = error
                        await asyncio.sleep(0.02)
        raise m.HostUnreachable(f"the agent of {place.name} did not start: {last}")

    async def stop_guests(self, hosts: Hosts) -> None:
        """Stop every guest of these hosts, because the cloud ends."""
        await asyncio.gather(*(self._stop_guests_of(hosts, place.name) for place in self.places))

    async def _stop_guests_of(self, hosts: Hosts, name: str) -> None:
        try:
            reports = await hosts.guests(name)
        except m.HostError as error:
            log.warning("guests of %s are left as they are: %s", name, error)
            return
        stops = (
            hosts.send(
                name,
                m.Stop(
                    server_id=report.server_id, operation_id="shutdown", generation=report.generation,
                    step=report.step, grace_seconds=STOP_GUEST_GRACE_SECONDS,
                ),
            )
            for report in reports
            if report.state in (GuestState.RUNNING, GuestState.PAUSED)
        )  # fmt: skip
        for result in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(result, BaseException):
                log.warning("a guest of %s could not be stopped: %s", name, result)

    async def stop(self) -> None:
        """Stop the agents; guests that still run are left to run."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
