"""Planted mistakes about hosts: where servers may be, what they claim there, the reasons given for a host."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import msgspec
import sqlalchemy as sa

from cumulet.compute import affinity, copying, live_migration, moves, preconditions, promises, resize, scheduler
from cumulet.compute.resize import RESIZE
from cumulet.compute.store import get_server, servers
from cumulet.conductor.saga import Context, Saga, Step
from cumulet.db.engine import Tx
from cumulet.host import machine
from cumulet.host.driver import Guest
from cumulet.host.endpoint import Endpoint
from cumulet.processes.parts import SAGAS


def with_saga(saga: Saga[Any], **changes: Any) -> AbstractContextManager[object]:
    return mock.patch.dict(SAGAS, {saga.name: dataclasses.replace(saga, **changes)})


def with_precondition(real: object, planted: object) -> AbstractContextManager[object]:
    changed = tuple(
        msgspec.structs.replace(one, refusal=planted) if one.refusal is real else one
        for one in preconditions.PRECONDITIONS
    )
    return mock.patch.object(preconditions, "PRECONDITIONS", changed)


def counting_only_where_servers_are() -> AbstractContextManager[object]:
    """A group's rule counts the host of a server, and not the destination of its move."""

    def places_of(tx: Tx, server_ids: Sequence[str]) -> dict[str, frozenset[str]]:
        rows = tx.all(sa.select(servers.c.id, servers.c.host).where(servers.c.id.in_(list(server_ids))))
        return {row.id: frozenset({row.host}) for row in rows if row.host is not None}

    return mock.patch.object(affinity, "places_of", places_of)


def claiming_what_it_was_before() -> AbstractContextManager[object]:
    """A resize claims the old flavor's share on the destination."""

    def claim_destination(tx: Tx, context: Context, state: resize.Resizing) -> resize.Resizing:
        return moves.claim_destination(tx, context, state)

    steps = tuple(
        Step(claim_destination, s.undo, s.status) if s.name == "claim_destination" else s for s in RESIZE.steps
    )
    return with_saga(RESIZE, steps=steps)


def knowing_a_server_by_what_it_was_known_by() -> AbstractContextManager[object]:
    """The credentials of a move are made once for a server, and used in all its moves."""

    async def prepare_copy(context: Context, state: Any, *of_the_copy: Any) -> Endpoint:
        return await copying.prepare_copy(
            context, msgspec.structs.replace(state, migration_uuid=state.server_id), *of_the_copy
        )

    planted = contextlib.ExitStack()
    for module in (live_migration, resize):
        planted.enter_context(mock.patch.object(module, "prepare_copy", prepare_copy))
    return planted


def taking_in_what_it_was_before() -> AbstractContextManager[object]:
    """A resize makes its guest at the destination as it was at the source."""

    async def take_in(context: Context, state: resize.Resizing) -> resize.Resizing:
        server = await context.read(lambda tx: get_server(tx, state.server_id, deleted=True))
        await resize.take_in(context, msgspec.structs.replace(state, flavor=server.flavor))
        return msgspec.structs.replace(state, guest=msgspec.convert(server.guest, Guest))

    steps = tuple(Step(take_in, s.undo, s.status) if s.name == "take_in" else s for s in RESIZE.steps)
    return with_saga(RESIZE, steps=steps)


def moving_off_a_host_that_is_down() -> AbstractContextManager[object]:
    """A move does not check first whether its source is down."""
    return with_precondition(preconditions._host_up, lambda *asked: None)


def counting_a_machine_for_each_of_its_hosts() -> AbstractContextManager[object]:
    """Each of several hosts on one machine offers all of it."""
    return mock.patch.object(machine, "part", lambda whole, hosts: whole)


def promising_what_no_host_keeps() -> AbstractContextManager[object]:
    """Extra specs that cannot be met are ignored."""
    return mock.patch.object(promises, "is_kept", return_value=True)


def forgetting_the_traits() -> AbstractContextManager[object]:
    """The scheduler ignores traits."""
    return mock.patch.object(promises, "_traits", return_value=())


def hiding_why_a_host_was_passed_over() -> AbstractContextManager[object]:
    """A refusal without a valid host gives no reasons."""
    return mock.patch.object(scheduler, "explain", return_value="")


PLANTS = (
    claiming_what_it_was_before,
    counting_a_machine_for_each_of_its_hosts,
    counting_only_where_servers_are,
    forgetting_the_traits,
    hiding_why_a_host_was_passed_over,
    knowing_a_server_by_what_it_was_known_by,
    moving_off_a_host_that_is_down,
    promising_what_no_host_keeps,
    taking_in_what_it_was_before,
)
