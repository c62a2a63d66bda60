"""Verbs about guests' disks: images made of them, and booting from another. See `host.messages` for what a verb is."""

from __future__ import annotations

from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.host.driver import Guest
from cumulet.host.messages import Command, OnHost, Question
from cumulet.host.patience import seconds_to_make


class BeginSnapshot(Command[None], frozen=True, tag="begin-snapshot"):
    image_id: str
    quiesce: bool = False

    async def do(self, host: OnHost) -> None:
        await host.driver.begin_snapshot(self.server_id, image_id=self.image_id, quiesce=self.quiesce)


class EndSnapshot(Command[None], frozen=True, tag="end-snapshot"):
    needs_lease = False

    async def do(self, host: OnHost) -> None:
        await host.driver.end_snapshot(self.server_id)


class AskSnapshot(Question[SnapshotProgress], frozen=True, tag="snapshot-progress"):
    server_id: str
    image_id: str
    wait_seconds: float
    seen: SnapshotPhase

    async def do(self, host: OnHost) -> SnapshotProgress:
        return await host.driver.snapshot_progress(
            self.server_id, image_id=self.image_id, wait_seconds=self.wait_seconds, seen=self.seen
        )


class Rescue(Command[None], frozen=True, tag="rescue"):
    lets_run = True
    guest: Guest

    @property
    def work_seconds(self) -> float | None:
        return seconds_to_make(self.guest)

    async def do(self, host: OnHost) -> None:
        await host.driver.rescue(self.guest)


class Unrescue(Command[None], frozen=True, tag="unrescue"):
    lets_run = True
    run: bool

    async def do(self, host: OnHost) -> None:
        await host.driver.unrescue(self.server_id, run=self.run)


class AskRescued(Question[bool], frozen=True, tag="rescued"):
    server_id: str

    async def do(self, host: OnHost) -> bool:
        return await host.driver.rescued(self.server_id)
