"""Hosts as os-hosts (up to 2.42) shows them, for clients that look there; os-services and os-hypervisors do more."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa

from cumulet.compute.hypervisors import Use, sizes
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.compute.services import services
from cumulet.compute.store import hosts, servers
from cumulet.db.engine import Row, Tx
from cumulet.errors import NotFound, NotYet
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Query, Unset

LIST = rule("os_compute_api:os-hosts:list", ADMIN)
SHOW = rule("os_compute_api:os-hosts:show", ADMIN)
UPDATE = rule("os_compute_api:os-hosts:update", ADMIN)
REBOOT = rule("os_compute_api:os-hosts:reboot", ADMIN)
SHUTDOWN = rule("os_compute_api:os-hosts:shutdown", ADMIN)
START = rule("os_compute_api:os-hosts:start", ADMIN)

LAST = "2.42"
Switch = Annotated[str, Json({"enum": ["enable", "disable", "Enable", "Disable", "ENABLE", "DISABLE"]})]


class HostsQuery(Query):
    zone: str | None = None


class UpdateHost(Body, min_properties=1):
    status: Switch | Unset = UNSET
    maintenance_mode: Switch | Unset = UNSET


@COMPUTE.operation("GET", "/os-hosts", rules=(Rule(LIST),), query=HostsQuery, until=LAST)
def list_hosts(call: Call[None, None]) -> dict[str, object]:
    """List the hosts of all enabled services, optionally of one zone."""
    zone = call.query.get("zone")
    return {
        "hosts": [
            {"host_name": view.host, "service": view.binary.removeprefix("nova-"), "zone": view.zone}
            for view in services(call.tx, call.now_us)
            if not view.disabled and (not zone or view.zone == zone)
        ]
    }


@COMPUTE.operation("GET", "/os-hosts/{host_name}", rules=(Rule(SHOW),), until=LAST)
def show_host(call: Call[None, None]) -> dict[str, object]:
    """Show what a host has, and what of it is used by whom."""
    row = _found(call)
    of_projects = _uses(call.tx, row.name)
    used = Use(
        vcpus=sum(use.vcpus for use in of_projects.values()),
        memory_mib=sum(use.memory_mib for use in of_projects.values()),
        disk_gib=sum(use.disk_gib for use in of_projects.values()),
    )
    room = sizes(row, used)
    total = Use(vcpus=room["vcpus"], memory_mib=room["memory_mb"], disk_gib=room["local_gb"])
    lines = {"(total)": total, "(used_now)": used, "(used_max)": used, **of_projects}
    return {"host": [{"resource": _resource(row.name, project, use)} for project, use in lines.items()]}


@COMPUTE.operation("PUT", "/os-hosts/{host_name}", rules=(Rule(UPDATE),), body=UpdateHost, until=LAST)
def update_host(call: Call[None, UpdateHost]) -> dict[str, object]:
    """Refused, as by Nova's libvirt driver: services, not hosts, are disabled."""
    _found(call)
    raise NotYet("Hosts cannot be enabled or disabled here; PUT /os-services does it.")


@COMPUTE.operation("GET", "/os-hosts/{host_name}/reboot", rules=(Rule(REBOOT),), until=LAST)
def reboot_host(call: Call[None, None]) -> dict[str, object]:
    """Refused, as by Nova's libvirt driver: nobody restarts a host through Compute."""
    return _refuse_power(call)


@COMPUTE.operation("GET", "/os-hosts/{host_name}/shutdown", rules=(Rule(SHUTDOWN),), until=LAST)
def shut_host_down(call: Call[None, None]) -> dict[str, object]:
    """Refused, as by Nova's libvirt driver: nobody switches a host off through Compute."""
    return _refuse_power(call)


@COMPUTE.operation("GET", "/os-hosts/{host_name}/startup", rules=(Rule(START),), until=LAST)
def start_host(call: Call[None, None]) -> dict[str, object]:
    """Refused, as by Nova's libvirt driver: nobody switches a host on through Compute."""
    return _refuse_power(call)


def _refuse_power(call: Call[None, None]) -> dict[str, object]:
    _found(call)
    raise NotYet("Hosts cannot be switched on or off through Compute.")


def _found(call: Call[None, object]) -> Row:
    name = call.path["host_name"]
    row = call.tx.first(sa.select(hosts).where(hosts.c.name == name))
    if row is None:
        raise NotFound(f"Compute host {name} could not be found.")
    return row


def _uses(tx: Tx, host: str) -> dict[str, Use]:
    """What each project's servers use of a host."""
    flavor = servers.c.flavor
    rows = tx.all(
        sa.select(
            servers.c.project_id,
            sa.func.sum(flavor["vcpus"].as_integer()),
            sa.func.sum(flavor["memory_mib"].as_integer()),
            sa.func.sum(flavor["disk_gib"].as_integer() + flavor["ephemeral_gib"].as_integer()),
        )
        .where(servers.c.host == host, servers.c.deleted_at_us.is_(None))
        .group_by(servers.c.project_id)
    )
    return {
        project: Use(vcpus=int(vcpus), memory_mib=int(memory), disk_gib=int(disk))
        for project, vcpus, memory, disk in map(tuple, rows)
    }


def _resource(host: str, project: str, use: Use) -> dict[str, object]:
    return {
        "host": host,
        "project": project,
        "cpu": use.vcpus,
        "memory_mb": use.memory_mib,
        "disk_gb": use.disk_gib,
    }
