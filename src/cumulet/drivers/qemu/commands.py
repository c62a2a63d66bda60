"""Every QMP command that Cumulet uses, as a method with the types of its arguments and its answer.

The names of commands are in this file, and in `questions`. Each method raises `DriverError` with QEMU's words where
it refuses, hangs or is gone. Reference: QEMU's `qapi/*.json`.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TypeVar

import msgspec

from cumulet.drivers.qemu.answers import (
    Chardev,
    Disk,
    DiskStatistics,
    Identified,
    Job,
    Migration,
    Named,
    Node,
    Processor,
    SeenDisk,
    Status,
)
from cumulet.drivers.qemu.qmp import Arguments, Json
from cumulet.host.driver import DriverError

T = TypeVar("T")

ANSWER_SECONDS = 10.0
"""How long a monitor may take. A blocked main loop (network cut in the switchover) answers nothing but `yank`."""

_MIGRATION_CAPABILITIES = frozenset(
    ("events", "return-path", "late-block-activate", "pause-before-switchover", "postcopy-ram")
)
"""All that any use of QEMU's migration switches on. They stay on until its process ends, so each use sets all."""


class Commands(ABC):
    """What a QEMU process is asked and told. Whoever inherits sends it (`hypervisor.Hypervisor`)."""

    __slots__ = ()

    @abstractmethod
    async def ask(
        self,
        command: str,
        arguments: Arguments | None = None,
        *,
        timeout_s: float = ANSWER_SECONDS,
        pass_fd: int | None = None,
    ) -> Json:
        """Run a command by its name."""

    @abstractmethod
    async def ask_out_of_band(self, command: str, arguments: Arguments) -> None:
        """Run a command for which QEMU's main loop is not needed, since it may wait for something that never comes."""

    # -- the guest

    async def run_state(self) -> str:
        """`query-status`: QEMU's word for what the machine does, e.g. ``running``, ``inmigrate``, ``postmigrate``."""
        return _read(await self.ask("query-status"), Status).status

    async def cont(self) -> None:
        """`cont`: the virtual processors run on."""
        await self.ask("cont")

    async def stop(self) -> None:
        """`stop`: the virtual processors stand still."""
        await self.ask("stop")

    async def system_powerdown(self) -> None:
        """`system_powerdown`: press the power button; whether anything follows is up to the guest."""
        await self.ask("system_powerdown")

    async def system_reset(self) -> None:
        """`system_reset`: as a reset button does."""
        await self.ask("system_reset")

    async def inject_nmi(self) -> None:
        """`inject-nmi`: an interrupt that no system can ignore, on every virtual processor."""
        await self.ask("inject-nmi")

    async def end(self, *, timeout_s: float) -> None:
        """`quit`: the process ends, in order."""
        await self.ask("quit", timeout_s=timeout_s)

    async def ringbuf_read(self, device: str, max_bytes: int) -> bytes:
        """`ringbuf-read`: take what a character device's ring holds out of it."""
        answer = await self.ask("ringbuf-read", {"device": device, "size": max_bytes, "format": "base64"})
        return base64.b64decode(str(answer or ""))

    async def chardev_to_socket(self, device: str, descriptor: str) -> None:
        """`chardev-change`: a character device is a connected socket from now on. `descriptor`: by `getfd`."""
        address: Json = {"type": "fd", "data": {"str": descriptor}}
        backend: Json = {"type": "socket", "data": {"addr": address, "server": False}}
        await self.ask("chardev-change", {"id": device, "backend": backend})

    async def chardev_to_ring(self, device: str, max_bytes: int) -> None:
        """`chardev-change`: a character device is an empty ring from now on."""
        backend: Json = {"type": "ringbuf", "data": {"size": max_bytes}}
        await self.ask("chardev-change", {"id": device, "backend": backend})

    async def chardev_is_ring(self, device: str) -> bool:
        """`query-chardev`: whether a character device is a ring."""
        found = _read(await self.ask("query-chardev"), list[Chardev])
        return any(one.label == device and one.filename.startswith("ringbuf") for one in found)

    async def add_screen_client(self, descriptor: str) -> None:
        """`add_client`, protocol `vnc`: a connected socket is a client of the screen from now on. `descriptor`: by
        `getfd`. Who it is was asked before."""
        await self.ask("add_client", {"protocol": "vnc", "fdname": descriptor, "skipauth": True})

    async def getfd(self, name: str, descriptor: int) -> None:
        """`getfd`: QEMU gets a copy of a descriptor of ours, which later commands call ``fd:NAME``."""
        await self.ask("getfd", {"fdname": name}, pass_fd=descriptor)

    async def closefd(self, name: str) -> None:
        """`closefd`: close what `getfd` gave and no command has used; an error where there is no such."""
        await self.ask("closefd", {"fdname": name})

    async def processors(self) -> list[Processor]:
        """`query-cpus-fast`: all virtual ones; does not disturb them."""
        return _read(await self.ask("query-cpus-fast"), list[Processor])

    # -- disks and their copies

    async def block_set_io_throttle(
        self, device: str, *, group: str, bytes_per_second: int, requests_per_second: int
    ) -> None:
        """`block_set_io_throttle`: what the disks of a group do at most together, reading and writing. `device`: one of
        `devices_of_nodes` that joins it."""
        apart = dict.fromkeys(("bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
        limits: Arguments = {"bps": bytes_per_second, "iops": requests_per_second, **apart}
        await self.ask("block_set_io_throttle", {"id": device, "group": group, **limits})

    async def devices_of_nodes(self) -> dict[str, str]:
        """`query-block`: by name of a block device, the device by which the guest sees it."""
        found = _read(await self.ask("query-block"), list[SeenDisk])
        return {disk.inserted.node_name: disk.qdev for disk in found if disk.inserted is not None}

    async def disk_statistics(self) -> list[DiskStatistics]:
        """`query-blockstats`: of each disk, in the order of the command line."""
        return [disk.stats for disk in _read(await self.ask("query-blockstats"), list[Disk])]

    async def blockdev_add_nbd(
        self, node: str, *, connection: str, export: str, tls_creds: str, tls_hostname: str
    ) -> None:
        """`blockdev-add`, driver `nbd`: a block device that is a disk of another QEMU, over TLS. `connection`: a
        connected socket, by `getfd`; QEMU 7.2 cannot be told to connect it again (it would take any other's number)."""
        device: Arguments = {
            "driver": "nbd",
            "node-name": node,
            "server": {"type": "fd", "str": connection},
            "export": export,
            "tls-creds": tls_creds,
            "tls-hostname": tls_hostname,
        }
        await self.ask("blockdev-add", device)

    async def blockdev_del(self, node: str) -> None:
        """`blockdev-del`: forget a block device that nothing uses."""
        await self.ask("blockdev-del", {"node-name": node})

    async def block_nodes(self) -> set[str]:
        """`query-named-block-nodes`: the names of all block devices."""
        return {node.node_name for node in _read(await self.ask("query-named-block-nodes"), list[Node])}

    async def blockdev_add_copy(self, node: str, path: str) -> None:
        """`blockdev-add`, driver `qcow2`: a block device that is a file, and names no other. It is never flushed:
        nobody needs it once its QEMU has ended, and closing it would hold up the guest until it is on the disk."""
        file: Arguments = {"driver": "file", "filename": path, "locking": "on"}
        device: Arguments = {"driver": "qcow2", "node-name": node, "file": file, "backing": None}
        await self.ask("blockdev-add", device | {"cache": {"no-flush": True}})

    async def copy_disk(self, job: str, *, device: str, target: str, as_it_is_now: bool = False) -> None:
        """`blockdev-mirror`: copy all of a disk in use to another, until told to stop; else `blockdev-backup`."""
        copy: Arguments = {"job-id": job, "device": device, "target": target, "sync": "full", "auto-dismiss": False}
        copy |= {"on-source-error": "report", "on-target-error": "report"}
        await self.ask("blockdev-backup" if as_it_is_now else "blockdev-mirror", copy)

    async def jobs_now(self) -> list[Job]:
        """`query-jobs`: all that there are."""
        return _read(await self.ask("query-jobs"), list[Job])

    async def job(self, name: str) -> Job | None:
        """`query-jobs`: the one of this id."""
        return next((job for job in await self.jobs_now() if job.id == name), None)

    async def block_job_cancel(self, job: str, *, force: bool, timeout_s: float = ANSWER_SECONDS) -> None:
        """`block-job-cancel`: end a job. Without force, a mirror that is ready ends as a whole copy."""
        await self.ask("block-job-cancel", {"device": job, "force": force}, timeout_s=timeout_s)

    async def job_dismiss(self, job: str) -> None:
        """`job-dismiss`: forget a job that has ended."""
        await self.ask("job-dismiss", {"id": job})

    async def nbd_server_start(self, listener: str, *, tls_creds: str, tls_authz: str, most_connections: int) -> None:
        """`nbd-server-start`: offer disks to the peers that `tls_authz` names. `listener`: a socket, by `getfd`."""
        server: Arguments = {
            "addr": {"type": "fd", "data": {"str": listener}},
            "tls-creds": tls_creds,
            "tls-authz": tls_authz,
            "max-connections": most_connections,
        }
        await self.ask("nbd-server-start", server)

    async def nbd_server_stop(self) -> None:
        """`nbd-server-stop`: offer nothing any more; an error where nothing is offered."""
        await self.ask("nbd-server-stop")

    async def block_export_add(self, export: str, *, node: str, writable: bool) -> None:
        """`block-export-add`, type `nbd`: offer a block device under its own name."""
        offer: Arguments = {"type": "nbd", "id": export, "node-name": node, "name": node, "writable": writable}
        await self.ask("block-export-add", offer)

    async def block_exports(self) -> list[str]:
        """`query-block-exports`: the ids of what is offered."""
        return [export.id for export in _read(await self.ask("query-block-exports"), list[Identified])]

    # -- network interfaces

    async def devices(self) -> set[str]:
        """`qom-list` of ``/machine/peripheral``: the ids of all devices that have one."""
        return {entry.name for entry in _read(await self.ask("qom-list", {"path": "/machine/peripheral"}), list[Named])}

    async def set_link(self, device: str, *, up: bool) -> None:
        """`set_link`: plug the cable in, or pull it out."""
        await self.ask("set_link", {"name": device, "up": up})

    async def netdev_add_tap(self, net: str, descriptor: str) -> None:
        """`netdev_add`, type `tap`. `descriptor`: an open tap, by `getfd`."""
        await self.ask("netdev_add", {"type": "tap", "id": net, "fd": descriptor})

    async def netdev_del(self, net: str) -> None:
        """`netdev_del`: its tap is closed with it. An error where there is none."""
        await self.ask("netdev_del", {"id": net})

    async def device_add(self, device: Arguments) -> None:
        """`device_add`: a device as on the command line."""
        await self.ask("device_add", device)

    async def device_del(self, device: str) -> None:
        """`device_del`: ask the guest to let go of a device; it is gone when `devices` says so. An error meanwhile."""
        await self.ask("device_del", {"id": device})

    # -- migration

    async def migrate_set_capabilities(self, on: Collection[str]) -> None:
        """`migrate-set-capabilities`: those named are on, and all others that anybody here ever uses are off."""
        if not _MIGRATION_CAPABILITIES.issuperset(on):
            raise ValueError(f"nobody would switch {set(on) - _MIGRATION_CAPABILITIES} off again")
        states: list[Json] = [{"capability": name, "state": name in on} for name in sorted(_MIGRATION_CAPABILITIES)]
        await self.ask("migrate-set-capabilities", {"capabilities": states})

    async def migrate_set_parameters(
        self,
        *,
        max_bandwidth: int | None = None,
        max_postcopy_bandwidth: int | None = None,
        downtime_limit_ms: int | None = None,
        tls_creds: str | None = None,
        tls_hostname: str | None = None,
        tls_authz: str | None = None,
    ) -> None:
        """`migrate-set-parameters`: those named. Bandwidths in bytes a second; an empty text unsets a name of TLS."""
        named: dict[str, int | str | None] = {
            "max-bandwidth": max_bandwidth,
            "max-postcopy-bandwidth": max_postcopy_bandwidth,
            "downtime-limit": downtime_limit_ms,
            "tls-creds": tls_creds,
            "tls-hostname": tls_hostname,
            "tls-authz": tls_authz,
        }
        await self.ask("migrate-set-parameters", {name: value for name, value in named.items() if value is not None})

    async def migrate(self, uri: str, *, resume: bool = False) -> None:
        """`migrate`: send the guest's memory to ``fd:NAME``. `resume`: after a lost connection, in post-copy."""
        await self.ask("migrate", {"uri": uri, **({"resume": True} if resume else {})})

    async def migrate_incoming(self, uri: str) -> None:
        """`migrate-incoming`: take a guest's memory from ``fd:NAME``, or listen at ``tcp:fd:NAME``."""
        await self.ask("migrate-incoming", {"uri": uri})

    async def migrate_recover(self, uri: str) -> None:
        """`migrate-recover`, out of band: listen anew for what is missing, in post-copy."""
        await self.ask_out_of_band("migrate-recover", {"uri": uri})

    async def migrate_continue(self) -> None:
        """`migrate-continue` past ``pre-switchover``, where the guest stands still and waits for this."""
        await self.ask("migrate-continue", {"state": "pre-switchover"})

    async def migrate_start_postcopy(self) -> None:
        """`migrate-start-postcopy`: the guest moves now, what is missing of its memory follows."""
        await self.ask("migrate-start-postcopy")

    async def migrate_cancel(self, *, timeout_s: float = ANSWER_SECONDS) -> None:
        """`migrate_cancel`: that it has ended is told by `migration_status`."""
        await self.ask("migrate_cancel", timeout_s=timeout_s)

    async def migration_status(self, *, timeout_s: float = ANSWER_SECONDS) -> Migration:
        """`query-migrate`: of the newest migration, out of this process or into it."""
        return _read(await self.ask("query-migrate", timeout_s=timeout_s), Migration)

    async def yank_migration(self) -> None:
        """`yank`, out of band: cut the connections of a migration, even one that blocks the main loop."""
        await self.ask_out_of_band("yank", {"instances": [{"type": "migration"}]})

    async def yank_node(self, node: str) -> None:
        """`yank`, out of band: cut the connection of a block device."""
        await self.ask_out_of_band("yank", {"instances": [{"type": "block-node", "node-name": node}]})

    # -- credentials

    async def object_add_tls(self, name: str, *, endpoint: str, folder: str, priority: str) -> None:
        """`object-add`, `tls-creds-x509`: a key and a certificate from a folder, and whom peers have to be vouched by.

        Without the check that the two are of one authority: they are of one for each side.
        `endpoint`: ``server`` or ``client``; `priority`: GnuTLS's words for versions and ciphers.
        """
        credentials: Arguments = {
            "qom-type": "tls-creds-x509",
            "id": name,
            "endpoint": endpoint,
            "dir": folder,
            "verify-peer": True,
            "sanity-check": False,
            "priority": priority,
        }
        await self.ask("object-add", credentials)

    async def object_add_peer(self, name: str, *, identity: str) -> None:
        """`object-add`, `authz-simple`: the one peer that may come in, by its certificate's distinguished name."""
        await self.ask("object-add", {"qom-type": "authz-simple", "id": name, "identity": identity})

    async def object_del(self, name: str) -> None:
        """`object-del`"""
        await self.ask("object-del", {"id": name})

    async def objects(self) -> set[str]:
        """`qom-list` of ``/objects``: the ids of what `object-add` made."""
        return {entry.name for entry in _read(await self.ask("qom-list", {"path": "/objects"}), list[Named])}


def _read(answer: Json, shape: type[T]) -> T:
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as problem:
        raise DriverError(f"QEMU_ANSWER: not what its documentation says: {problem}") from problem
