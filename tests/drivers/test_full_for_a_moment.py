"""A disk that is full for a moment, or a machine without a descriptor, ends no work that nobody would begin again."""

from __future__ import annotations

import asyncio
import datetime
import errno
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from cumulet.drivers.qemu import (
    consoles,
    guest_agent,
    live_migration_destination,
    live_migration_source,
    move_authority,
    snapshots,
    suspension,
)
from cumulet.drivers.qemu import host as hosts
from cumulet.drivers.qemu.answers import Migration
from cumulet.drivers.qemu.host import QemuHost, Snapshot
from cumulet.drivers.qemu.hypervisor import Hypervisor, append_bounded
from cumulet.drivers.qemu.record import Authority, Copy, GuestFolder, GuestRecord, Incoming, Intent, Role
from cumulet.drivers.qemu.tls import TransportSecurity
from cumulet.host.disks import SnapshotPhase
from cumulet.host.driver import DriverError, MigrationParameters
from cumulet.host.endpoint import Endpoint, Peer
from tests.drivers.qemu_host import qemu_host
from tests.drivers.test_telling import GUEST
from tests.drivers.test_told_when_plugged import SERVER

FULL = OSError(errno.ENOSPC, "No space left on device")
NO_DESCRIPTOR = OSError(errno.EMFILE, "Too many open files")
HANGS = DriverError("QEMU_HANGS")
PEER = Peer(host="host2", move="move", authority="")
PARAMETERS = MigrationParameters(bandwidth_mib_s=1, downtime_limit_ms=1, copy_disk=True)
INCOMING = Incoming(source=PEER, parameters=PARAMETERS, authority=Authority(move="move", certificate="", key=""))
ARRIVED = GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.RUNNING, incoming=INCOMING)
LISTENS = GuestRecord(guest=GUEST, uid=None, role=Role.INCOMING, intent=Intent.RUNNING, incoming=INCOMING)
COPY = Copy(
    endpoint=Endpoint(address="127.0.0.1", port=1, nbd_port=2, peer=PEER), authority=None, parameters=PARAMETERS
)
SENDS = GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.RUNNING, copy=COPY)
STANDS = GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.RUNNING)


class Process:
    """A guest's, whose migration is what a test says."""

    alive = True

    def __init__(self, migration: str) -> None:
        self.migration = migration

    def change(self) -> asyncio.Event:
        return asyncio.Event()

    async def wait_for_change(self, change: asyncio.Event, timeout_s: float) -> None:
        await asyncio.sleep(0)

    async def migration_status(self) -> Migration:
        return Migration(status=self.migration)


class Fails:
    """Raises what a test says, one thing at each call, then calls `after`."""

    def __init__(self, *problems: Exception, after: Callable[..., object] = lambda *_args, **_more: None) -> None:
        self.left = list(problems)
        self.after = after
        self.calls = 0

    def __call__(self, *args: object, **more: object) -> object:
        self.calls += 1
        if self.left:
            raise self.left.pop(0)
        return self.after(*args, **more)


def host_with(state: Path, record: GuestRecord, process: Process | None) -> QemuHost:
    host = qemu_host(state)
    place = host.folder(SERVER)
    place.path.mkdir(parents=True)
    place.make()
    place.write(record)
    if process is not None:
        host.hypervisors[SERVER] = cast("Hypervisor", process)
    return host


def patched(monkeypatch: pytest.MonkeyPatch, of: object, name: str, fails: Fails, *, waits: bool = False) -> None:
    async def later(*args: object, **more: object) -> object:
        return fails(*args, **more)

    def at_once(*args: object, **more: object) -> object:
        return fails(*args, **more)

    monkeypatch.setattr(of, name, later if waits else at_once)


def test_a_guest_that_arrives_in_post_copy_gets_its_long_certificate_and_its_record_forgets_the_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a cut would cost it its memory, and its NICs would never be put right."""
    process = Process("postcopy-active")

    def arrive(*args: object, **_more: object) -> None:
        assert args[-1] == move_authority.LENT_IN_POST_COPY
        process.migration = "completed"

    lends, writes = Fails(FULL, HANGS, FULL, after=arrive), Fails(FULL, FULL, after=GuestFolder.write)
    host = host_with(tmp_path, ARRIVED, process)
    patched(monkeypatch, TransportSecurity, "lend", lends, waits=True)
    patched(monkeypatch, TransportSecurity, "withdraw", Fails(), waits=True)
    patched(monkeypatch, GuestFolder, "write", writes)
    asyncio.run(live_migration_destination.withdraw_when_whole(host, SERVER))
    assert (lends.calls, writes.calls) == (4, 3)
    assert host.record(SERVER).incoming is None


def test_the_certificate_of_a_destination_that_waits_is_renewed_at_its_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process("none")
    lends = Fails(FULL, HANGS, FULL, after=lambda *_args: setattr(process, "migration", "active"))
    host = host_with(tmp_path, LISTENS, process)
    patched(monkeypatch, TransportSecurity, "lend", lends, waits=True)
    monkeypatch.setattr(move_authority, "LENT", datetime.timedelta())
    asyncio.run(live_migration_destination._renew_while_it_listens(host, SERVER, now=False))
    assert lends.calls == 4


def test_a_copy_is_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Fails(FULL, HANGS, TimeoutError(), after=lambda *_args: True)
    patched(monkeypatch, live_migration_source, "_step", steps, waits=True)
    asyncio.run(live_migration_source.carry(host_with(tmp_path, SENDS, Process("active")), SERVER))
    assert steps.calls == 4


@pytest.mark.parametrize(
    ("record", "begin"),
    [
        (ARRIVED, live_migration_destination.withdraw_later),
        (LISTENS, lambda host, server_id: live_migration_destination.watch(host, server_id, renew_now=True)),
        (SENDS, live_migration_source.carry_on),
        (STANDS, suspension.put_right_later),
        (STANDS, guest_agent.thaw_later),
    ],
    ids=["arrives", "listens", "sends", "stands-still", "is-frozen"],
)
@pytest.mark.parametrize("problem", [NO_DESCRIPTOR, HANGS])
def test_it_begins_anew_and_says_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    record: GuestRecord,
    begin: Callable[[QemuHost, str], None],
    problem: Exception,
) -> None:
    async def story() -> list[asyncio.Task[None]]:
        host = host_with(tmp_path, record, None)
        begin(host, SERVER)
        tasks = list(host._tasks.values())
        looks = Fails(*[problem] * 3 * len(tasks))
        patched(monkeypatch, QemuHost, "hypervisor", looks)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert looks.calls > 3 * len(tasks), "each has looked again, and found no process"
        return tasks

    monkeypatch.setattr(hosts, "AGAIN_SECONDS", 0.0)
    tasks = asyncio.run(story())
    assert [task.exception() for task in tasks] == [None] * len(tasks)
    assert sum("begins anew" in message for message in caplog.messages) == len(tasks)


def test_a_console_s_line_is_carried_on_and_loses_only_what_there_was_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Writer:
        def close(self) -> None: ...

    async def story() -> None:
        host, reader = host_with(tmp_path, STANDS, None), asyncio.StreamReader()
        line = consoles.Line(
            hypervisor=cast("Hypervisor", Process("none")),
            reader=reader,
            writer=cast("asyncio.StreamWriter", Writer()),
        )
        session = line.sessions.open("one", consoles._now())
        carried = asyncio.create_task(consoles.Consoles(host)._carry(SERVER, line))
        for place, words in enumerate((b"lost ", b"kept")):
            reader.feed_data(words)
            assert (await session.read(5 * place, 60.0)).data == words
        assert not line.over
        reader.feed_eof()
        await carried
        assert host.folder(SERVER).console.read_bytes() == b"kept"

    patched(monkeypatch, consoles, "append_bounded", Fails(FULL, after=append_bounded))
    asyncio.run(story())


@pytest.mark.parametrize("problem", [FULL, HANGS])
@pytest.mark.parametrize(("copied", "phase"), [([], SnapshotPhase.DONE), ([FULL], SnapshotPhase.FAILED)])
def test_an_image_whose_copy_cannot_be_removed_is_told_to_have_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    copied: list[Exception],
    phase: SnapshotPhase,
    problem: Exception,
) -> None:
    snapshot = Snapshot(image_id="image")
    patched(monkeypatch, snapshots, "_copy", Fails(*copied), waits=True)
    patched(monkeypatch, snapshots, "_send", Fails(), waits=True)
    patched(monkeypatch, snapshots, "_remove_copy", Fails(problem), waits=True)
    asyncio.run(snapshots._make(host_with(tmp_path, STANDS, None), SERVER, STANDS, snapshot))
    assert snapshot.progress.phase is phase
    assert bool(snapshot.progress.error) is bool(copied)
