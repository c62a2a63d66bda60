"""What a server's hypervisor says about it now, for administrators."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.compute import hosts as host_records
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.model import PowerState, Server
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.errors import Conflict
from cumulet.host.messages import HostUnreachable
from cumulet.host.traffic import AskTraffic, PortTraffic
from cumulet.network import for_compute as network
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

SHOW = rule("os_compute_api:os-server-diagnostics", ADMIN)

_UNTOLD_OF_A_DISK = dict.fromkeys(("read_bytes", "read_requests", "write_bytes", "write_requests", "errors_count"))
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
            f"Instance {server.id} in power state {server.power_state.value}. Cannot get_instance_diagnostics while "
            "the instance is in this state.",
            reason="WRONG_STATE",
        )
    ports = await call.cloud.db.read_async(lambda tx: network.ports_of(tx, [server.id]).get(server.id, []))
    host, hosts = server.host, call.cloud.hosts
    try:
        found = await hosts.diagnostics(host, server.id)
        if not call.version.at_least("2.48"):
            return found
        traffic = await hosts.send(host, AskTraffic(ports=tuple(port.id for port in ports)))
    except HostUnreachable as error:
        raise Conflict(f"Instance {server.id} is not ready", private=str(error), reason="HOST_UNREACHABLE") from None
    disks = 1 + server.config_drive
    kind = await call.cloud.db.read_async(lambda tx: host_records.kind_of(tx, host))
    return {
        "state": _STATES.get(server.power_state, server.power_state.value),
        "driver": kind.driver,
        "hypervisor": kind.hypervisor_type.lower(),
        "hypervisor_os": None,
        "uptime": found.get("uptime_s"),
        "config_drive": server.config_drive,
        "num_cpus": server.flavor.vcpus,
        "num_nics": len(ports),
        "num_disks": disks,
        "cpu_details": [{"id": n, "time": None, "utilisation": None} for n in range(server.flavor.vcpus)],
        "nic_details": [{**_nic(traffic.ports.get(port.id)), "mac_address": port.mac} for port in ports],
        "disk_details": [dict(_UNTOLD_OF_A_DISK) for _ in range(disks)],
        "memory_details": {"maximum": server.flavor.memory_mib, "used": found.get("memory_used_mib")},
    }


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
