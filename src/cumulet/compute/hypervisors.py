"""Hypervisors: what hosts offer and what of it is used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.links import next_links, page
from cumulet.compute.model import VmState
from cumulet.compute.rules import ADMIN
from cumulet.compute.server_views import instance_name
from cumulet.compute.service import COMPUTE
from cumulet.compute.services import service_number
from cumulet.compute.store import hosts, servers
from cumulet.db.engine import Row, Select, Tx
from cumulet.db.part_of_text import has_part
from cumulet.errors import BadRequest, NotFound
from cumulet.web.formats import is_uuid
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import LooseBool, NonNegativeInteger, Query, Since, Single

LIST = rule("os_compute_api:os-hypervisors:list", ADMIN)
DETAIL = rule("os_compute_api:os-hypervisors:list-detail", ADMIN)
SHOW = rule("os_compute_api:os-hypervisors:show", ADMIN)
STATISTICS = rule("os_compute_api:os-hypervisors:statistics", ADMIN)
UPTIME = rule("os_compute_api:os-hypervisors:uptime", ADMIN)
SEARCH = rule("os_compute_api:os-hypervisors:search", ADMIN)
SERVERS = rule("os_compute_api:os-hypervisors:servers", ADMIN)


class HypervisorsQuery(Query, closed_since="2.53"):
    limit: Annotated[NonNegativeInteger | None, Since("2.33")] = None
    marker: Annotated[str | None, Since("2.33")] = None
    hypervisor_hostname_pattern: Annotated[t.HostName | None, Single(), Since("2.53")] = None
    with_servers: Annotated[LooseBool, Single(), Since("2.53")] = False


class HypervisorQuery(Query, closed_since="2.53"):
    with_servers: Annotated[LooseBool, Single(), Since("2.53")] = False


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What the servers of a host use of it."""

    servers: int = 0
    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0


@COMPUTE.operation("GET", "/os-hypervisors", rules=(Rule(LIST),), query=HypervisorsQuery)
def list_hypervisors(call: Call[None, None]) -> dict[str, object]:
    """List hypervisors; from 2.53 on by name, and with their servers."""
    return _listed(call, "os-hypervisors", detailed=False)


@COMPUTE.operation("GET", "/os-hypervisors/detail", rules=(Rule(DETAIL),), query=HypervisorsQuery)
def list_hypervisors_in_detail(call: Call[None, None]) -> dict[str, object]:
    """List hypervisors with what they offer."""
    return _listed(call, "os-hypervisors/detail", detailed=True)


@COMPUTE.operation("GET", "/os-hypervisors/statistics", rules=(Rule(STATISTICS),), until="2.87")
def show_statistics(call: Call[None, None]) -> dict[str, object]:
    """Sum up all enabled hypervisors."""
    rows = [row for row in call.tx.all(sa.select(hosts)) if not row.disabled]
    used = _uses(call.tx)
    total = dict.fromkeys(_SUMMED, 0)
    for row in rows:
        of_host = sizes(row, used.get(row.name, Use()))
        for name in _SUMMED:
            total[name] += of_host[name]
    return {"hypervisor_statistics": {"count": len(rows), **total}}


@COMPUTE.operation("GET", "/os-hypervisors/{hypervisor_id}", rules=(Rule(SHOW),), query=HypervisorQuery)
def show_hypervisor(call: Call[None, None]) -> dict[str, object]:
    """Show a hypervisor."""
    row = _found(call)
    view = _view(call, row, detailed=True, use=_uses(call.tx).get(row.name, Use()))
    if call.asked(HypervisorQuery).with_servers:
        _add_servers(call, view, _servers(call.tx).get(row.name))
    return {"hypervisor": view}


@COMPUTE.operation("GET", "/os-hypervisors/{hypervisor_id}/uptime", rules=(Rule(UPTIME),), until="2.87")
def show_uptime(call: Call[None, None]) -> dict[str, object]:
    """How long a host has been up."""
    row = _found(call)
    uptime = _uptime(row, call.now_us)
    if uptime is None:
        raise BadRequest(f"Compute service of {row.name} is unavailable at this time.")
    return {"hypervisor": {**_view(call, row), "uptime": uptime}}


@COMPUTE.operation("GET", "/os-hypervisors/{pattern}/search", rules=(Rule(SEARCH),), until="2.52")
def search_hypervisors(call: Call[None, None]) -> dict[str, object]:
    """Find hypervisors by a part of their name."""
    return {"hypervisors": [_view(call, row) for row in _matching(call.tx, call.path["pattern"])]}


@COMPUTE.operation("GET", "/os-hypervisors/{pattern}/servers", rules=(Rule(SERVERS),), until="2.52")
def list_hypervisor_servers(call: Call[None, None]) -> dict[str, object]:
    """Find hypervisors by a part of their name, with their servers."""
    by_host = _servers(call.tx)
    views = []
    for row in _matching(call.tx, call.path["pattern"]):
        view = _view(call, row)
        _add_servers(call, view, by_host.get(row.name))
        views.append(view)
    return {"hypervisors": views}


def _listed(call: Call[None, None], path: str, *, detailed: bool) -> dict[str, object]:
    asked = page(call, since="2.33")
    query = call.asked(HypervisorsQuery)
    pattern = query.hypervisor_hostname_pattern
    if pattern is not None:
        if "limit" in call.query or asked.marker:
            raise BadRequest(
                "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported."
            )
        rows = _matching(call.tx, pattern)
    else:
        rows = _page(call)
    used = _uses(call.tx) if detailed else {}
    by_host = _servers(call.tx) if query.with_servers else {}
    views = []
    for row in rows:
        view = _view(call, row, detailed=detailed, use=used.get(row.name, Use()))
        if query.with_servers:
            _add_servers(call, view, by_host.get(row.name))
        views.append(view)
    answer: dict[str, object] = {"hypervisors": views}
    if (
        call.version.at_least("2.33")
        and pattern is None
        and (following := next_links(call, path, asked, len(views), views[-1]["id"] if views else ""))
    ):
        answer["hypervisors_links"] = following
    return answer


def _page(call: Call[None, None]) -> list[Row]:
    query = sa.select(hosts).order_by(hosts.c.name)
    if not call.version.at_least("2.33"):
        return call.tx.all(query)
    asked = page(call)
    if asked.marker is not None:
        marker = _marker(call, asked.marker)
        if marker is None:
            raise BadRequest(f"marker [{asked.marker}] not found")
        query = query.where(hosts.c.name > marker.name)
    return call.tx.all(query.limit(asked.limit))


def _marker(call: Call[None, None], text: str) -> Row | None:
    """By uuid at any microversion, as Nova has it, or by the id this one shows."""
    if is_uuid(text):
        return call.tx.first(sa.select(hosts).where(hosts.c.hypervisor_uuid == text.lower()))
    return call.tx.first(_by_id(call, text)) if _is_id(call, text) else None


def _is_id(call: Call[None, None], text: str) -> bool:
    if call.version.at_least("2.53"):
        return is_uuid(text)
    return text.isascii() and text.isdigit() and len(text) < 19


def _by_id(call: Call[None, None], text: str) -> Select:
    if call.version.at_least("2.53"):
        return sa.select(hosts).where(hosts.c.hypervisor_uuid == text.lower())
    return sa.select(hosts).where(hosts.c.id == int(text))


def _found(call: Call[None, None]) -> Row:
    text = call.path["hypervisor_id"]
    if not _is_id(call, text) and call.version.at_least("2.53"):
        raise BadRequest(f"Invalid uuid {text}")
    row = call.tx.first(_by_id(call, text)) if _is_id(call, text) else None
    if row is None:
        raise NotFound(f"Hypervisor with ID '{text}' could not be found.")
    return row


def _matching(tx: Tx, pattern: str) -> list[Row]:
    rows = tx.all(sa.select(hosts).where(has_part(hosts.c.name, pattern)).order_by(hosts.c.name))
    if not rows:
        raise NotFound(f"No hypervisor matching '{pattern}' could be found.")
    return rows


def _uses(tx: Tx) -> dict[str, Use]:
    flavor = servers.c.flavor
    rows = tx.all(
        sa.select(
            servers.c.host,
            sa.func.count(),
            sa.func.sum(flavor["vcpus"].as_integer()),
            sa.func.sum(flavor["memory_mib"].as_integer()),
            sa.func.sum(flavor["disk_gib"].as_integer() + flavor["ephemeral_gib"].as_integer()),
        )
        .where(servers.c.host.is_not(None), servers.c.deleted_at_us.is_(None))
        .group_by(servers.c.host)
    )
    return {
        host: Use(servers=count, vcpus=int(vcpus), memory_mib=int(memory), disk_gib=int(disk))
        for host, count, vcpus, memory, disk in map(tuple, rows)
    }


def _servers(tx: Tx) -> dict[str, list[dict[str, str]]]:
    rows = tx.all(
        sa.select(servers.c.host, servers.c.number, servers.c.id)
        .where(
            servers.c.host.is_not(None),
            servers.c.deleted_at_us.is_(None),
            servers.c.vm_state != VmState.DELETED.value,
        )
        .order_by(servers.c.number)
    )
    by_host: dict[str, list[dict[str, str]]] = {}
    for host, number, server_id in map(tuple, rows):
        by_host.setdefault(host, []).append({"name": instance_name(number), "uuid": server_id})
    return by_host


def _add_servers(call: Call[None, None], view: dict[str, object], found: list[dict[str, str]] | None) -> None:
    if found:
        view["servers"] = found
    elif call.version.at_least("2.75"):
        view["servers"] = []


def _uptime(row: Row, now_us: int) -> str | None:
    """As uptime(1) begins its line; None of a host that does not answer."""
    facts = row.facts or {}
    if not row.up or row.forced_down or "booted_at_us" not in facts:
        return None
    days, seconds = divmod((now_us - facts["booted_at_us"]) // 1_000_000, 86_400)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{datetime.fromtimestamp(now_us // 1_000_000, UTC):%H:%M:%S} up {days} days, {hours}:{minutes:02}"


_SUMMED = (
    "current_workload",
    "disk_available_least",
    "free_disk_gb",
    "free_ram_mb",
    "local_gb",
    "local_gb_used",
    "memory_mb",
    "memory_mb_used",
    "running_vms",
    "vcpus",
    "vcpus_used",
)


def sizes(row: Row, use: Use) -> dict[str, int]:
    """What a host offers and what of it is used, in Nova's names: memory in MiB, disk in GiB."""
    facts = row.facts or {}
    memory, disk = facts.get("memory_mib", 0), facts.get("disk_gib", 0)
    return {
        "vcpus": facts.get("vcpus", 0),
        "memory_mb": memory,
        "local_gb": disk,
        "vcpus_used": use.vcpus,
        "memory_mb_used": use.memory_mib,
        "local_gb_used": use.disk_gib,
        "free_ram_mb": memory - use.memory_mib,
        "free_disk_gb": disk - use.disk_gib,
        "current_workload": 0,
        "running_vms": use.servers,
        "disk_available_least": disk - use.disk_gib,
    }


def _view(call: Call[None, None], row: Row, *, detailed: bool = False, use: Use | None = None) -> dict[str, object]:
    by_uuid = call.version.at_least("2.53")
    view: dict[str, object] = {
        "id": row.hypervisor_uuid if by_uuid else row.id,
        "hypervisor_hostname": row.name,
        "state": "up" if row.up and not row.forced_down else "down",
        "status": "disabled" if row.disabled else "enabled",
    }
    if not detailed:
        return view
    facts = row.facts or {}
    view["hypervisor_type"] = facts.get("hypervisor_type", "")
    view["hypervisor_version"] = facts.get("hypervisor_version", 0)
    view["host_ip"] = facts.get("address")
    view["service"] = {
        "id": row.service_uuid if by_uuid else service_number(row.id),
        "host": row.name,
        "disabled_reason": row.disabled_reason,
    }
    if call.version.at_least("2.88"):
        view["uptime"] = _uptime(row, call.now_us)
        return view
    view |= sizes(row, use or Use())
    cpu: dict[str, object] = {
        "arch": "x86_64",
        "model": next(iter(facts.get("cpu_models", ())), ""),
        "vendor": "",
        "features": [],
        "topology": {"sockets": 1, "cores": facts.get("vcpus", 0), "threads": 1},
    }
    view["cpu_info"] = cpu if call.version.at_least("2.28") else msgspec.json.encode(cpu).decode()
    return view
