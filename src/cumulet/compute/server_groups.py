"""Server groups: servers that shall share a host, or shall not."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.quotas import limits_of, require_limit
from cumulet.compute.rules import ADMIN, MEMBER, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import server_group_members, server_groups, servers
from cumulet.db.engine import Row, Tx
from cumulet.errors import BadRequest, NotFound
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import (
    UNSET,
    Body,
    Json,
    NonNegativeInteger,
    PositiveInteger,
    Query,
    Since,
    Unset,
    Until,
    Versions,
)

CREATE = rule("os_compute_api:os-server-groups:create", MEMBER)
DELETE = rule("os_compute_api:os-server-groups:delete", MEMBER)
INDEX = rule("os_compute_api:os-server-groups:index", READER)
INDEX_ALL = rule("os_compute_api:os-server-groups:index:all_projects", ADMIN)
SHOW = rule("os_compute_api:os-server-groups:show", READER)

HARD = ["anti-affinity", "affinity"]
SOFT = ["soft-anti-affinity", "soft-affinity"]


def _policies(*names: str) -> Any:
    return Annotated[
        list[str],
        Json({"items": {"type": "string", "enum": list(names)}, "minItems": 1, "maxItems": 1, "uniqueItems": True}),
    ]


class Rules(Body):
    max_server_per_host: PositiveInteger | Unset = UNSET


class CreateServerGroup(Body):
    name: t.Name
    policies: Annotated[
        list[str] | Unset,
        Versions(("2.1", _policies(*HARD)), ("2.15", _policies(*HARD, *SOFT))),
        Until("2.63", required=True),
    ] = UNSET
    policy: Annotated[str, Json({"enum": [*HARD, *SOFT]}), Since("2.64")]
    rules: Annotated[Rules | Unset, Since("2.64")] = UNSET


class ServerGroupsQuery(Query, closed_since="2.75"):
    all_projects: str | None = None
    limit: NonNegativeInteger | None = None
    offset: NonNegativeInteger | None = None


@COMPUTE.operation("GET", "/os-server-groups", rules=(Rule(INDEX),), query=ServerGroupsQuery)
def list_server_groups(call: Call[None, None]) -> dict[str, object]:
    """List the project's server groups; all projects' for administrators."""
    query = sa.select(server_groups).order_by(server_groups.c.number)
    if "all_projects" in call.query and call.caller.is_admin:
        call.require(INDEX_ALL)
    else:
        query = query.where(server_groups.c.project_id == (call.caller.project_id or ""))
    limit, offset = call.query.get("limit"), call.query.get("offset")
    largest = call.cloud.settings.largest_page
    most = min(int(limit), largest) if limit is not None and int(limit) else largest
    rows = call.tx.all(query.limit(most).offset(int(offset) if offset is not None else 0))
    members = _members(call.tx, [row.id for row in rows])
    return {"server_groups": [_view(call, row, members.get(row.id, [])) for row in rows]}


def _group_in_sight(call: Call[object, object]) -> Row:
    group_id = call.path["group_id"]
    row = call.tx.first(sa.select(server_groups).where(server_groups.c.id == group_id))
    if row is None or not (call.caller.is_admin or row.project_id == call.caller.project_id):
        raise NotFound(f"Instance group {group_id} could not be found.")
    return row


@COMPUTE.operation("GET", "/os-server-groups/{group_id}", rules=(Rule(SHOW),), target=_group_in_sight, query=ShowQuery)
def show_server_group(call: Call[Row, None]) -> dict[str, object]:
    """Show a server group."""
    return {"server_group": _view(call, call.target, _members(call.tx, [call.target.id]).get(call.target.id, []))}


@COMPUTE.operation("POST", "/os-server-groups", rules=(Rule(CREATE),), body=CreateServerGroup, body_key="server_group")
def create_server_group(call: Call[None, CreateServerGroup]) -> dict[str, object]:
    """Create a server group."""
    body, project_id = call.body, call.caller.project_id or ""
    held = call.tx.scalar(
        sa.select(sa.func.count()).select_from(server_groups).where(server_groups.c.project_id == project_id)
    )
    require_limit(
        limits_of(call.tx, project_id, call.caller.user_id),
        "server_groups",
        held + 1,
        words="Quota exceeded, too many server groups.",
    )
    policy = body.policy if isinstance(body.policies, Unset) else body.policies[0]
    rules: dict[str, int] = {}
    if not isinstance(body.rules, Unset) and not isinstance(body.rules.max_server_per_host, Unset):
        rules = {"max_server_per_host": body.rules.max_server_per_host}
    if rules and policy != "anti-affinity":
        raise BadRequest("Only anti-affinity policy supports rules.")
    group_id = call.cloud.clock.uuid()
    call.tx.execute(
        sa.insert(server_groups).values(
            id=group_id,
            project_id=project_id,
            user_id=call.caller.user_id,
            name=body.name.strip(),
            policy=policy,
            rules=rules,
            created_at_us=call.now_us,
        )
    )
    row = call.tx.first(sa.select(server_groups).where(server_groups.c.id == group_id))
    assert row is not None
    return {"server_group": _view(call, row, [])}


@COMPUTE.operation("DELETE", "/os-server-groups/{group_id}", rules=(Rule(DELETE),), target=_group_in_sight, success=204)
def delete_server_group(call: Call[Row, None]) -> None:
    """Delete a server group. Its members stay."""
    call.tx.execute(sa.delete(server_group_members).where(server_group_members.c.group_id == call.target.id))
    call.tx.execute(sa.delete(server_groups).where(server_groups.c.id == call.target.id))


def _members(tx: Tx, group_ids: list[str]) -> dict[str, list[str]]:
    """The servers of groups; deleted ones are no members any more."""
    rows = tx.all(
        sa.select(server_group_members.c.group_id, server_group_members.c.server_id)
        .join(servers, servers.c.id == server_group_members.c.server_id)
        .where(server_group_members.c.group_id.in_(group_ids), servers.c.deleted_at_us.is_(None))
        .order_by(servers.c.number)
    )
    found: dict[str, list[str]] = {}
    for group_id, server_id in map(tuple, rows):
        found.setdefault(group_id, []).append(server_id)
    return found


def _view(call: Call[object, object], row: Row, members: list[str]) -> dict[str, object]:
    view: dict[str, object] = {"id": row.id, "name": row.name, "members": members}
    if call.version.at_least("2.64"):
        view |= {"policy": row.policy, "rules": row.rules}
    else:
        view |= {"policies": [row.policy], "metadata": {}}
    if call.version.at_least("2.13"):
        view |= {"project_id": row.project_id, "user_id": row.user_id}
    return view
