"""What is running, what is stuck, what reconcilers found, for `cumulet status`: our own, administrators only."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cumulet.clock import iso_z
from cumulet.compute.operations import SERVER
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.conductor import findings
from cumulet.conductor.saga import Status, operations
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

LIST = rule("cumulet:operations:list", ADMIN)


@COMPUTE.operation("GET", "/cumulet/operations", rules=(Rule(LIST),))
def list_operations(call: Call[None, None]) -> dict[str, Any]:
    """List running and waiting operations, and which of them are stuck and why."""
    rows = call.tx.all(
        sa.select(operations)
        .where(operations.c.status.in_((Status.FORWARD, Status.UNWINDING, Status.QUEUED)))
        .order_by(operations.c.created_at_us)
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


@COMPUTE.operation("GET", "/cumulet/findings", rules=(Rule(LIST),))
def list_findings(call: Call[None, None]) -> dict[str, Any]:
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
