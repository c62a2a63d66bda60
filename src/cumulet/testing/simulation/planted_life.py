"""Planted mistakes in operations without a move: images of a disk, rebuilds, rescues, shelving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest import mock

import msgspec

from cumulet.compute import block_devices, boot, drift, rebuild, rescue, shelve, shelved
from cumulet.compute.crash_dump import CRASH_DUMP
from cumulet.compute.model import SHELVED_IMAGE
from cumulet.compute.rebuild import REBUILDING, Rebuilding
from cumulet.compute.rescue import UNRESCUE
from cumulet.compute.shelve import SHELVE, UNSHELVE
from cumulet.compute.shelved import STARTING
from cumulet.compute.store import get_server
from cumulet.conductor.saga import Context, Failure, Final, Step
from cumulet.db.engine import Row, Tx
from cumulet.drivers.simulated import snapshots as simulated
from cumulet.host import messages as m
from cumulet.host.driver import GuestReport, GuestState
from cumulet.image import snapshots
from cumulet.image import store as images
from cumulet.placement import allocations as placement
from cumulet.testing.simulation.planted_places import with_saga


def copying_the_disk_of_another_guest() -> AbstractContextManager[object]:
    """An image holds the disk of another server than it says."""
    real = simulated.empty_disk
    return mock.patch.object(simulated, "empty_disk", lambda size, note: real(size, "another's 0"))


def keeping_an_image_that_was_not_made() -> AbstractContextManager[object]:
    """After a failed operation, its image stays in the state `saving`."""
    return mock.patch.object(snapshots, "give_up", return_value=None)


def keeping_the_share_of_a_shelved_server() -> AbstractContextManager[object]:
    """A server has left its host, and its claim there stays."""

    def record_shelved(tx: Tx, context: Context, state: shelve.Shelving) -> shelve.Shelving:
        with mock.patch.object(placement, "release", return_value=None):
            return shelve.record_shelved(tx, context, state)

    finals = tuple(Final(record_shelved) if f.name == "record_shelved" else f for f in SHELVE.finals)
    return with_saga(SHELVE, finals=finals)


def unshelving_to_the_host_it_was_on() -> AbstractContextManager[object]:
    """An unshelved server claims no share on its host."""

    def claim_host(tx: Tx, context: Context, state: shelve.Unshelving) -> shelve.Unshelving:
        with mock.patch.object(placement, "claim", return_value=None):
            return boot.claim_host(tx, context, state)

    steps = tuple(Step(claim_host, s.undo) if s.name == "claim_host" else s for s in UNSHELVE.steps)
    return with_saga(UNSHELVE, steps=steps)


def dropping_the_image_before_it_runs() -> AbstractContextManager[object]:
    """The image of a shelved server is deleted before the server runs again on its host."""

    async def start_guest(context: Context, state: shelved.Resting) -> shelved.Resting:
        def drop(tx: Tx) -> None:
            image_id = get_server(tx, state.server_id, deleted=True).system_metadata[SHELVED_IMAGE]
            images.delete(tx, image_id, context.clock.now_us())

        await context.record(drop)
        return await shelved.start_guest(context, state)

    return with_saga(STARTING, steps=tuple(Step(start_guest, s.undo) for s in STARTING.steps))


def calling_a_failed_rebuild_active() -> AbstractContextManager[object]:
    """After a failed rebuild the server is recorded as active, whatever state its guest has."""

    def unwound(tx: Tx, context: Context, state: Rebuilding, failure: Failure) -> None:
        rebuild.unwound(tx, context, msgspec.structs.replace(state, observed=GuestState.RUNNING), failure)

    return with_saga(REBUILDING, unwound=unwound)


def recording_the_old_guest_of_a_rebuild() -> AbstractContextManager[object]:
    """A rebuilt server is described as its old guest was."""

    def record(tx: Tx, context: Context, state: Rebuilding) -> Rebuilding:
        return rebuild.record_rebuilt(
            tx, context, msgspec.structs.replace(state, guest=get_server(tx, state.server_id).guest)
        )

    return with_saga(REBUILDING, finals=(Final(record),))


@contextmanager
def overlooking_a_rescue_image() -> Iterator[None]:
    """Neither the saga nor the reconciler checks that the host has taken the rescue disk away."""
    correct_own = drift._correct_own

    async def look(context: Context, state: rescue.Unrescuing) -> rescue.Unrescuing:
        return msgspec.structs.replace(await rescue.look(context, state), rescued=False)

    def correct(tx: Tx, record: Row, report: GuestReport | None, now_us: int) -> drift.Correction | None:
        return correct_own(tx, record, report and msgspec.structs.replace(report, rescued=False), now_us)

    credulous = with_saga(UNRESCUE, steps=tuple(Step(s.do, look) for s in UNRESCUE.steps))
    with credulous, mock.patch.object(drift, "_correct_own", correct):
        yield


def resizing_with_the_old_flavor_s_disks() -> AbstractContextManager[object]:
    """A resize leaves the ephemeral and swap disks of the old flavor."""
    real = block_devices.of
    return mock.patch.object(block_devices, "of", lambda server, flavor=None: real(server))


def insisting_on_a_crash_dump() -> AbstractContextManager[object]:
    """A crash dump is asked for until the guest makes it, even if the guest has ended."""
    told = tuple(Final(step.do) for step in CRASH_DUMP.steps)
    return with_saga(CRASH_DUMP, steps=(), finals=(*told, *CRASH_DUMP.finals))


def taking_an_earlier_guest_for_the_new_one() -> AbstractContextManager[object]:
    """A host that still has a guest of a server leaves it as it is when it is to make the server's guest anew."""
    return mock.patch.object(m.Create, "makes_anew", False)


PLANTS = (
    calling_a_failed_rebuild_active,
    copying_the_disk_of_another_guest,
    dropping_the_image_before_it_runs,
    insisting_on_a_crash_dump,
    keeping_an_image_that_was_not_made,
    keeping_the_share_of_a_shelved_server,
    overlooking_a_rescue_image,
    recording_the_old_guest_of_a_rebuild,
    resizing_with_the_old_flavor_s_disks,
    taking_an_earlier_guest_for_the_new_one,
    unshelving_to_the_host_it_was_on,
)
