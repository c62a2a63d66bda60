"""How a guest's disks are copied to another host: one mirror job each, over its own connection to one NBD server.

All begin together, and the memory follows once all are ready. If one job fails the move fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from cumulet.drivers.qemu import sockets
from cumulet.drivers.qemu.answers import Job
from cumulet.drivers.qemu.command_line import disk_nodes
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.host.driver import DriverError, Guest
from cumulet.host.endpoint import Endpoint

HANG_SECONDS = 1.0


def _job(node: str) -> str:
    return f"mirror-{node}"


def _target(node: str) -> str:
    """The disk at the destination."""
    return f"{node}-destination"


def _connection(node: str) -> str:
    return f"{node}-connection"


def names(guest: Guest) -> list[str]:
    """The jobs' ids, in the order of the disks."""
    return [_job(node) for node in disk_nodes(guest)]


async def jobs(hypervisor: Hypervisor, guest: Guest) -> list[Job | None]:
    """For each disk the job that copies it, or None."""
    found = {job.id: job for job in await hypervisor.jobs_now()}
    return [found.get(name) for name in names(guest)]


async def begin(hypervisor: Hypervisor, guest: Guest, endpoint: Endpoint, *, tls_creds: str, tls_hostname: str) -> None:
    if endpoint.nbd_port is None:
        raise DriverError("NO_DISK: the destination offers no disk")
    for name in names(guest):
        hypervisor.jobs.pop(name, None)
    for node in disk_nodes(guest):
        await sockets.hand_over(hypervisor, _connection(node), endpoint.address, endpoint.nbd_port)
        await hypervisor.blockdev_add_nbd(
            _target(node), connection=_connection(node), export=node, tls_creds=tls_creds, tls_hostname=tls_hostname
        )
        await hypervisor.copy_disk(_job(node), device=node, target=_target(node))


def why(ended: Sequence[Job | None]) -> str:
    """The reason why these jobs ended too early."""
    words = next((job.error for job in ended if job is not None and job.error), None)
    return f"copying the disk failed: {words or 'the job has ended'}"


async def cut(hypervisor: Hypervisor, guest: Guest) -> None:
    """End the connections, out of band."""
    for node in disk_nodes(guest):
        with contextlib.suppress(DriverError):
            await hypervisor.yank_node(_target(node))


async def clean_up(hypervisor: Hypervisor, guest: Guest) -> None:
    """End the jobs and remove the connections, as far as they exist."""
    for node, job in zip(disk_nodes(guest), await jobs(hypervisor, guest), strict=True):
        if job is not None and job.status != "concluded":
            await _drop(hypervisor, node)
        if job is not None:
            with contextlib.suppress(DriverError):
                await hypervisor.job_dismiss(job.id)
        with contextlib.suppress(DriverError):  # Used, or never there.
            await hypervisor.closefd(_connection(node))
    present = await hypervisor.block_nodes()
    for node in disk_nodes(guest):
        if _target(node) in present:
            await hypervisor.blockdev_del(_target(node))


async def _drop(hypervisor: Hypervisor, node: str) -> None:
    """Cancel the job by force; where it waits for a dead connection, cut that first."""
    with contextlib.suppress(DriverError):
        await hypervisor.block_job_cancel(_job(node), force=True, timeout_s=HANG_SECONDS)
    for attempt in range(2):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANG_SECONDS):
                while True:
                    change = hypervisor.change()
                    job = await hypervisor.job(_job(node))
                    if job is None or job.status == "concluded":
                        return
                    await hypervisor.wait_for_change(change, HANG_SECONDS)
        if attempt == 0:
            await hypervisor.yank_node(_target(node))
    raise DriverError("MIRROR_STUCK: the disk copy does not end")
