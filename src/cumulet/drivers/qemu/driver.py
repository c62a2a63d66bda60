"""The QEMU driver: `host.driver.Driver` over real guests. Each verb's work is in the file of its feature."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cumulet.drivers.qemu import (
    adoption,
    chosen_devices,
    cold_migration,
    counters,
    further_disks,
    guest_agent,
    hotplug,
    life,
    live_migration_destination,
    live_migration_progress,
    live_migration_source,
    rescue,
    snapshots,
    suspension,
    telling,
)
from cumulet.drivers.qemu.consoles import Consoles
from cumulet.drivers.qemu.disks import Disks
from cumulet.drivers.qemu.facts import QemuFacts, post_copy_problem, probe
from cumulet.drivers.qemu.host import QemuHost, lasting
from cumulet.drivers.qemu.image_cache import ImageCache
from cumulet.drivers.qemu.sandbox import UIDS, Sandbox
from cumulet.drivers.qemu.screens import Screens
from cumulet.drivers.qemu.tls import TransportSecurity
from cumulet.host import machine, uneven_memory
from cumulet.host.diagnostics import GuestCounters
from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.host.driver import (
    Guest,
    GuestReport,
    GuestState,
    HostFacts,
    MigrationParameters,
    MigrationPhase,
    MigrationProgress,
    Nic,
    Printed,
)
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.host.images import ImageSink, ImageSource
from cumulet.host.limits import USUAL_LIMITS, HostLimits
from cumulet.host.nics import DEVICE_TAGS
from cumulet.host.telling import LIVE_METADATA, Heard, Told
from cumulet.host.traffic import NO_TRAFFIC, Traffic
from cumulet.host.wiring import (
    BANDWIDTH_LIMITS,
    DSCP_MARKS,
    FLOATING_IP_LIMITS,
    GATEWAY_LIMITS,
    METERING,
    PORT_NAMES,
    TRUNKS,
    InForce,
    NotDone,
    Wiring,
)

if TYPE_CHECKING:
    from cumulet.drivers.linux_network.network import LinuxNetwork

_LISTEN_SECONDS = 60.0
_OF_NETWORKS = (
    "networks",
    BANDWIDTH_LIMITS,
    FLOATING_IP_LIMITS,
    GATEWAY_LIMITS,
    DSCP_MARKS,
    PORT_NAMES,
    METERING,
    LIVE_METADATA,
)
"""What a host offers whose guests can have networks."""


class QemuDriver:
    """Made by `open`. Two of them on one machine need two names and two state folders."""

    def __init__(self, host: QemuHost) -> None:
        self._host = host
        self._consoles = Consoles(host)
        self._screens = Screens(host)
        self._tidying: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        *,
        name: str,
        state: Path,
        images: ImageSource,
        sink: ImageSink | None = None,
        address: str = "127.0.0.1",
        facts: QemuFacts | None = None,
        network: LinuxNetwork | None = None,
        listen_seconds: float = _LISTEN_SECONDS,
        sharing: int = 1,
        guest_uids: range = UIDS,
        limits: HostLimits = USUAL_LIMITS,
    ) -> QemuDriver:
        """Find out what QEMU can do (unless told), adopt the guests that live. Raises `QemuMissing`, `DriverError`.

        `network`: what wires its guests, closed with the driver; without one they have no networks.
        `address` is where migrations connect.
        `images`: where it fetches what guests are made from; `sink`: where images of their disks go.
        `sharing`: how many hosts share this machine. `guest_uids`: whom guests run as, started as root.
        `limits`: what guests and images may take of the host.
        """
        state = state.absolute()
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        facts = facts or await probe()
        sandbox = Sandbox(host=name, uids=guest_uids)
        await sandbox.probe()
        await asyncio.to_thread(sandbox.remove_left_groups)
        cache = ImageCache(folder=state / "images", source=images, limits=limits)
        host = QemuHost(
            name=name,
            address=address,
            state=state,
            facts=facts,
            sandbox=sandbox,
            disks=Disks(images=cache, qemu_img=facts.qemu_img, sandbox=sandbox),
            tls=TransportSecurity(sandbox=sandbox),
            network=network,
            sink=sink,
            listen_seconds=listen_seconds,
            sharing=sharing,
            limits=limits,
        )
        host.on_let_go = partial(hotplug.put_right, host)
        if network is not None and network.posts is not None:
            network.posts.take = partial(telling.post, host)
        await asyncio.to_thread(cache.remove_unfinished)
        await asyncio.to_thread(cache.tidy)
        await adoption.adopt_all(host)
        driver = cls(host)
        driver._tidying = asyncio.create_task(lasting("the image cache", cache.keep_tidy), name="image-cache")
        return driver

    async def facts(self) -> HostFacts:
        host = self._host
        offered = machine.part(machine.capacity(host.state), host.sharing)
        return HostFacts(
            name=host.name,
            driver="qemu",
            hypervisor_type="QEMU",
            hypervisor_version=host.facts.version_number,
            vcpus=offered.vcpus,
            memory_mib=offered.memory_mib,
            disk_gib=offered.disk_gib,
            cpu_models=host.facts.cpu_models,
            machine_types=host.facts.machine_types,
            features=(
                "local-disk",
                "config-drive",
                "suspend",
                "guest-agent",
                DEVICE_TAGS,
                uneven_memory.FEATURE,
                *chosen_devices.offered(host.facts.drivers),
                host.facts.accelerator,
                *(_OF_NETWORKS if host.network is not None else ()),
                *([TRUNKS] if host.network is not None and host.network.carries_not is None else []),
                *(["public"] if host.network is not None and "public" in host.network.leads_to else []),
                *(["further-disks"] if not further_disks.lacking() else []),
                *(["post-copy"] if post_copy_problem(host.facts) is None else []),
            ),
            address=host.address,
            booted_at_us=int(Path("/proc/stat").read_text().split("btime")[1].split()[0]) * 1_000_000,
        )

    async def wire(self, wiring: Wiring) -> InForce:
        if self._host.network is not None:
            return await self._host.network.apply(wiring)
        return _nothing(wiring.revision)

    async def in_force(self) -> InForce:
        return await self._host.network.in_force() if self._host.network is not None else _nothing(0)

    async def traffic(self, port_ids: Collection[str]) -> Traffic:
        return await self._host.network.traffic(port_ids) if self._host.network is not None else NO_TRAFFIC

    async def guests(self) -> list[GuestReport]:
        return await adoption.reports(self._host)

    async def observe(self, server_id: str) -> GuestState:
        return await self._host.observe(server_id)

    async def create(self, guest: Guest, *, run: bool = True) -> Guest:
        return await life.create(self._host, guest, run=run)

    async def destroy(self, server_id: str) -> None:
        await life.destroy(self._host, server_id)

    async def start(self, server_id: str, *, drop_saved: bool = False) -> None:
        await life.start(self._host, server_id, drop_saved=drop_saved)

    async def stop(self, server_id: str, *, grace_seconds: float) -> None:
        await life.stop(self._host, server_id, grace_seconds=grace_seconds)

    async def reboot(self, server_id: str, *, hard: bool) -> None:
        await life.reboot(self._host, server_id, hard=hard)

    async def pause(self, server_id: str) -> None:
        await life.pause(self._host, server_id)

    async def unpause(self, server_id: str) -> None:
        await life.unpause(self._host, server_id)

    async def suspend(self, server_id: str) -> None:
        await suspension.suspend(self._host, server_id)

    async def resume(self, server_id: str) -> None:
        await suspension.resume(self._host, server_id)

    async def plug(self, server_id: str, nic: Nic) -> None:
        await hotplug.plug(self._host, server_id, nic)

    async def unplug(self, server_id: str, port_id: str, *, insist: bool = True) -> None:
        await hotplug.unplug(self._host, server_id, port_id, insist=insist)

    async def inject_nmi(self, server_id: str) -> None:
        await life.inject_nmi(self._host, server_id)

    async def console_output(self, server_id: str, *, max_bytes: int) -> bytes:
        return await life.console_output(self._host, server_id, max_bytes=max_bytes)

    async def open_console(self, server_id: str, session: str) -> None:
        await self._consoles.open(server_id, session)

    async def open_screen(self, server_id: str, session: str) -> None:
        await self._screens.open(server_id, session)

    async def read_console(self, server_id: str, session: str, *, position: int, wait_seconds: float) -> Printed:
        console = self._screens if self._screens.has(server_id, session) else self._consoles
        return await console.read(server_id, session, position=position, wait_seconds=wait_seconds)

    async def write_console(self, server_id: str, session: str, *, position: int, data: bytes) -> None:
        console = self._screens if self._screens.has(server_id, session) else self._consoles
        await console.write(server_id, session, position=position, data=data)

    async def close_console(self, server_id: str, session: str) -> None:
        console = self._screens if self._screens.has(server_id, session) else self._consoles
        await console.close(server_id, session)

    async def diagnostics(self, server_id: str) -> GuestCounters:
        return await counters.counters(self._host, server_id)

    async def prepare_outgoing(self, server_id: str, *, move: str) -> Peer:
        return await live_migration_source.prepare_outgoing(self._host, server_id, move=move)

    async def prepare_incoming(self, guest: Guest, *, source: Peer, parameters: MigrationParameters) -> Endpoint:
        return await live_migration_destination.prepare_incoming(
            self._host, guest, source=source, parameters=parameters
        )

    async def resume_destination(self, server_id: str) -> None:
        await live_migration_destination.resume_destination(self._host, server_id)

    async def arrival(self, server_id: str) -> MigrationPhase:
        return await live_migration_destination.arrival(self._host, server_id)

    async def recover_incoming(self, server_id: str) -> Endpoint:
        return await live_migration_destination.recover_incoming(self._host, server_id)

    async def recover_copy(self, server_id: str, endpoint: Endpoint) -> None:
        await live_migration_source.recover_copy(self._host, server_id, endpoint)

    async def give_up_memory(self, server_id: str) -> None:
        await live_migration_destination.give_up_memory(self._host, server_id)

    async def start_copy(self, server_id: str, endpoint: Endpoint, parameters: MigrationParameters) -> None:
        await live_migration_source.start_copy(self._host, server_id, endpoint, parameters)

    async def copy_progress(self, server_id: str, *, wait_seconds: float, seen: MigrationPhase) -> MigrationProgress:
        return await live_migration_progress.copy_progress(self._host, server_id, wait_seconds=wait_seconds, seen=seen)

    async def force_complete(self, server_id: str) -> None:
        await live_migration_source.force_complete(self._host, server_id)

    async def begin_post_copy(self, server_id: str) -> None:
        await live_migration_source.begin_post_copy(self._host, server_id)

    async def cancel_copy(self, server_id: str) -> MigrationProgress:
        return await live_migration_source.cancel_copy(self._host, server_id)

    async def resume_source(self, server_id: str) -> None:
        await live_migration_source.resume_source(self._host, server_id)

    async def stand_by(self, server_id: str) -> None:
        await cold_migration.stand_by(self._host, server_id)

    async def stand_down(self, server_id: str) -> None:
        await cold_migration.stand_down(self._host, server_id)

    async def take_in(self, guest: Guest) -> None:
        await cold_migration.take_in(self._host, guest)

    async def set_password(self, server_id: str, *, user: str, password: str) -> None:
        await guest_agent.set_password(self._host, server_id, user=user, password=password)

    async def tell(self, server_id: str, told: Told) -> Heard:
        return await telling.tell(self._host, server_id, told)

    async def begin_snapshot(self, server_id: str, *, image_id: str, quiesce: bool = False) -> None:
        await snapshots.begin(self._host, server_id, image_id=image_id, quiesce=quiesce)

    async def snapshot_progress(
        self, server_id: str, *, image_id: str, wait_seconds: float, seen: SnapshotPhase
    ) -> SnapshotProgress:
        return await snapshots.progress(self._host, server_id, image_id=image_id, wait_seconds=wait_seconds, seen=seen)

    async def end_snapshot(self, server_id: str) -> None:
        await snapshots.end(self._host, server_id)

    async def rescue(self, guest: Guest) -> None:
        await rescue.rescue(self._host, guest)

    async def unrescue(self, server_id: str, *, run: bool) -> None:
        await rescue.unrescue(self._host, server_id, run=run)

    async def rescued(self, server_id: str) -> bool:
        return self._host.record(server_id).rescued

    async def close(self) -> None:
        if self._tidying is not None:
            self._tidying.cancel()
        await self._consoles.end()
        await self._host.close()
        if self._host.network is not None:
            await self._host.network.close()


def _nothing(revision: int) -> InForce:
    return InForce(revision=revision, not_done=(NotDone(subject="", reason="this host cannot wire guests"),))
