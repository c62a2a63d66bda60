"""What projects have used: hours of servers, cores, memory and disk in a span of time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, NotRequired, TypedDict

import msgspec
import sqlalchemy as sa

from cumulet.clock import iso_us
from cumulet.compute.links import next_links, page
from cumulet.compute.rules import ADMIN, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import servers
from cumulet.db.engine import Row, Tx
from cumulet.errors import BadRequest
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import NonNegativeInteger, Query, Since

LIST = rule("os_compute_api:os-simple-tenant-usage:list", ADMIN)
SHOW = rule("os_compute_api:os-simple-tenant-usage:show", READER)

HOUR_US = 3_600_000_000
_FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f")


class UsageQuery(Query, closed_since="2.75"):
    start: str | None = None
    end: str | None = None
    limit: Annotated[NonNegativeInteger | None, Since("2.40")] = None
    marker: Annotated[str | None, Since("2.40")] = None


class UsagesQuery(UsageQuery, closed_since="2.75"):
    detailed: str | None = None


class Span(msgspec.Struct, frozen=True, kw_only=True):
    start_us: int
    stop_us: int


class ServerUsage(TypedDict):
    """What one server has used within the span."""

    instance_id: str
    name: str
    tenant_id: str
    flavor: str
    hours: float
    memory_mb: int
    vcpus: int
    local_gb: int
    started_at: str | None
    ended_at: str | None
    state: str
    uptime: int


class Usage(TypedDict):
    """What a project's servers have used within the span; each of them, where it is asked for."""

    tenant_id: str
    total_hours: float
    total_vcpus_usage: float
    total_memory_mb_usage: float
    total_local_gb_usage: float
    start: str | None
    stop: str | None
    server_usages: NotRequired[list[ServerUsage]]


@COMPUTE.operation("GET", "/os-simple-tenant-usage", rules=(Rule(LIST),), query=UsagesQuery)
def list_usage(call: Call[None, None]) -> dict[str, object]:
    """What every project has used."""
    given = call.query.getall("detailed")
    rows, usages = _usages(call, None, detailed=bool(given) and given[0] == "1")
    return _answer(call, "os-simple-tenant-usage", {"tenant_usages": usages}, rows)


def _facts(call: Call[None, None]) -> Mapping[str, object]:
    return {"project_id": call.path["project_id"]}


@COMPUTE.operation("GET", "/os-simple-tenant-usage/{project_id}", rules=(Rule(SHOW),), facts=_facts, query=UsageQuery)
def show_usage(call: Call[None, None]) -> dict[str, object]:
    """What a project has used, server by server."""
    project_id = call.path["project_id"]
    rows, usages = _usages(call, project_id, detailed=True)
    shown: Usage | dict[str, object] = usages[0] if usages else {}
    return _answer(call, f"os-simple-tenant-usage/{project_id}", {"tenant_usage": shown}, rows)


def _answer(call: Call[None, None], path: str, answer: dict[str, object], rows: list[Row]) -> dict[str, object]:
    if call.version.at_least("2.40") and (
        following := next_links(call, path, page(call), len(rows), rows[-1].id if rows else "")
    ):
        answer[f"{next(iter(answer))}_links"] = following
    return answer


def _usages(call: Call[None, None], project_id: str | None, *, detailed: bool) -> tuple[list[Row], list[Usage]]:
    span = _span(call)
    rows = _rows(call, project_id, span)
    by_project: dict[str, Usage] = {}
    for row in rows:
        summary = by_project.get(row.project_id)
        if summary is None:
            summary = by_project[row.project_id] = _summary(row.project_id, span, detailed=detailed)
        usage = _of_server(row, span, call.now_us)
        hours = usage["hours"]
        summary["total_hours"] += hours
        summary["total_vcpus_usage"] += hours * usage["vcpus"]
        summary["total_memory_mb_usage"] += hours * usage["memory_mb"]
        summary["total_local_gb_usage"] += hours * usage["local_gb"]
        if detailed:
            summary["server_usages"].append(usage)
    return rows, list(by_project.values())


def _rows(call: Call[None, None], project_id: str | None, span: Span) -> list[Row]:
    asked = page(call, since="2.40")
    conditions = [
        servers.c.launched_at_us < span.stop_us,
        sa.or_(servers.c.terminated_at_us.is_(None), servers.c.terminated_at_us > span.start_us),
    ]
    if project_id is not None:
        conditions.append(servers.c.project_id == project_id)
    if asked.marker is not None:
        conditions.append(_after(call.tx, asked.marker, project_id))
    return call.tx.all(
        sa.select(
            servers.c.id,
            servers.c.name,
            servers.c.project_id,
            servers.c.flavor,
            servers.c.vm_state,
            servers.c.launched_at_us,
            servers.c.terminated_at_us,
        )
        .where(*conditions)
        .order_by(servers.c.project_id, servers.c.id)
        .limit(asked.limit)
    )


def _after(tx: Tx, marker: str, project_id: str | None) -> sa.ColumnElement[bool]:
    """`project_id`: whose servers are listed. A marker of another project is one that does not exist."""
    at = tx.first(sa.select(servers.c.project_id, servers.c.id).where(servers.c.id == marker))
    if at is None or project_id not in (None, at.project_id):
        raise BadRequest(f"Marker {marker} could not be found.")
    return sa.or_(
        servers.c.project_id > at.project_id, sa.and_(servers.c.project_id == at.project_id, servers.c.id > at.id)
    )


def _summary(project_id: str, span: Span, *, detailed: bool) -> Usage:
    summary: Usage = {
        "tenant_id": project_id,
        "total_hours": 0.0,
        "total_vcpus_usage": 0.0,
        "total_memory_mb_usage": 0.0,
        "total_local_gb_usage": 0.0,
        "start": iso_us(span.start_us),
        "stop": iso_us(span.stop_us),
    }
    if detailed:
        summary["server_usages"] = []
    return summary


def _of_server(row: Row, span: Span, now_us: int) -> ServerUsage:
    flavor, ended = row.flavor, row.terminated_at_us
    used_us = min(span.stop_us, ended or span.stop_us) - max(row.launched_at_us, span.start_us)
    return {
        "instance_id": row.id,
        "name": row.name,
        "tenant_id": row.project_id,
        "flavor": flavor["name"],
        "hours": max(0, used_us) / HOUR_US,
        "memory_mb": flavor["memory_mib"],
        "vcpus": flavor["vcpus"],
        "local_gb": flavor["disk_gib"] + flavor["ephemeral_gib"],
        "started_at": iso_us(row.launched_at_us),
        "ended_at": iso_us(ended),
        "state": "terminated" if ended else row.vm_state,
        "uptime": ((ended or now_us) - row.launched_at_us) // 1_000_000,
    }


def _span(call: Call[None, None]) -> Span:
    starts, ends = call.query.getall("start"), call.query.getall("end")
    start = _moment(starts[0]) if starts and starts[0] else call.now_us
    stop = _moment(ends[0]) if ends and ends[0] else call.now_us + 1
    if start >= stop:
        raise BadRequest("Invalid start time. The start time cannot occur after the end time.")
    return Span(start_us=start, stop_us=max(min(stop, call.now_us), min(start, call.now_us)))


def _moment(text: str) -> int:
    for form in _FORMATS:
        try:
            return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp() * 1_000_000)
        except ValueError:
            continue
    raise BadRequest("Invalid time string: Datetime is in invalid format")
