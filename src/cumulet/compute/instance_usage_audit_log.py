"""The log of hosts' usage audits: as upstream's where audits are off, which is its default - no host has run one."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import sqlalchemy as sa

from cumulet.compute.flavors import ShowQuery
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import hosts
from cumulet.errors import BadRequest
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

LIST = rule("os_compute_api:os-instance-usage-audit-log:list", ADMIN)
SHOW = rule("os_compute_api:os-instance-usage-audit-log:show", ADMIN)
PATH = "/os-instance_usage_audit_log"
_MOMENT = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2}) (\d{1,2}):(\d{1,2}):(\d{1,2})(\.\d{1,6})?", re.ASCII)


@COMPUTE.operation("GET", PATH, rules=(Rule(LIST),), query=ShowQuery)
def list_audit_logs(call: Call[None, None]) -> dict[str, object]:
    """The newest month that is over."""
    return {"instance_usage_audit_logs": _log(call, datetime.fromtimestamp(call.now_us / 1_000_000, UTC))}


@COMPUTE.operation("GET", PATH + "/{before}", rules=(Rule(SHOW),), query=ShowQuery)
def show_audit_log(call: Call[None, None]) -> dict[str, object]:
    """The newest month that was over at a moment, ``YYYY-MM-DD hh:mm:ss``."""
    text = call.path["before"]
    found = _MOMENT.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        moment = datetime(*(int(part) for part in found.groups()[:6]), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError:
        raise BadRequest(f"Invalid timestamp for date {text}") from None
    return {"instance_usage_audit_log": _log(call, moment)}


def _log(call: Call[None, None], moment: datetime) -> dict[str, object]:
    end = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    year, month = (end.year, end.month - 1) if end.month > 1 else (max(end.year - 1, 1), 12)
    names = [row.name for row in call.tx.all(sa.select(hosts.c.name).order_by(hosts.c.name))]
    begin = end.replace(year=year, month=month)
    return {
        "period_beginning": f"{begin:%Y-%m-%d %H:%M:%S}",
        "period_ending": f"{end:%Y-%m-%d %H:%M:%S}",
        "num_hosts": len(names),
        "num_hosts_done": 0,
        "num_hosts_running": 0,
        "num_hosts_not_run": len(names),
        "hosts_not_run": names,
        "total_instances": 0,
        "total_errors": 0,
        "overall_status": f"0 of {len(names)} hosts done. 0 errors." if names else "ALL hosts done. 0 errors.",
        "log": {},
    }
