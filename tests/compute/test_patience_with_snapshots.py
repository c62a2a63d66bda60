"""How long the making of an image is waited for: as long as it moves, and no longer once it stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cumulet.compute import snapshot
from cumulet.conductor.saga import Context, StepFailed
from cumulet.host import disk_messages as disk
from cumulet.host import messages as m
from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.settings import Settings

PATIENCE, TAKES = 10.0, 45.0
STATE = snapshot.Snapshot(server_id="s", operation_id="o", action_id=1, generation=2, host="host1", image_id="i")


class Copying:
    """A context of a host that answers by the clock; a question takes it a second. The image is there after `TAKES`."""

    def __init__(self, done: Callable[[float], int]) -> None:
        self.now = 0.0
        self.clock = self.hosts = self
        self.step = 1
        self.settings = Settings(
            state_dir=Path("/nonexistent"), database_url="", migration_progress_timeout_seconds=PATIENCE
        )
        self._done = done

    def monotonic(self) -> float:
        return self.now

    async def send(self, host: str, message: m.Message[object], *, seconds: float | None = None) -> object:
        if not isinstance(message, disk.AskSnapshot):
            return None
        self.now += 1.0
        return SnapshotProgress(phase=SnapshotPhase.COPYING, bytes_done=self._done(self.now))

    async def read(self, fn: object) -> object:
        return SimpleNamespace(image_properties={})

    async def record(self, fn: object) -> object:
        return SimpleNamespace(abort=False)


@pytest.fixture(autouse=True)
def _records(monkeypatch: pytest.MonkeyPatch) -> None:
    async def status(context: Copying, state: object) -> str:
        return "active" if context.now >= TAKES else "queued"

    monkeypatch.setattr(snapshot, "_status", status)


def test_one_that_moves_is_waited_for_however_long_it_takes() -> None:
    copying = Copying(lambda now: int(now / (PATIENCE - 2)))
    asyncio.run(snapshot.make_image(cast("Context", copying), STATE))
    assert copying.now == TAKES


def test_one_that_stands_still_is_given_up_after_a_while() -> None:
    copying = Copying(lambda now: min(int(now), 20))
    with pytest.raises(StepFailed, match="at 20 bytes"):
        asyncio.run(snapshot.make_image(cast("Context", copying), STATE))
    assert 20 + PATIENCE <= copying.now <= 20 + PATIENCE + 2
