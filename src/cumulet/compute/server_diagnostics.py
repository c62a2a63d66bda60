"""What a server's hypervisor says about it now, for administrators."""

from __future__ import annotations

from typing import Any

from cumulet.compute.flavors import ShowQuery
from cumulet.compute.model import PowerState, Server
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.errors import Conflict
from cumulet.host.messages import HostUnreachable
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

SHOW = rule("os_compute_api:os-server-diagnostics", ADMIN)

_STATES = {PowerState.NOSTATE: "pending"}


@COMPUTE.operation(
    "GET", "/servers/{server_id}/diagnostics", rules=(Rule(SHOW),), target=server_in_sight, query=ShowQuery
)
async def show_diagnostics(call: Call[Server, None]) -> dict[str, Any]:
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
    try:
        found: dict[str, Any] = await call.cloud.hosts.diagnostics(server.host, server.id)
    except HostUnreachable as error:
        raise Conflict(f"Instance {server.id} is not ready", private=str(error), reason="HOST_UNREACHABLE") from None
    if not call.version.at_least("2.48"):
        return found
    return {
        "state": _STATES.get(server.power_state, server.power_state.value),
        "driver": call.cloud.settings.driver,
        "hypervisor": "qemu" if call.cloud.settings.driver == "qemu" else None,
        "hypervisor_os": None,
        "uptime": found.get("uptime_s"),
        "config_drive": server.config_drive,
        "num_cpus": server.flavor.vcpus,
        "num_nics": None,
        "num_disks": None,
        "cpu_details": [{"id": n, "time": None, "utilisation": None} for n in range(server.flavor.vcpus)],
        "nic_details": [],
        "disk_details": [],
        "memory_details": {"maximum": server.flavor.memory_mib, "used": found.get("memory_used_mib")},
    }
