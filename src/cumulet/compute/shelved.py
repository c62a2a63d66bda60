"""Shelved servers that rest on their hosts, stopped: taken off them, or started again where they are.

Theory of operation. A resting server has its image already, so it can be taken off its host at any moment, also off one
that is down; then it is as if it had been offloaded at once. If its owner has deleted that image, it stays: its disk is
all that there is of it. Until then its disk is where it was, and to unshelve it is to start it; the image goes once it
runs. A server that was suspended keeps its saved memory beside its disk while it rests, and boots without that memory,
as upstream.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import looking, operations, snapshot
from cumulet.compute.model import SHELVED_IMAGE, PowerState, Server, VmState
from cumulet.compute.operations import SERVER, OnHost, command
from cumulet.compute.per_server import PerServer
from cumulet.compute.store import change_owner, get_server, servers
from cumulet.compute.wiring import learn_links
from cumulet.conductor import findings, saga
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step
from cumulet.db.engine import Database, Row, Tx
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.image import store as image_store
from cumulet.network import port_life
from cumulet.placement import allocations as placement
from cumulet.settings import Settings
from cumulet.wake import Wake

SINCE_US = "shelved_at_us"
"""Key of a server's system metadata: the moment since when it rests, in microseconds."""
KEYS = (SINCE_US, SHELVED_IMAGE)
"""What a server's system metadata has while it is shelved, or could not be unshelved, and never otherwise."""


class Resting(OnHost, frozen=True, kw_only=True):
    """State of both sagas. `image_id`: the image to remove at the end. `observed`: the guest after a failure."""

    image_id: str | None = None
    observed: GuestState | None = None


def offload(tx: Tx, server_id: str, *, old: str, generation: int, now_us: int, **changes: object) -> int:
    """Take a server off its host `old`, with its share and bindings; its new generation. Conflict: it has changed."""
    generation = change_owner(tx, server_id, old=old, new=None, generation=generation, now_us=now_us)
    placement.release(tx, consumer=server_id, now_us=now_us)
    port_life.unbind_server(tx, server_id)
    operations.settle(
        tx,
        server_id,
        now_us=now_us,
        vm_state=VmState.SHELVED_OFFLOADED,
        power_state=PowerState.SHUTDOWN,
        task_state=None,
        **operations.NO_FAULT,
        **changes,
    )
    return generation


def let_image_go(tx: Tx, server_id: str, now_us: int) -> str | None:
    """It is made of something else from now on, or runs again: delete the image that it was shelved to; its id.

    Its data goes with `snapshot.remove_image`. None: it has no such image, or that stays: because the server was
    rebuilt from it, or because it is protected.
    """
    server = get_server(tx, server_id, deleted=True)
    image_id = server.system_metadata.get(SHELVED_IMAGE)
    if image_id is None:
        return None
    kept = operations.metadata_without(tx, server_id, *KEYS)
    operations.settle(tx, server_id, now_us=now_us, system_metadata=kept)
    if image_id == server.image_id:
        return None
    return image_id if image_store.delete(tx, image_id, now_us) else None


def has_image(tx: Tx, server: Server) -> bool:
    """Whether a shelved server can be made from its image again."""
    image_id = server.system_metadata.get(SHELVED_IMAGE)
    image = None if image_id is None else image_store.data_of(tx, image_id)
    return image is not None and image.status == "active"


def why(failure: Failure, *, now_us: int) -> dict[str, object]:
    """Columns of the record of a server that stays shelved: why it was not unshelved, in words for its owner."""
    in_words = operations.in_error(failure.public, now_us=now_us, failure=failure)
    return {column: value for column, value in in_words.items() if column in operations.NO_FAULT}


# -- taken off


async def remove_guest(context: Context, state: Resting) -> Resting:
    """If the host is down, the guest is removed when the host is back (`compute.drift`)."""
    await operations.unless_down(context, state.host, m.Destroy(**command(context, state)))
    return state


def record_offloaded(tx: Tx, context: Context, state: Resting) -> Resting:
    now = context.clock.now_us()
    metadata = operations.metadata_without(tx, state.server_id, SINCE_US)
    generation = offload(
        tx, state.server_id, old=state.host, generation=state.generation, now_us=now, system_metadata=metadata
    )
    operations.finish_events(tx, state.action_id, now_us=now)
    return msgspec.structs.replace(state, generation=generation)


def never_unwound(tx: Tx, context: Context, state: Resting, failure: Failure) -> None:
    raise AssertionError("taking a shelved server off its host has no step that is undone")


OFFLOADING = Saga(
    name="offload",
    kind=SERVER,
    state=Resting,
    steps=(),
    # Its image is whole: from the first moment we only go forward.
    finals=(Final(remove_guest), Final(record_offloaded)),
    unwound=never_unwound,
)


# -- started again


async def start_guest(context: Context, state: Resting) -> Resting:
    """A suspended guest boots, too. Only for that an agent of the version before is asked what it does not know."""
    seen = await operations.observe(context, state.host, state.server_id)
    start = m.Start(**command(context, state), drop_saved=seen is GuestState.SUSPENDED)
    await context.hosts.send(state.host, start)
    return state


async def stop_guest(context: Context, state: Resting) -> Resting:
    """The undo: stop it, so that it rests again; a suspended one rests already. Then look what the guest is."""
    try:
        await operations.unless_gone(context, state.host, m.Stop(**command(context, state), grace_seconds=0.0))
    except m.VerbFailed:
        if await operations.observe(context, state.host, state.server_id) is not GuestState.SUSPENDED:
            raise
    await learn_links(context, state.host, state.server_id)
    observed = await looking.look(context, state)
    return msgspec.structs.replace(state, observed=observed)


async def look(context: Context, state: Resting) -> Resting:
    await learn_links(context, state.host, state.server_id)
    return state


def record_started(tx: Tx, context: Context, state: Resting) -> Resting:
    now = context.clock.now_us()
    operations.settle(
        tx,
        state.server_id,
        now_us=now,
        vm_state=VmState.ACTIVE,
        power_state=PowerState.RUNNING,
        task_state=None,
        launched_at_us=now,
        **operations.NO_FAULT,
    )
    image_id = let_image_go(tx, state.server_id, now)
    operations.finish_events(tx, state.action_id, now_us=now)
    return msgspec.structs.replace(state, image_id=image_id)


def still_resting(tx: Tx, context: Context, state: Resting, failure: Failure) -> None:
    now = context.clock.now_us()
    seen = operations.if_observed(state.observed, VmState.SHELVED) | why(failure, now_us=now)
    operations.settle(tx, state.server_id, now_us=now, task_state=None, **seen)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


STARTING = Saga(
    name="unshelve-in-place",
    kind=SERVER,
    state=Resting,
    steps=(Step(start_guest, undo=stop_guest),),
    # The guest runs. From here on we only go forward.
    finals=(Final(look), Final(record_started)),
    unwound=still_resting,
    afterwards=snapshot.remove_image,
)


# -- by themselves


_RESTING = sa.select(servers.c.id, servers.c.host, servers.c.system_metadata).where(
    servers.c.vm_state == VmState.SHELVED, servers.c.task_state.is_(None), servers.c.deleted_at_us.is_(None)
)
_STILL_RESTING = _RESTING.where(servers.c.id == sa.bindparam("of_server"))


class AutomaticOffload(PerServer):
    """Takes servers off their hosts once they have rested there for `shelved_offload_time`."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings, wake: Wake) -> None:
        self._after_s = settings.shelved_offload_time
        every = min(60.0, max(1.0, self._after_s / 2)) if self._after_s > 0 else None
        super().__init__(db=db, name="automatic-offload", clock=clock, seconds=every)
        self._wake = wake

    def find(self, tx: Tx) -> Sequence[str]:
        return [row.id for row in tx.all(_RESTING, {}) if self._long_enough(row)]

    def _long_enough(self, row: Row) -> bool:
        since = int(row.system_metadata.get(SINCE_US, "0"))
        return since + self._after_s * 1_000_000 <= self._clock.now_us()

    def see_to(self, tx: Tx, server_id: str) -> None:
        row = tx.first(_STILL_RESTING, {"of_server": server_id})
        if row is None or not self._long_enough(row) or saga.running_operation(tx, server_id) is not None:
            return
        server = get_server(tx, server_id)
        if has_image(tx, server):
            operations.begin_unasked(
                tx,
                self._wake,
                self._clock,
                server,
                OFFLOADING,
                lambda *begun: Resting(**operations.on_host(*begun)),
                action="shelveOffload",
                event="compute_shelve_offload_instance",
                task_state="shelving_offloading",
                in_name_of_owner=True,
            )
            finding, done = "shelved-long-enough", "taken off its host"
        else:
            finding, done = "shelved-image-gone", "left alone: its disk is all that there is of it"
        now_us = self._clock.now_us()
        findings.note(tx, "automatic-offload", finding, done, now_us=now_us, host=row.host, subject=server_id)
