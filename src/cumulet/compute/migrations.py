"""Migrations as records: those of one server that are under way, and all of them; abort and force-complete."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated

import sqlalchemy as sa

from cumulet.clock import iso_us
from cumulet.compute import attribute_types as t
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.links import known, links, next_links, page
from cumulet.compute.model import Server
from cumulet.compute.moments import changed_between
from cumulet.compute.rules import ADMIN, MANAGER
from cumulet.compute.server_actions import record_done
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import migrations
from cumulet.conductor.saga import request_abort, request_force
from cumulet.db.engine import Row, Select, Tx
from cumulet.errors import BadRequest, NotFound
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Key, NonNegativeInteger, Query, Since, Single

INDEX_OF_SERVER = rule("os_compute_api:servers:migrations:index", MANAGER)
INDEX_OF_SERVER_HOST = rule("os_compute_api:servers:migrations:index:host", ADMIN)
SHOW = rule("os_compute_api:servers:migrations:show", ADMIN)
ABORT = rule("os_compute_api:servers:migrations:delete", MANAGER)
FORCE_COMPLETE = rule("os_compute_api:servers:migrations:force_complete", MANAGER)
INDEX = rule("os_compute_api:os-migrations:index", MANAGER)
INDEX_ALL = rule("os_compute_api:os-migrations:index:all_projects", ADMIN)
INDEX_HOST = rule("os_compute_api:os-migrations:index:host", ADMIN)

PATH = "/servers/{server_id}/migrations"
IN_PROGRESS = ("queued", "preparing", "running", "post-migrating")


class MigrationsQuery(Query, closed_since="2.59"):
    hidden: str | None = None
    host: str | None = None
    instance_uuid: str | None = None
    source_compute: str | None = None
    status: str | None = None
    migration_type: str | None = None
    limit: Annotated[NonNegativeInteger | None, Single(), Since("2.59")] = None
    marker: Annotated[str | None, Single(), Since("2.59")] = None
    changes_since: Annotated[t.Moment | None, Key("changes-since"), Single(), Since("2.59")] = None
    changes_before: Annotated[t.Moment | None, Key("changes-before"), Single(), Since("2.66")] = None
    user_id: Annotated[str | None, Single(), Since("2.80")] = None
    project_id: Annotated[str | None, Single(), Since("2.80")] = None


# -- of one server


@COMPUTE.operation("GET", PATH, rules=(Rule(INDEX_OF_SERVER),), target=server_in_sight, query=ShowQuery, since="2.23")
def list_server_migrations(call: Call[Server, None]) -> dict[str, object]:
    """List a server's live migrations that are under way."""
    rows = call.tx.all(
        sa.select(migrations)
        .where(
            migrations.c.server_id == call.target.id,
            migrations.c.type == "live-migration",
            migrations.c.status.in_(IN_PROGRESS),
        )
        .order_by(migrations.c.id)
    )
    with_host = call.authorise(INDEX_OF_SERVER_HOST, None)
    return {"migrations": [_server_view(call, row, with_host=with_host) for row in rows]}


@COMPUTE.operation(
    "GET", PATH + "/{migration_id}", rules=(Rule(SHOW),), target=server_in_sight, query=ShowQuery, since="2.23"
)
def show_server_migration(call: Call[Server, None]) -> dict[str, object]:
    """Show a live migration that is under way, with its progress."""
    server_id, migration_id = call.target.id, call.path["migration_id"]
    row = _of_server(call.tx, server_id, migration_id)
    if row is None:
        raise NotFound(f"In-progress live migration {migration_id} is not found for server {server_id}.")
    if row.type != "live-migration":
        raise NotFound(f"Migration {migration_id} for server {server_id} is not live-migration.")
    if row.status not in IN_PROGRESS:
        raise NotFound(f"Live migration {migration_id} for server {server_id} is not in progress.")
    return {"migration": _server_view(call, row, with_host=True)}


@COMPUTE.operation(
    "DELETE", PATH + "/{migration_id}", rules=(Rule(ABORT),), target=server_in_sight, since="2.24", success=202
)
def abort_migration(call: Call[Server, None]) -> None:
    """Abort a live migration: a running one, and from 2.65 on also one that is queued or being prepared."""
    require_state(call.target, "abort", call.caller)
    row = _of_server(call.tx, call.target.id, call.path["migration_id"])
    if row is None:
        raise NotFound(_not_found(call))
    stoppable = IN_PROGRESS[:3] if call.version.at_least("2.65") else ("running",)
    if row.status not in stoppable:
        raise BadRequest(_wrong_status(call, row, "abort live migration"), reason="WRONG_STATE")
    record_done(call, call.target, "live_migration_cancel", event="compute_live_migration_abort")
    request_abort(call.tx, call.cloud.wake, row.operation_id)


@COMPUTE.operation(
    "POST",
    PATH + "/{migration_id}/action",
    action="force_complete",
    rules=(Rule(FORCE_COMPLETE),),
    target=server_in_sight,
    body=t.Nothing,
    since="2.22",
    success=202,
)
def force_complete_migration(call: Call[Server, t.Nothing]) -> None:
    """Make a running live migration end: pause the guest, or switch to post-copy where that was agreed on."""
    require_state(call.target, "force_complete", call.caller)
    row = _of_server(call.tx, call.target.id, call.path["migration_id"])
    if row is None:
        raise BadRequest(_not_found(call))
    if row.status != "running":
        raise BadRequest(_wrong_status(call, row, "force complete"), reason="WRONG_STATE")
    event = "compute_live_migration_force_complete"
    record_done(call, call.target, "live_migration_force_complete", event=event)
    request_force(call.tx, call.cloud.wake, row.operation_id)


def _of_server(tx: Tx, server_id: str, migration_id: str) -> Row | None:
    if not (migration_id.isascii() and migration_id.isdigit() and len(migration_id) < 19):
        return None
    return tx.first(
        sa.select(migrations).where(migrations.c.id == int(migration_id), migrations.c.server_id == server_id)
    )


def _not_found(call: Call[Server, object]) -> str:
    return f"Migration {call.path['migration_id']} not found for instance {call.target.id}"


def _wrong_status(call: Call[Server, object], row: Row, what: str) -> str:
    return (
        f"Migration {call.path['migration_id']} state of instance {call.target.id} is {row.status}. "
        f"Cannot {what} while the migration is in this state."
    )


def _server_view(call: Call[Server, object], row: Row, *, with_host: bool) -> dict[str, object]:
    view: dict[str, object] = {
        "id": row.id,
        "status": row.status,
        "server_uuid": row.server_id,
        "created_at": iso_us(row.created_at_us),
        "updated_at": iso_us(row.updated_at_us),
        "memory_total_bytes": row.memory_total_bytes,
        "memory_processed_bytes": row.memory_processed_bytes,
        "memory_remaining_bytes": row.memory_remaining_bytes,
        "disk_total_bytes": row.disk_total_bytes,
        "disk_processed_bytes": row.disk_processed_bytes,
        "disk_remaining_bytes": row.disk_remaining_bytes,
        **_host_fields(row, shown=with_host),
    }
    return _with_owner(call, row, view)


# -- all


@COMPUTE.operation("GET", "/os-migrations", rules=(Rule(INDEX),), query=MigrationsQuery)
def list_migrations(call: Call[None, None]) -> dict[str, object]:
    """List migrations: every project's for administrators, else those of the caller's own project, when asked for."""
    given = known(call, MigrationsQuery)
    if (given.get("project_id") or None) != call.caller.project_id or call.caller.project_id is None:
        call.require(INDEX_ALL)
    with_host = call.authorise(INDEX_HOST, None)
    exact = {name: given[name] for name in _EXACT if name in given}
    conditions = _conditions(given, with_host=with_host)
    paged = call.version.at_least("2.59")
    asked = page(call, since="2.59")
    if asked.marker is not None:
        conditions.append(_after(call.tx, asked.marker, exact.get("project_id")))
    statement, values = _listing(tuple(exact), paged=paged), {**exact, "most": asked.limit}
    # A client that waits for a move asks for its server's migrations again and again: that statement is built once.
    rows = call.tx.execute(statement.where(*conditions), values).all() if conditions else call.tx.all(statement, values)
    answer: dict[str, object] = {"migrations": [_view(call, row, with_host=with_host) for row in rows]}
    if paged and (following := next_links(call, "os-migrations", asked, len(rows), rows[-1].uuid if rows else "")):
        answer["migrations_links"] = following
    return answer


def _conditions(given: Mapping[str, str], *, with_host: bool) -> list[sa.ColumnElement[bool]]:
    """All filters except those for the equality of a column."""
    conditions: list[sa.ColumnElement[bool]] = []
    # A caller who may not see hosts must not find them out by filtering.
    source, host = given.get("source_compute"), given.get("host")
    if with_host and host is not None:
        conditions.append(sa.or_(migrations.c.source_host == host, migrations.c.destination_host == host))
    elif with_host and source is not None:
        conditions.append(migrations.c.source_host == source)
    elif host is not None or source is not None:
        conditions.append(sa.false())
    if given.get("hidden") not in (None, "", "0", "false", "False"):
        conditions.append(sa.false())
    changed = changed_between(migrations.c.updated_at_us, given.get("changes-since"), given.get("changes-before"))
    return [*conditions, *changed]


_EXACT = {
    "instance_uuid": migrations.c.server_id,
    "status": migrations.c.status,
    "migration_type": migrations.c.type,
    "user_id": migrations.c.user_id,
    "project_id": migrations.c.project_id,
}


@functools.cache
def _listing(exact: tuple[str, ...], *, paged: bool) -> Select:
    """Migrations equal in these attributes; `most` is the limit."""
    order = [migrations.c.created_at_us.desc(), migrations.c.id.desc()] if paged else [migrations.c.id]
    equal = (_EXACT[name] == sa.bindparam(name) for name in exact)
    return sa.select(migrations).where(*equal).order_by(*order).limit(sa.bindparam("most", type_=sa.Integer))


def _after(tx: Tx, marker: str, project_id: str | None) -> sa.ColumnElement[bool]:
    """`project_id`: whose migrations are listed. A marker of another project is one that does not exist."""
    wanted = (migrations.c.created_at_us, migrations.c.id, migrations.c.project_id)
    at = tx.first(sa.select(*wanted).where(migrations.c.uuid == marker))
    if at is None or project_id not in (None, at.project_id):
        raise BadRequest(f"Marker {marker} could not be found.")
    return sa.or_(
        migrations.c.created_at_us < at.created_at_us,
        sa.and_(migrations.c.created_at_us == at.created_at_us, migrations.c.id < at.id),
    )


def _view(call: Call[None, None], row: Row, *, with_host: bool) -> dict[str, object]:
    view: dict[str, object] = {
        "id": row.id,
        "status": row.status,
        "instance_uuid": row.server_id,
        "created_at": iso_us(row.created_at_us),
        "updated_at": iso_us(row.updated_at_us),
        "old_instance_type_id": row.old_flavor_number,
        "new_instance_type_id": row.new_flavor_number,
        **_host_fields(row, shown=with_host),
    }
    if call.version.at_least("2.23"):
        view["migration_type"] = row.type
        if row.type == "live-migration" and row.status in IN_PROGRESS:
            view["links"] = links(call, f"servers/{row.server_id}/migrations", row.id)
    return _with_owner(call, row, view)


def _with_owner(call: Call[object, object], row: Row, view: dict[str, object]) -> dict[str, object]:
    if call.version.at_least("2.59"):
        view["uuid"] = row.uuid
    if call.version.at_least("2.80"):
        view["user_id"] = row.user_id
        view["project_id"] = row.project_id
    return view


def _host_fields(row: Row, *, shown: bool) -> dict[str, str | None]:
    """The keys are always there; values are empty if the caller may not see hosts. In Nova only cold migrations have a
    `dest_host`, an address."""
    source, destination = (row.source_host, row.destination_host) if shown else (None, None)
    return {
        "source_compute": source,
        "source_node": source,
        "dest_compute": destination,
        "dest_node": destination,
        "dest_host": None,
    }
