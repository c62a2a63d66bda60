"""What a server's hypervisor says about it now, for administrators."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.compute import block_devices
from cumulet.compute import hosts as host_records
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.model import PowerState, Server
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.errors import Conflict
from cumulet.host.diagnostics import DiskCounters, GuestCounters
from cumulet.host.messages import HostError
from cumulet.host.traffic import AskTraffic, PortTraffic
from cumulet.network import for_compute as network
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

SHOW = rule("os_compute_api:os-server-diagnostics", ADMIN)

_OF_A_DISK = ("read_bytes", "read_requests", "write_bytes", "write_requests")
_OLD_OF_A_DISK = dict(zip(("read", "read_req", "write", "write_req"), _OF_A_DISK, strict=True))
_UNTOLD_OF_A_NIC: dict[str, int | None] = dict.fromkeys(
    f"{way}_{what}" for way in ("rx", "tx") for what in ("octets", "errors", "drop", "packets", "rate")
)
_STATES = {PowerState.NOSTATE: "pending"}


@COMPUTE.operation(
    "GET", "/servers/{server_id}/diagnostics", rules=(Rule(SHOW),), target=server_in_sight, query=ShowQuery
)
async def show_diagnostics(call: Call[Server, None]) -> Mapping[str, object]:
    """Ask the server's host: as it answers up to 2.47, in one shape for all drivers from 2.48 on."""
    server = call.target
    if server.host is None:
        raise Conflict(f"Instance {server.id} is not ready", reason="NOT_READY")
    if server.power_state is not PowerState.RUNNING:
        raise Conflict(
            f"Cannot 'get_diagnostics' instance {server.id} while it is in power state {server.power_state.value}",
            reason="WRONG_STATE",
        )
    ports = await call.cloud.db.read_async(lambda tx: network.ports_of(tx, [server.id]).get(server.id, []))
    host, hosts = server.host, call.cloud.hosts
    try:
        found = await hosts.diagnostics(host, server.id)
        traffic = await hosts.send(host, AskTraffic(ports=tuple(port.id for port in ports)))
    except HostError as error:
        raise Conflict(f"Instance {server.id} is not ready", private=str(error), reason="HOST_UNREACHABLE") from None
    if not call.version.at_least("2.48"):
        return _as_libvirt_names(found, traffic.ports, server)
    disks = 1 + len(block_devices.of(server)) + server.config_drive
    kind = await call.cloud.db.read_async(lambda tx: host_records.kind_of(tx, host))
    launched = server.launched_at_us
    times: tuple[int | None, ...] = found.cpu_times_ns or (None,) * server.flavor.vcpus
    told_disks: tuple[DiskCounters | None, ...] = found.disks or (None,) * disks
    return {
        "state": _STATES.get(server.power_state, server.power_state.value),
        "driver": kind.driver,
        "hypervisor": kind.hypervisor_type.lower(),
        "hypervisor_os": None,
        "uptime": None if launched is None else max(0, call.cloud.clock.now_us() - launched) // 1_000_000,
        "config_drive": server.config_drive,
        "num_cpus": len(times),
        "num_nics": len(ports),
        "num_disks": len(told_disks),
        "cpu_details": [{"id": n, "time": time, "utilisation": None} for n, time in enumerate(times)],
        "nic_details": [{**_nic(traffic.ports.get(port.id)), "mac_address": port.mac} for port in ports],
        "disk_details": [_disk(disk) for disk in told_disks],
        "memory_details": {
            "maximum": server.flavor.memory_mib,
            "used": _used_mib(found, server),
        },
    }


def _used_mib(found: GuestCounters, server: Server) -> int | None:
    """Of its memory: the rest is the hypervisor's own. `memory-rss` of old is all of it, as with libvirt."""
    if found.resident_kib is None:
        return None
    return min(found.resident_kib // 1024, server.flavor.memory_mib)


def _disk(disk: DiskCounters | None) -> dict[str, int | None]:
    told: dict[str, int | None] = {key: getattr(disk, key, None) for key in _OF_A_DISK}
    return {**told, "errors_count": None if disk is None else disk.errors}


def _nic(traffic: PortTraffic | None) -> dict[str, int | None]:
    """What a host has counted of a port, in Nova's names."""
    if traffic is None:
        return _UNTOLD_OF_A_NIC
    return _UNTOLD_OF_A_NIC | {
        "rx_octets": traffic.rx_bytes,
        "rx_packets": traffic.rx_packets,
        "rx_drop": traffic.rx_drops,
        "tx_octets": traffic.tx_bytes,
        "tx_packets": traffic.tx_packets,
    }


def _as_libvirt_names(found: GuestCounters, ports: Mapping[str, PortTraffic], server: Server) -> dict[str, int]:
    """Up to 2.47: flat, memory in KiB. Disks by the names that a guest gives them, ports by their taps'."""
    told = {f"cpu{number}_time": time for number, time in enumerate(found.cpu_times_ns)}
    for number, disk in enumerate(found.disks):
        name = f"vd{chr(ord('a') + number)}"
        told |= {f"{name}_{old}": getattr(disk, new) for old, new in _OLD_OF_A_DISK.items()}
        told[f"{name}_errors"] = disk.errors
    for port_id, port in ports.items():
        name = f"tap{port_id[:11]}"
        told |= {f"{name}_rx": port.rx_bytes, f"{name}_rx_packets": port.rx_packets, f"{name}_rx_drop": port.rx_drops}
        told |= {f"{name}_tx": port.tx_bytes, f"{name}_tx_packets": port.tx_packets}
    told["memory"] = server.flavor.memory_mib * 1024
    if found.resident_kib is not None:
        told["memory-rss"] = found.resident_kib
    return told
