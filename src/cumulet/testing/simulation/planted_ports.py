"""Planted mistakes about ports that are attached and detached."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from unittest import mock

from cumulet.compute import boot, drift, interfaces, operations
from cumulet.compute import hosts as host_records
from cumulet.compute.boot import BOOT, Boot
from cumulet.compute.interfaces import ATTACHMENT, PortChange
from cumulet.conductor.saga import Context, Failure, Final, nothing
from cumulet.db.engine import Tx
from cumulet.host.nics import without_tags
from cumulet.network import for_compute, port_status
from cumulet.testing.simulation.planted_places import with_saga


def forgetting_what_was_plugged_in() -> AbstractContextManager[object]:
    """An attachment does not change the guest's description, so the next move loses the device."""

    def record_attached(tx: Tx, context: Context, state: PortChange) -> PortChange:
        port_status.record_plugged(tx, state.nic.port_id)
        operations.finish_events(tx, state.action_id, now_us=context.clock.now_us())
        return state

    return with_saga(ATTACHMENT, finals=(Final(record_attached),))


def leaving_the_device_in_the_guest() -> AbstractContextManager[object]:
    """The undo of an attachment frees the port although the guest may have it."""
    steps = tuple(
        dataclasses.replace(step, undo=nothing) if step.do is interfaces.plug_in else step for step in ATTACHMENT.steps
    )
    return with_saga(ATTACHMENT, steps=steps)


def never_comparing_ports() -> AbstractContextManager[object]:
    """A host that was down during the undo of an attachment is never told."""
    return mock.patch.object(drift, "_correct_ports", return_value=None)


def leaving_tags_behind() -> AbstractContextManager[object]:
    """Every destination of a move is taken for a host that does not understand tags."""
    return mock.patch.object(host_records, "as_told", lambda _tx, _host, guest: without_tags(guest))


def keeping_the_ports_of_a_failed_boot() -> AbstractContextManager[object]:
    """A server that found no host has its ports until it is deleted."""

    def unwound(tx: Tx, context: Context, state: Boot, failure: Failure) -> None:
        with mock.patch.object(for_compute, "release"):
            boot.unwound(tx, context, state, failure)

    return with_saga(BOOT, unwound=unwound)


PLANTS = (
    keeping_the_ports_of_a_failed_boot,
    leaving_tags_behind,
    forgetting_what_was_plugged_in,
    leaving_the_device_in_the_guest,
    never_comparing_ports,
)
