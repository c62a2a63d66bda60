"""The records of every move of a server to another host: of a running, a stopped or a lost one.

These are its migration, the shares of source and destination in placement, and the bindings of its ports. The sagas do
the work on the hosts: `compute.live_migration`, `compute.resize`, `compute.evacuation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec
import sqlalchemy as sa

from cumulet.compute import boot, hosts_in_memory, operations, promises, scheduler
from cumulet.compute.model import Flavor, Server
from cumulet.compute.store import flavors, get_server, migrations
from cumulet.conductor.saga import Context, Failure, StepFailed
from cumulet.db.engine import Tx
from cumulet.network import bindings_for_compute as bindings
from cumulet.placement import allocations as placement

_FLAVOR_NUMBER = sa.select(flavors.c.id).where(flavors.c.flavor_id == sa.bindparam("of_id"))
_INSERT = sa.insert(migrations)
_CHANGE = sa.update(migrations).where(migrations.c.id == sa.bindparam("of_id"))


class Recorded(Protocol):
    """The part of a saga's state that names its row of `migrations`."""

    @property
    def migration_id(self) -> int: ...


class Moving(msgspec.Struct, frozen=True, kw_only=True):
    """What the saga of every move remembers. `generation` is the server's; it rises by one when ownership moves."""

    server_id: str
    operation_id: str
    action_id: int
    migration_id: int
    migration_uuid: str
    generation: int
    source: str
    asked_for: str | None
    destination: str | None = None


MovingT = TypeVar("MovingT", bound=Moving)


def destination(state: Moving) -> str:
    """The host it moves to. Every step after `pick_destination` has one."""
    assert state.destination is not None
    return state.destination


# -- the migration's record


def new_record(
    tx: Tx,
    server: Server,
    *,
    uuid: str,
    kind: str,
    status: str,
    operation_id: str,
    user_id: str,
    project_id: str,
    asked_for: str | None,
    now_us: int,
    flavor: Flavor | None = None,
) -> int:
    """Insert the record of a move that begins in this transaction; its id. `flavor`: if the server gets another one."""
    numbers = [tx.scalar(_FLAVOR_NUMBER, {"of_id": one.flavor_id}) for one in (server.flavor, flavor or server.flavor)]
    result = tx.execute(
        _INSERT,
        {
            "uuid": uuid,
            "server_id": server.id,
            "project_id": project_id,
            "user_id": user_id,
            "operation_id": operation_id,
            "type": kind,
            "status": status,
            "source_host": server.host,
            "destination_host": asked_for,
            "old_flavor_number": numbers[0],
            "new_flavor_number": numbers[1],
            "created_at_us": now_us,
            "updated_at_us": now_us,
        },
    )
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def update_record(tx: Tx, context: Context, state: Recorded, **values: object) -> None:
    now = context.clock.now_us()
    tx.run(_CHANGE, {**values, "updated_at_us": now, "of_id": state.migration_id})


def record_status(tx: Tx, context: Context, state: Recorded, status: str) -> None:
    """`Saga.record_status` of every move."""
    update_record(tx, context, state, status=status)


_AT_DESTINATION = frozenset(
    {
        "compute_check_can_live_migrate_destination",
        "compute_finish_resize",
        "compute_post_live_migration_at_destination",
        "compute_pre_live_migration",
        "compute_prep_resize",
    }
)


def record_events(tx: Tx, context: Context, state: Moving, events: Sequence[str]) -> None:
    """`Saga.record_events` of every move."""
    hosts = {event: state.destination if event in _AT_DESTINATION else state.source for event in events}
    operations.next_events(tx, state.action_id, hosts, now_us=context.clock.now_us())


def record_unwound(
    tx: Tx, context: Context, state: Moving, failure: Failure, *, status: str = "error", **changes: object
) -> None:
    """A move has been undone: its record and the action have the reason. `changes`: of the server's row."""
    now, text = context.clock.now_us(), failure.private or failure.public
    update_record(tx, context, state, status=status, reason=failure.reason, reason_text=text, ended_at_us=now)
    operations.settle(tx, state.server_id, now_us=now, task_state=None, **changes)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


# -- steps in the transaction that saves them, each beside its undo


def pick(tx: Tx, need: scheduler.Need, asked_for: str | None) -> str:
    """The host asked for, or the best one; every check applies to both. StepFailed with the reason if none fits."""
    choice = hosts_in_memory.pick(tx, need)
    if choice.host is None:
        reason = choice.rejected.get(asked_for) if asked_for is not None else None
        raise StepFailed(reason or "NO_VALID_HOST", boot.NO_VALID_HOST, scheduler.explain(choice))
    return choice.host


def arriving(server: Server, flavor: Flavor) -> dict[str, int]:
    """What a server that gets another flavor needs of its destination.

    Its guest arrives with its old memory and disk, and is remade there before it runs.
    """
    before, after = promises.of(server.flavor).resources, promises.of(flavor).resources
    return {**after, **{name: max(before[name], after[name]) for name in (placement.MEMORY_MB, placement.DISK_GB)}}


def with_room_to_arrive(need: scheduler.Need, server: Server, flavor: Flavor) -> scheduler.Need:
    """`need` with the amounts of `arriving`."""
    room = arriving(server, flavor)
    return msgspec.structs.replace(need, memory_mib=room[placement.MEMORY_MB], disk_gib=room[placement.DISK_GB])


def lessen_share(tx: Tx, context: Context, state: Moving, flavor: Flavor) -> None:
    """The guest is remade at the destination: its share there is the new flavor's from here on."""
    now, resources = context.clock.now_us(), promises.of(flavor).resources
    placement.lessen(tx, consumer=state.server_id, provider=destination(state), resources=resources, now_us=now)


def claim_destination(tx: Tx, context: Context, state: MovingT, *, flavor: Flavor | None = None) -> MovingT:
    """Claim the destination's share for the server (see `arriving`); the migration holds the source's share.

    `flavor`: if the server gets another one.
    """
    assert state.destination is not None
    now = context.clock.now_us()
    server = get_server(tx, state.server_id)
    placement.hand_over(
        tx, source=server.id, target=state.migration_uuid, provider=state.source, now_us=now, target_type="MIGRATION"
    )
    placement.claim(
        tx,
        consumer=server.id,
        provider=state.destination,
        resources=arriving(server, flavor or server.flavor),
        project_id=server.project_id,
        user_id=server.user_id,
        now_us=now,
    )
    update_record(tx, context, state, destination_host=state.destination)
    return state


def release_destination(tx: Tx, context: Context, state: MovingT) -> MovingT:
    now = context.clock.now_us()
    if placement.held(tx, state.migration_uuid):
        placement.release(tx, consumer=state.server_id, now_us=now)
        placement.hand_over(
            tx,
            source=state.migration_uuid,
            target=state.server_id,
            provider=state.source,
            now_us=now,
            target_type="INSTANCE",
        )
    return state


def bind_ports(tx: Tx, context: Context, state: MovingT) -> MovingT:
    """Add an inactive binding on the destination, so that the ports' rules are there before the guest arrives."""
    assert state.destination is not None
    bindings.add_inactive(tx, state.server_id, state.destination)
    return state


def unbind_ports(tx: Tx, context: Context, state: MovingT) -> MovingT:
    if state.destination is not None:
        bindings.remove_inactive(tx, state.server_id, state.destination)
    return state
