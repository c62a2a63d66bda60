"""Compute's tables, and the few ways a server row changes. Ownership (`servers.host`): in `change_owner` alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.compute import untold
from cumulet.compute.model import Flavor, PowerState, Server, VmState
from cumulet.db.engine import Row, Select, Tx, metadata
from cumulet.db.partial_index import index_where
from cumulet.db.parts import in_parts
from cumulet.errors import Conflict, NotFound

flavors = sa.Table(
    "flavors",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("flavor_id", sa.String(255), nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("disk_gib", sa.Integer, nullable=False),
    sa.Column("ephemeral_gib", sa.Integer, nullable=False, default=0),
    sa.Column("swap_mib", sa.Integer, nullable=False, default=0),
    sa.Column("rxtx_factor", sa.Float, nullable=False, default=1.0),
    sa.Column("is_public", sa.Boolean, nullable=False, default=True),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("description", sa.Text),
    sa.Column("extra_specs", sa.JSON, nullable=False, default=dict),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)

flavor_access = sa.Table(
    "flavor_access",
    metadata,
    sa.Column("flavor_id", sa.ForeignKey("flavors.flavor_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("project_id", sa.String(64), primary_key=True),
)

servers = sa.Table(
    "servers",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("hostname", sa.String(255), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("reservation_id", sa.String(32), nullable=False),
    sa.Column("launch_index", sa.Integer, nullable=False),
    sa.Column("flavor", sa.JSON, nullable=False),
    sa.Column("image_id", sa.String(36)),
    sa.Column("image_properties", sa.JSON, nullable=False),
    sa.Column("key_name", sa.String(255)),
    sa.Column("public_key", sa.Text),
    sa.Column("key_type", sa.String(8)),
    sa.Column("user_data", sa.Text),
    sa.Column("config_drive", sa.Boolean, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("system_metadata", sa.JSON, nullable=False),
    sa.Column("availability_zone", sa.String(255), nullable=False),
    sa.Column("requested_zone", sa.String(255)),
    sa.Column("pinned_host", sa.String(255)),
    sa.Column("scheduler_hints", sa.JSON, nullable=False),
    sa.Column("disk_config", sa.String(8), nullable=False),
    sa.Column("access_ipv4", sa.String(64)),
    sa.Column("access_ipv6", sa.String(64)),
    sa.Column("host", sa.String(255)),
    sa.Column("launched_on", sa.String(255)),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("guest", sa.JSON(none_as_null=True)),
    sa.Column("guest_secrets", sa.JSON(none_as_null=True)),
    sa.Column("vm_state", sa.String(32), nullable=False),
    sa.Column("task_state", sa.String(32)),
    sa.Column("power_state", sa.String(16), nullable=False),
    sa.Column("progress", sa.Integer, nullable=False),
    sa.Column("locked", sa.Boolean, nullable=False),
    sa.Column("locked_by", sa.String(16)),
    sa.Column("locked_reason", sa.String(255)),
    sa.Column("fault_code", sa.Integer),
    sa.Column("fault_message", sa.String(255)),
    sa.Column("fault_details", sa.Text),
    sa.Column("fault_at_us", sa.BigInteger),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    sa.Column("launched_at_us", sa.BigInteger),
    sa.Column("terminated_at_us", sa.BigInteger),
    sa.Column("deleted_at_us", sa.BigInteger),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Index("ix_servers_project", "project_id", "deleted_at_us", "created_at_us"),
    sa.Index("ix_servers_created", "created_at_us", "number"),
    sa.Index("ix_servers_host", "host", "deleted_at_us"),
    sa.Index("ix_servers_reservation", "reservation_id"),
)
index_where(servers, "ix_servers_deleted", "deleted_at_us", where="deleted_at_us IS NOT NULL")

server_tags = sa.Table(
    "server_tags",
    metadata,
    sa.Column("server_id", sa.ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag", sa.String(60), primary_key=True),
)

migrations = sa.Table(
    "migrations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("uuid", sa.String(36), nullable=False, unique=True),
    sa.Column("server_id", sa.String(36), nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("operation_id", sa.String(36)),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("source_host", sa.String(255)),
    sa.Column("destination_host", sa.String(255)),
    sa.Column("old_flavor_number", sa.Integer),
    sa.Column("new_flavor_number", sa.Integer),
    sa.Column("memory_total_bytes", sa.BigInteger),
    sa.Column("memory_processed_bytes", sa.BigInteger),
    sa.Column("memory_remaining_bytes", sa.BigInteger),
    sa.Column("disk_total_bytes", sa.BigInteger),
    sa.Column("disk_processed_bytes", sa.BigInteger),
    sa.Column("disk_remaining_bytes", sa.BigInteger),
    sa.Column("rate_bytes_s", sa.Float),
    sa.Column("dirty_rate_bytes_s", sa.Float),
    sa.Column("downtime_ms", sa.Integer),
    sa.Column("phase", sa.String(16)),
    sa.Column("reason", sa.String(64)),
    sa.Column("reason_text", sa.Text),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    sa.Column("ended_at_us", sa.BigInteger),
    sa.Index("ix_migrations_server", "server_id"),
    sa.Index("ix_migrations_created", "created_at_us"),
    sa.Index("ix_migrations_ended", "ended_at_us", "destination_host"),
)

instance_actions = sa.Table(
    "instance_actions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("server_id", sa.String(36), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("operation_id", sa.String(36)),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64)),
    sa.Column("project_id", sa.String(64)),
    sa.Column("message", sa.Text),
    sa.Column("started_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger),
    sa.Column("finished_at_us", sa.BigInteger),
    sa.UniqueConstraint("server_id", "request_id", "action"),
    sa.Index("ix_instance_actions_started", "started_at_us", "server_id"),
)

instance_action_events = sa.Table(
    "instance_action_events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("action_id", sa.ForeignKey("instance_actions.id", ondelete="CASCADE"), nullable=False),
    sa.Column("event", sa.String(64), nullable=False),
    sa.Column("host", sa.String(255)),
    sa.Column("result", sa.String(16)),
    sa.Column("details", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("started_at_us", sa.BigInteger, nullable=False),
    sa.Column("finished_at_us", sa.BigInteger),
    sa.Index("ix_instance_action_events_action", "action_id"),
)

hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("service_uuid", sa.String(36), nullable=False, unique=True),
    sa.Column("hypervisor_uuid", sa.String(36), nullable=False, unique=True),
    sa.Column("zone", sa.String(255), nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("disabled_reason", sa.String(255)),
    sa.Column("forced_down", sa.Boolean, nullable=False),
    sa.Column("up", sa.Boolean, nullable=False),
    sa.Column("to_clear", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("seen_at_us", sa.BigInteger),
    sa.Column("facts", sa.JSON(none_as_null=True)),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
)


server_groups = sa.Table(
    "server_groups",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("project_id", sa.String(64), nullable=False, index=True),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("policy", sa.String(32), nullable=False),
    sa.Column("rules", sa.JSON, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)

server_group_members = sa.Table(
    "server_group_members",
    metadata,
    sa.Column("group_id", sa.ForeignKey("server_groups.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("server_id", sa.String(36), primary_key=True, index=True),
)
"""Rows stay for a while when their server is deleted (`compute.history`): readers join `servers` and leave deleted ones
out."""

aggregates = sa.Table(
    "aggregates",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("uuid", sa.String(36), nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger),
)

aggregate_hosts = sa.Table(
    "aggregate_hosts",
    metadata,
    sa.Column("aggregate_id", sa.ForeignKey("aggregates.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True),
)

_COLUMNS = [column for column in servers.c if column.name != "number"]


def server_from_row(row: Row) -> Server:
    """A row selected with `select_servers()` as a `Server`."""
    values = dict(row._mapping)
    values.pop("number", None)
    values["flavor"] = Flavor(**values["flavor"])
    values["vm_state"] = VmState(values["vm_state"])
    values["power_state"] = PowerState(values["power_state"])
    return Server(**values)


def select_servers() -> Select:
    return sa.select(*_COLUMNS)


_SERVER = sa.select(*_COLUMNS).where(servers.c.id == sa.bindparam("of_id"))
_CHANGE = sa.update(servers).where(
    servers.c.id == sa.bindparam("of_id"), servers.c.revision == sa.bindparam("of_revision")
)
_INSERT = sa.insert(servers)
_INSERT_ACTION = sa.insert(instance_actions)


def get_server(tx: Tx, server_id: str, *, project_id: str | None = None, deleted: bool = False) -> Server:
    """The server, or NotFound with Nova's words. `project_id`: None sees every project (administrators)."""
    row = tx.first(_SERVER, {"of_id": server_id})
    return server_from_row(require_found(row, server_id, project_id=project_id, deleted=deleted))


def require_found(row: Row | None, server_id: str, *, project_id: str | None = None, deleted: bool = False) -> Row:
    """The row of `servers`, or `get_server`'s NotFound."""
    if (
        row is None
        or (project_id is not None and row.project_id != project_id)
        or (row.deleted_at_us is not None and not deleted)
    ):
        raise NotFound(f"Instance {server_id} could not be found.")
    return row


def insert_servers(tx: Tx, new: Iterable[Server]) -> None:
    """Insert rows for servers created by one request, all in one statement."""
    tx.execute(_INSERT, [_as_row(server) for server in new])


def _as_row(server: Server) -> dict[str, object]:
    values = msgspec.structs.asdict(server)
    values["flavor"] = msgspec.structs.asdict(server.flavor)
    values["vm_state"] = server.vm_state.value
    values["power_state"] = server.power_state.value
    return values


def update_server(tx: Tx, server: Server, *, now_us: int, **changes: object) -> Server:
    """Change columns of a server. Conflict if its revision is no longer `server`'s. `host`: see `change_owner`."""
    if "host" in changes:
        raise AssertionError("ownership changes in change_owner alone")
    matched = tx.changed(
        _CHANGE,
        {
            **{k: getattr(v, "value", v) for k, v in changes.items()},
            "updated_at_us": now_us,
            "revision": server.revision + 1,
            "of_id": server.id,
            "of_revision": server.revision,
        },
    )
    if matched != 1:
        raise Conflict(f"Instance {server.id} was changed by another request.", reason="CHANGED_MEANWHILE")
    untold.note_if_heeded(tx, server.id, changes, now_us=now_us)
    return msgspec.structs.replace(server, **changes, updated_at_us=now_us, revision=server.revision + 1)


_SETTLE = sa.update(servers).where(servers.c.id == sa.bindparam("of_id")).values(revision=servers.c.revision + 1)
_SETTLE_TASK = _SETTLE.values(
    task_state=sa.case((servers.c.task_state == "deleting", servers.c.task_state), else_=sa.bindparam("to_task_state"))
)


def settle_server(tx: Tx, server_id: str, *, now_us: int, **changes: object) -> None:
    """Change columns of a server whatever its revision. If a delete waits, the task state keeps its mark."""
    if "host" in changes:
        raise AssertionError("ownership changes in change_owner alone")
    values = {k: getattr(v, "value", v) for k, v in changes.items()} | {"of_id": server_id, "updated_at_us": now_us}
    statement = _SETTLE
    if "task_state" in values:
        statement, values["to_task_state"] = _SETTLE_TASK, values.pop("task_state")
    if tx.changed(statement, values) != 1:
        raise NotFound(f"Instance {server_id} could not be found.")
    untold.note_if_heeded(tx, server_id, changes, now_us=now_us)


_SCHEDULING = (
    sa.update(servers)
    .where(servers.c.id.in_(sa.bindparam("of_ids", expanding=True)))
    .values(task_state="scheduling", generation=servers.c.generation + 1, revision=servers.c.revision + 1)
)
_INSERT_ACTIONS = sa.insert(instance_actions).returning(instance_actions.c.id, sort_by_parameter_order=True)


def begin_scheduling(
    tx: Tx, server_ids: Sequence[str], operation_ids: Sequence[str], *, request_id: str, user_id: str,
    project_id: str | None, now_us: int,
) -> list[int]:  # fmt: skip
    """Begin to boot servers of one request, inserted in this transaction. Returns the ids of their `create` actions."""
    for part in in_parts(server_ids):
        tx.run(_SCHEDULING, {"of_ids": list(part), "updated_at_us": now_us})
    rows = [
        {
            "server_id": server_id, "request_id": request_id, "action": "create", "user_id": user_id,
            "project_id": project_id, "operation_id": operation_id, "started_at_us": now_us, "updated_at_us": now_us,
        }
        for server_id, operation_id in zip(server_ids, operation_ids, strict=True)
    ]  # fmt: skip
    return [int(row.id) for row in tx.execute(_INSERT_ACTIONS, rows)]


_OF_GENERATION = sa.update(servers).where(
    servers.c.id == sa.bindparam("of_id"), servers.c.generation == sa.bindparam("of_generation")
)
_TAKE = _OF_GENERATION.where(servers.c.host.is_(None)).values(revision=servers.c.revision + 1)
_MOVE = _OF_GENERATION.where(servers.c.host == sa.bindparam("of_host")).values(revision=servers.c.revision + 1)


def change_owner(tx: Tx, server_id: str, *, old: str | None, new: str | None, generation: int, now_us: int) -> int:
    """The one statement that moves ownership from `old` at `generation` to `new`. Returns the new generation.

    Conflict if the record says otherwise: then somebody else has decided, and nothing is changed.
    """
    held = {"of_id": server_id, "of_generation": generation}
    taken = {"host": new, "generation": generation + 1, "updated_at_us": now_us}
    matched = tx.changed(_TAKE, held | taken) if old is None else tx.changed(_MOVE, held | taken | {"of_host": old})
    if matched != 1:
        problem = f"Instance {server_id} is not owned by {old} at generation {generation}."
        raise Conflict(problem, reason="OWNER_CHANGED")
    if old is not None and new is not None:  # Its guest moves as it was described once.
        untold.note(tx, server_id, now_us=now_us)
    return generation + 1


def new_action(
    tx: Tx, server_id: str, action: str, *, request_id: str, user_id: str | None, project_id: str | None, now_us: int,
    operation_id: str | None = None,
) -> int:  # fmt: skip
    """Record that a request asked for `action` (Nova's names: create, live-migration, stop, ...); returns its id."""
    result = tx.execute(
        _INSERT_ACTION,
        {
            "server_id": server_id, "request_id": request_id, "action": action, "user_id": user_id,
            "project_id": project_id, "operation_id": operation_id, "started_at_us": now_us, "updated_at_us": now_us,
        },
    )  # fmt: skip
    return int(result.inserted_primary_key[0])  # type: ignore[index]
