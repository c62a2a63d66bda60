"""What every driver does, verb by verb: for each state of a guest, what a verb answers and what state it leaves.

`tests/drivers/test_contract.py` holds the simulated driver to it, `tests/qemu/test_contract.py` the real one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.drivers.qemu import move_authority
from cumulet.host.devices import Devices, needed
from cumulet.host.disks import SnapshotPhase
from cumulet.host.driver import Driver, DriverError, Guest, GuestState, MigrationParameters, MigrationPhase, Nic
from cumulet.host.endpoint import Peer
from cumulet.host.telling import Told

NEXT_SECONDS = 20.0


@dataclass(kw_only=True)
class Pair:
    """Two hosts, and a guest that runs on the source. `slow`: parameters of a copy that does not end during a test.
    `end`: end the process of a guest, as a crash or its host's failure does. `power_off`: have a guest power itself
    off; `fail`: have its machine fail. A real hypervisor keeps its process then."""

    source: Driver
    destination: Driver
    guest: Guest
    parameters: MigrationParameters
    slow: MigrationParameters
    end: Callable[[Driver, str], Awaitable[None]]
    power_off: Callable[[Driver, str], Awaitable[None]]
    fail: Callable[[Driver, str], Awaitable[None]]
    endpoint: object = None
    move: str = ""
    moves: Iterator[int] = field(default_factory=itertools.count)

    @property
    def id(self) -> str:
        return self.guest.server_id

    async def prepared(self, parameters: MigrationParameters | None = None) -> Any:
        self.move = f"move{next(self.moves)}"
        source = await self.source.prepare_outgoing(self.id, move=self.move)
        self.endpoint = await self.destination.prepare_incoming(
            self.guest, source=source, parameters=parameters or self.parameters
        )
        return self.endpoint

    async def copied(self) -> None:
        """The guest's state has left the source and stands still at both sides."""
        await self.source.start_copy(self.id, await self.prepared(), self.parameters)
        seen = MigrationPhase.SETUP
        while not seen.ended:
            seen = (await self.source.copy_progress(self.id, wait_seconds=NEXT_SECONDS, seen=seen)).phase
        assert seen is MigrationPhase.COMPLETED, seen


ANOTHER = move_authority.new_authority("source", "move").certificate
"""The certificate of a source that nobody has prepared."""
Make = Callable[[Pair], Awaitable[Driver]]
Do = Callable[[Driver, Pair], Awaitable[object]]


async def absent(pair: Pair) -> Driver:
    return pair.destination


async def running(pair: Pair) -> Driver:
    return pair.source


async def paused(pair: Pair) -> Driver:
    await pair.source.pause(pair.id)
    return pair.source


async def suspended(pair: Pair) -> Driver:
    await pair.source.suspend(pair.id)
    return pair.source


async def stopped(pair: Pair) -> Driver:
    await pair.source.stop(pair.id, grace_seconds=0.0)
    return pair.source


async def standing_by(pair: Pair) -> Driver:
    await stopped(pair)
    await pair.source.stand_by(pair.id)
    return pair.source


async def copying(pair: Pair) -> Driver:
    await pair.source.start_copy(pair.id, await pair.prepared(pair.slow), pair.slow)
    return pair.source


async def incoming(pair: Pair) -> Driver:
    await pair.prepared()
    return pair.destination


async def handed_over(pair: Pair) -> Driver:
    await pair.copied()
    return pair.source


async def arrived(pair: Pair) -> Driver:
    await pair.copied()
    return pair.destination


async def crashed(pair: Pair) -> Driver:
    await pair.end(pair.source, pair.id)
    return pair.source


async def powered_off(pair: Pair) -> Driver:
    await pair.power_off(pair.source, pair.id)
    return pair.source


async def failed(pair: Pair) -> Driver:
    await pair.fail(pair.source, pair.id)
    return pair.source


async def died_on_arrival(pair: Pair) -> Driver:
    """Its host failed between the commit of the move and the word to run. The server is its host's."""
    await pair.copied()
    await pair.end(pair.destination, pair.id)
    return pair.destination


STATES: dict[str, Make] = {
    make.__name__: make
    for make in (
        absent,
        running,
        paused,
        suspended,
        stopped,
        standing_by,
        copying,
        incoming,
        handed_over,
        arrived,
        crashed,
        died_on_arrival,
        powered_off,
        failed,
    )
}
VERBS: dict[str, Do] = {
    "create": lambda d, p: d.create(p.guest),
    "create, not running": lambda d, p: d.create(p.guest, run=False),
    "destroy": lambda d, p: d.destroy(p.id),
    "start": lambda d, p: d.start(p.id),
    "start, saved memory dropped": lambda d, p: d.start(p.id, drop_saved=True),
    "stop": lambda d, p: d.stop(p.id, grace_seconds=0.0),
    "reboot": lambda d, p: d.reboot(p.id, hard=True),
    "pause": lambda d, p: d.pause(p.id),
    "unpause": lambda d, p: d.unpause(p.id),
    "suspend": lambda d, p: d.suspend(p.id),
    "resume": lambda d, p: d.resume(p.id),
    "unplug": lambda d, p: d.unplug(p.id, "no-such-port"),
    "console_output": lambda d, p: d.console_output(p.id, max_bytes=100),
    "diagnostics": lambda d, p: d.diagnostics(p.id),
    "prepare_outgoing": lambda d, p: d.prepare_outgoing(p.id, move=p.move),
    "prepare_incoming": lambda d, p: d.prepare_incoming(
        p.guest, source=Peer(host="host1", move="move", authority=ANOTHER), parameters=p.parameters
    ),
    "resume_destination": lambda d, p: d.resume_destination(p.id),
    "arrival": lambda d, p: d.arrival(p.id),
    "recover_incoming": lambda d, p: d.recover_incoming(p.id),
    "give_up_memory": lambda d, p: d.give_up_memory(p.id),
    "copy_progress": lambda d, p: d.copy_progress(p.id, wait_seconds=0.0, seen=MigrationPhase.NONE),
    "force_complete": lambda d, p: d.force_complete(p.id),
    "begin_post_copy": lambda d, p: d.begin_post_copy(p.id),
    "cancel_copy": lambda d, p: d.cancel_copy(p.id),
    "resume_source": lambda d, p: d.resume_source(p.id),
    "stand_by": lambda d, p: d.stand_by(p.id),
    "stand_down": lambda d, p: d.stand_down(p.id),
    "take_in": lambda d, p: d.take_in(p.guest),
    "begin_snapshot": lambda d, p: d.begin_snapshot(p.id, image_id=p.id),
    "snapshot_progress": lambda d, p: d.snapshot_progress(
        p.id, image_id=p.id, wait_seconds=0.0, seen=SnapshotPhase.NONE
    ),
    "end_snapshot": lambda d, p: d.end_snapshot(p.id),
    "inject_nmi": lambda d, p: d.inject_nmi(p.id),
    "set_password": lambda d, p: d.set_password(p.id, user="root", password="x"),
    "rescue": lambda d, p: d.rescue(p.guest),
    "unrescue": lambda d, p: d.unrescue(p.id, run=True),
    "rescued": lambda d, p: d.rescued(p.id),
    "tell": lambda d, p: d.tell(p.id, Told(revision=1, documents={})),
}


Outcome = tuple[str, str]
"""What a verb answers - the phase it tells, "done" or "refused" - and the state it leaves the guest in."""
TABLE: dict[str, dict[str, Outcome]] = msgspec.json.decode(
    (Path(__file__).parents[1] / "golden" / "drivers.json").read_bytes(), type=dict[str, dict[str, Outcome]]
)
"""State -> verb -> outcome. Whether a guest has arrived is asked of a destination only."""
OVER = {"powered_off", "failed"}
ASKED_OF_ITS_PROCESS = {"arrival", "copy_progress", "cancel_copy", "resume_destination"}
"""What moves ask of a guest that is over but has a process: a real one answers of its last move, if there was one."""
TWICE = 2
"""Every verb is idempotent: asked again, it answers the same and changes nothing more."""


async def _outcome(driver: Driver, pair: Pair, do: Do) -> Outcome:
    try:
        answer = await do(driver, pair)
    except DriverError:
        said = "refused"
    else:
        phase = getattr(answer, "phase", answer)
        said = phase.value if isinstance(phase, MigrationPhase) else "done"
    return said, (await driver.observe(pair.id)).value


async def broken(pair: Pair, state: str, verbs: Iterable[str]) -> list[str]:
    """Bring the guest into a state and ask each of `verbs` twice. Returns the differences from the table, in words."""
    driver = await STATES[state](pair)
    wrong = []
    for verb in verbs:
        came = [await _outcome(driver, pair, VERBS[verb]) for _ in range(TWICE)]
        if came != [TABLE[state][verb]] * TWICE:
            wrong.append(f"{state}, {verb}: expected {TABLE[state][verb]} twice, came {came}")
    return wrong


QUESTIONS = frozenset(
    {"console_output", "diagnostics", "arrival", "copy_progress", "snapshot_progress", "rescued", "tell"}
)
"""Verbs that only ask, or change only what is answered beside the guest."""
ON_ITS_WAY = frozenset({"copying", "incoming", "handed_over", "arrived"})
"""States in which a verb that is done may change how far the guest is, though it looks as before."""
UNSEEN_CHANGES = frozenset(
    {"reboot", "rescue", "inject_nmi", "begin_snapshot", "prepare_outgoing", "stand_by", "take_in"}
)
"""Verbs that do something to a guest even where it looks as before. Others have then found nothing to do."""


def shared(state: str) -> list[str]:
    """Verbs that leave the guest to others, so that one guest is asked all of them: first what only asks, then what is
    refused or, at a guest that is not on its way, finds nothing to do; then it is destroyed."""
    outcomes = TABLE[state]
    as_before = outcomes["snapshot_progress"][1]

    def leaves_alone(verb: str) -> bool:
        said, after = outcomes[verb]
        idle = state not in ON_ITS_WAY and verb not in UNSEEN_CHANGES and after == as_before
        return verb != "destroy" and verb not in QUESTIONS and (said == "refused" or idle)

    return [verb for verb in outcomes if verb in QUESTIONS] + [*filter(leaves_alone, outcomes), "destroy"]


async def keeps_devices(driver: Driver, guest: Guest) -> None:
    """A guest is made with its devices. One that the host does not offer is refused before anything is done.

    `guest`: one that the host does not have.
    """
    chosen = Devices(disk_bus="sata", cdrom_bus="sata", nic_model="e1000", video_model="none")
    assert {feature for _, feature in needed(chosen)} <= set((await driver.facts()).features)
    unknown = msgspec.structs.replace(guest, devices=Devices(disk_bus="fdc"))
    with pytest.raises(DriverError):
        await driver.create(unknown, run=False)
    assert await driver.observe(guest.server_id) is GuestState.ABSENT
    made = await driver.create(msgspec.structs.replace(guest, devices=chosen), run=False)
    assert (made.devices, made.screen) == (chosen, False)
    with pytest.raises(DriverError):
        await driver.rescue(msgspec.structs.replace(made, devices=Devices(rescue_bus="fdc")))
    assert not await driver.rescued(guest.server_id)
    assert await driver.observe(guest.server_id) is GuestState.STOPPED
    await driver.destroy(guest.server_id)


async def tells_how_far_a_copy_is(driver: Driver, server_id: str) -> None:
    """While a stopped guest's disk is copied for an image, the host tells more and more bytes, and never fewer."""
    await driver.begin_snapshot(server_id, image_id=server_id)
    told: list[int] = []
    async with asyncio.timeout(NEXT_SECONDS):
        while len(set(told)) < 4:
            progress = await driver.snapshot_progress(
                server_id, image_id=server_id, wait_seconds=0.02, seen=SnapshotPhase.COPYING
            )
            assert progress.phase is SnapshotPhase.COPYING, (progress, told)
            told.append(progress.bytes_done)
    assert told == sorted(told)
    await driver.end_snapshot(server_id)


async def has_its_ports_changed_when_it_is_over(pair: Pair, state: str) -> None:
    """It gets a port, and loses it again, as any guest without a process does. Its next process has what is left."""
    driver = await STATES[state](pair)
    before = await driver.observe(pair.id)
    nic = Nic(port_id="a-port", network_id="a-network", mac="fa:16:3e:00:00:01", slot=0)
    await driver.plug(pair.id, nic)
    (report,) = await driver.guests()
    assert (report.state, report.ports) == (before, (nic.port_id,))
    await driver.unplug(pair.id, nic.port_id)
    (report,) = await driver.guests()
    assert (report.state, report.ports) == (before, ())
    await driver.start(pair.id)
    assert await driver.observe(pair.id) is GuestState.RUNNING
