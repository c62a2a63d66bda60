"""What is running, what is stuck, what reconcilers found, for `cumulet status`: our own, administrators only."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.clock import iso_z
from cumulet.compute import history
from cumulet.compute import hosts as host_records
from cumulet.compute.operations import SERVER
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import migrations
from cumulet.conductor import findings, presence
from cumulet.conductor.saga import Status, operations
from cumulet.db import schema
from cumulet.errors import NotFound
from cumulet.web.context import Process
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

LIST = rule("cumulet:operations:list", ADMIN)


@COMPUTE.operation("GET", "/cumulet/operations", rules=(Rule(LIST),))
def list_operations(call: Call[None, None]) -> dict[str, object]:
    """List running and waiting operations, and which of them are stuck and why."""
    rows = call.tx.all(
        sa.select(operations)
        .where(operations.c.status.in_((Status.FORWARD, Status.UNWINDING, Status.QUEUED)))
        .order_by(operations.c.created_at_us)
        .limit(call.cloud.settings.largest_page)
    )
    return {
        "operations": [
            {
                "id": row.id,
                "saga": row.saga,
                "kind": row.kind,
                "subject": row.subject,
                "server_id": row.subject if row.kind == SERVER else None,
                "status": row.status,
                "position": row.position,
                "attempts": row.attempts,
                "stuck": row.stuck_cause is not None,
                "cause": row.stuck_cause,
                "started_at": iso_z(row.created_at_us),
                "updated_at": iso_z(row.updated_at_us),
            }
            for row in rows
        ]
    }


@COMPUTE.operation("GET", "/cumulet/history", rules=(Rule(LIST),))
def show_history(call: Call[None, None]) -> dict[str, object]:
    """Show how much is kept of what has ended, and how much may be."""
    settings = call.cloud.settings
    return {
        "history": [
            {"kind": one.name, "rows": one.rows, "oldest_at": iso_z(one.oldest_us) if one.oldest_us else None}
            for one in history.kept(call.tx)
        ],
        "limits": {
            "days": settings.history_days,
            "rows": settings.history_rows,
            "rows_per_server": settings.history_rows_per_server,
        },
    }


@COMPUTE.operation("GET", "/cumulet/control-plane", rules=(Rule(LIST),))
def show_control_plane(call: Call[None, None]) -> dict[str, object]:
    """Show the processes of this cloud, which of them holds which lease, and what hosts say of theirs."""
    now_us = call.cloud.clock.now_us()
    found: dict[str, Process] = {one.name: one for one in presence.heard(call.tx, now_us)}
    troubles: dict[str, str | None] = {}
    if call.cloud.presence is not None:
        here = call.cloud.presence.now()
        found[here.name] = here
        troubles[here.name] = call.cloud.presence.trouble()
    return {
        "processes": [
            {
                "name": one.name,
                "role": one.role,
                "version": one.version,
                "machine": one.machine,
                "bus": one.bus,
                "problem": troubles.get(one.name),
                "database_ms": one.lag_ms,
                "started_at": iso_z(one.started_at_us),
                "heard_seconds_ago": max(0.0, (now_us - one.heard_at_us) / 1_000_000),
            }
            for one in sorted(found.values(), key=lambda one: (one.role, one.name))
        ],
        "leases": [{"name": name, "process": owner} for name, owner in presence.held(call.tx)],
        "hosts": [
            {
                "name": name,
                "version": kind.version or None,
                "protocol": kind.protocol,
                "lease_seconds": kind.lease_seconds,
                "lease_held": kind.lease_held,
            }
            for name, kind in host_records.kinds(call.tx)
        ],
        "certificates": [
            {"name": one.name, "ends_at": iso_z(one.ends_at_us), "days_left": one.days_left, "ends_soon": one.soon}
            for one in call.cloud.certificates()
        ],
        "database": {"kind": call.cloud.db.kind, "schema": schema.HEAD},
    }


@COMPUTE.operation("GET", "/cumulet/findings", rules=(Rule(LIST),))
def list_findings(call: Call[None, None]) -> dict[str, object]:
    """List what reconcilers found and did, the newest first."""
    return {
        "findings": [
            {
                "reconciler": row.reconciler,
                "finding": row.finding,
                "done": row.done,
                "host": row.host or None,
                "server_id": row.subject or None,
                "times": row.times,
                "first_at": iso_z(row.first_at_us),
                "last_at": iso_z(row.last_at_us),
            }
            for row in findings.newest(call.tx)
        ]
    }


@COMPUTE.operation("GET", "/cumulet/migrations/{migration_id}", rules=(Rule(LIST),))
def show_migration(call: Call[None, None]) -> dict[str, object]:
    """Show what the record of a move (by number or uuid) says beyond Nova's view: why it failed, how its copy went."""
    asked = call.path["migration_id"]
    is_number = asked.isascii() and asked.isdigit() and len(asked) < 19
    named = migrations.c.id == int(asked) if is_number else migrations.c.uuid == asked
    row = call.tx.first(sa.select(migrations).where(named))
    if row is None:
        raise NotFound(f"Migration {asked} could not be found.")
    return {
        "migration": {
            "uuid": row.uuid,
            "server_id": row.server_id,
            "type": row.type,
            "status": row.status,
            "source": row.source_host,
            "destination": row.destination_host,
            "reason": row.reason,
            "details": row.reason_text,
            "phase": row.phase,
            "downtime_ms": row.downtime_ms,
            "rate_bytes_s": row.rate_bytes_s,
            "dirty_rate_bytes_s": row.dirty_rate_bytes_s,
        }
    }
