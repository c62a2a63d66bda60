"""`cumulet status`: hosts, servers, operations under way or stuck, what reconcilers found; read from the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cumulet.cli.entry import cloud_option, clouds_file_option, entry_of, logged_in
from cumulet.cli.screen import screen, table

if TYPE_CHECKING:
    from rich.table import Table

    from cumulet.cli.client import Persona

MIB_PER_GIB = 1024
FINDINGS_SHOWN = 20
ENDING_DAYS = 28
"""The end of the authority is told a year before, and is an error later, as the end of others is."""
SILENT_SECONDS = 20.0
"""A process of a control plane notes every 5 s that it lives."""


@click.command(short_help="Hosts, servers, running operations, and stuck ones with their cause.")
@clouds_file_option
@cloud_option(words="Which entry of it; it has to be an administrator.")
def status(clouds_file: Path | None, cloud: str) -> int:
    """Show a running cloud at a glance: hosts, servers, what is going on, what is stuck and why, what was mended.

    The exit status is 1 if a process of the control plane has fallen silent, is cut off from the bus or cannot let
    hosts join, a host is down, an operation is stuck, or a certificate ends within 28 days.
    """
    with logged_in(entry_of(clouds_file, cloud)) as admin:
        control_plane = admin.get("/compute/v2.1/cumulet/control-plane")
        processes, silent = _processes(control_plane)
        certificates, ending = _certificates(control_plane["certificates"])
        troubles = [
            f"hosts on other machines cannot be reached, or cannot join: {one['problem']}"
            for one in control_plane["processes"]
            if one["problem"] is not None
        ]
        hosts, down = _hosts(admin, {one["name"]: one for one in control_plane["hosts"]})
        servers = _servers(admin)
        operations, stuck = _operations(admin)
        dropped = _dropped(admin)
        findings = _findings(admin)
        history = _history(admin)
    console = screen()
    for words in troubles:
        console.print(words, style="bold", markup=False)
    for rows in (processes, certificates, hosts, servers, operations, dropped, findings, history):
        console.print(rows)
    return 1 if silent or ending or down or stuck else 0


def _table(title: str, *columns: str) -> Table:
    found = table(title)
    for column in columns:
        found.add_column(column, no_wrap=column in ("id", "server"))
    return found


def _processes(found: dict[str, Any]) -> tuple[Table, int]:
    """The processes of the control plane, and how many of them are silent or cut off."""
    held = {one["process"]: one["name"] for one in found["leases"]}
    database = found["database"]
    rows = _table(
        f"Control plane (on {database['kind']}, schema {database['schema']})",
        *("process", "role", "version", "machine", "heard", "database", "bus", "leads"),
    )
    amiss = 0
    for one in found["processes"]:
        silent = one["heard_seconds_ago"] > SILENT_SECONDS
        amiss += silent or one["bus"] in ("cut off", "no door")
        heard = f"{one['heard_seconds_ago']:.0f} s ago" + (" (silent)" if silent else "")
        leads = "hosts and records" if held.get(one["name"]) == "reconcilers" else ""
        cells = (one["name"], one["role"], one["version"], one["machine"], heard, f"{one['database_ms']} ms")
        _row(rows, *cells, one["bus"], leads)
    return rows, amiss


def _certificates(found: Sequence[Mapping[str, Any]]) -> tuple[Table, int]:
    """The certificates that the API knows of, and how many end within days though they should have been renewed."""
    rows = _table("Certificates", "of", "ends", "days left", "")
    for one in found:
        _row(rows, one["name"], one["ends_at"], one["days_left"], "ends soon" if one["ends_soon"] else "")
    return rows, sum(one["ends_soon"] and one["days_left"] <= ENDING_DAYS for one in found)


def _hosts(admin: Persona, said: dict[str, Any]) -> tuple[Table, int]:
    """The hosts, and how many of them are down."""
    services = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
    hypervisors = {
        one["hypervisor_hostname"]: one
        for one in admin.get("/compute/v2.1/os-hypervisors/detail?with_servers=true")["hypervisors"]
    }
    providers = {one["name"]: one["uuid"] for one in admin.get("/placement/resource_providers")["resource_providers"]}
    rows = _table("Hosts", "host", "state", "takes servers", "servers", "memory used", "runs", "agent", "lease")
    for service in sorted(services, key=lambda one: str(one["host"])):
        name = service["host"]
        hypervisor = hypervisors.get(name, {})
        taking = "yes" if service["status"] == "enabled" else f"no: {service['disabled_reason'] or 'disabled'}"
        state = str(service["state"]) + (" (forced)" if service.get("forced_down") else "")
        memory = _memory(admin, providers[name]) if name in providers else ""
        count = len(hypervisor.get("servers") or [])
        runs = hypervisor.get("hypervisor_type", "")
        _row(rows, name, state, taking, count, memory, runs, *_agent(said.get(name, {})))
    return rows, sum(service["state"] != "up" for service in services)


def _agent(said: Mapping[str, object]) -> tuple[str, str]:
    """The agent's version, and the lease after which its guests end when it is silent."""
    agent = f"{said['version']}, protocol {said['protocol']}" if said.get("version") else ""
    seconds = said.get("lease_seconds")
    held = "" if said.get("lease_held") else ", not held"
    return agent, "none" if seconds is None else f"{seconds:g} s{held}"


def _row(rows: Table, *cells: object) -> None:
    """Add a row of plain text: users choose names, and a name must not act as markup."""
    from rich.text import Text

    rows.add_row(*(Text(str(cell)) for cell in cells))


def _memory(admin: Persona, provider: str) -> str:
    used = admin.get(f"/placement/resource_providers/{provider}/usages")["usages"].get("MEMORY_MB", 0)
    inventory = admin.get(f"/placement/resource_providers/{provider}/inventories")["inventories"].get("MEMORY_MB")
    total = inventory["total"] if inventory else 0
    return f"{used / MIB_PER_GIB:.1f} of {total / MIB_PER_GIB:.1f} GiB"


def _servers(admin: Persona) -> Table:
    found = list(admin.every("/compute/v2.1/servers/detail?all_tenants=true", "servers"))
    rows = _table(f"Servers ({len(found)})", "id", "name", "status", "task", "host", "project")
    for server in sorted(found, key=lambda one: (str(one["name"]), str(one["id"]))):
        _row(
            rows,
            server["id"],
            server["name"],
            server["status"],
            server["OS-EXT-STS:task_state"] or "",
            server["OS-EXT-SRV-ATTR:host"] or "",
            server["tenant_id"],
        )
    return rows


def _operations(admin: Persona) -> tuple[Table, int]:
    """Operations that have not ended, and how many of them are stuck."""
    found = admin.get("/compute/v2.1/cumulet/operations")["operations"]
    rows = _table(f"Operations under way ({len(found)})", "operation", "server", "since", "at", "stuck because")
    for operation in found:
        _row(
            rows,
            operation["saga"],
            operation["server_id"],
            operation["started_at"],
            f"{operation['status']}, step {operation['position'] + 1}",
            operation["cause"] or "",
        )
    return rows, sum(operation["stuck"] for operation in found)


def _dropped(admin: Persona) -> Table:
    """Packets that the rules of hosts dropped."""
    found = admin.get("/compute/v2.1/cumulet/dropped-packets")["hosts"]
    rows = _table("Packets dropped by rules", "host", "cause", "packets")
    for one in found:
        if one["dropped"] is None:
            _row(rows, one["host"], "it does not answer", "")
            continue
        for cause, number in sorted(one["dropped"].items()):
            if number:
                _row(rows, one["host"], cause, number)
    return rows


def _history(admin: Persona) -> Table:
    """How many records of ended operations and deleted things are kept."""
    found = admin.get("/compute/v2.1/cumulet/history")
    limits = found["limits"]
    most = f"the newest {limits['rows']}, {limits['rows_per_server']} actions of a server, {limits['days']} days"
    rows = _table(f"History (kept: {most})", "of", "rows", "oldest")
    for one in found["history"]:
        _row(rows, one["kind"], one["rows"], one["oldest_at"] or "")
    return rows


def _findings(admin: Persona) -> Table:
    """What reconcilers found wrong, and what they did about it, the newest first."""
    found = admin.get("/compute/v2.1/cumulet/findings")["findings"]
    rows = _table(f"Found and mended ({len(found)})", "last seen", "times", "found", "server", "host", "done")
    for one in found[:FINDINGS_SHOWN]:
        _row(
            rows,
            one["last_at"],
            one["times"],
            f"{one['reconciler']}: {one['finding']}",
            one["server_id"] or "",
            one["host"] or "",
            one["done"],
        )
    return rows
