"""How long the making of an image is waited for: as long as it moves, and no longer once it stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from cumulet.compute import snapshot
from cumulet.conductor.saga import Context, StepFailed
from cumulet.host import disk_messages as disk
from cumulet.host import messages as m
from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.host.driver import Guest
from cumulet.host.images import WAIT_SECONDS
from cumulet.host.patience import seconds_for
from cumulet.settings import Settings

PATIENCE, TAKES = 10.0, 45.0
STATE = snapshot.Snapshot(server_id="s", operation_id="o", action_id=1, generation=2, host="host1", image_id="i")


DISK = Guest(server_id="s", name="s", vcpus=1, memory_mib=1, disk_gib=1024, image=None)
DISK_SECONDS = seconds_for(1 << 40)


class Copying:
    """A context of a host that answers by the clock; a question takes it a second. The image is there after `TAKES`.

    `sends_at`: from then on it sends what it has copied. `place_at`: from then on it is read.
    """

    def __init__(self, done: Callable[[float], int], *, sends_at: float = inf, place_at: float = inf) -> None:
        self.now = 0.0
        self.takes = TAKES
        self.silent = False
        self.place_at = place_at
        self._sends_at = sends_at
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
        if self.silent:
            raise m.HostUnreachable("nothing")
        phase = SnapshotPhase.SENDING if self.now >= self._sends_at else SnapshotPhase.COPYING
        return SnapshotProgress(phase=phase, bytes_done=self._done(self.now))

    async def wait_for_wish(self, seconds: float) -> None:
        self.now += seconds

    async def read(self, fn: object) -> object:
        return SimpleNamespace(image_properties={}, guest=msgspec.to_builtins(DISK))

    async def record(self, fn: object) -> object:
        return SimpleNamespace(abort=False)


@pytest.fixture(autouse=True)
def _records(monkeypatch: pytest.MonkeyPatch) -> None:
    async def status(context: Copying, state: object) -> str:
        if context.now >= context.takes:
            return "active"
        return "saving" if context.now >= context.place_at else "queued"

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


def given_up_at(copying: Copying, words: str) -> float:
    with pytest.raises(StepFailed, match=words):
        asyncio.run(snapshot.make_image(cast("Context", copying), STATE))
    return copying.now


def test_one_whose_host_says_nothing_of_a_tool_that_copies_has_the_time_that_the_host_gives_it() -> None:
    copying = Copying(lambda now: 0)
    copying.takes = DISK_SECONDS - 2
    asyncio.run(snapshot.make_image(cast("Context", copying), STATE))
    copying = Copying(lambda now: 0)
    copying.takes = inf
    assert DISK_SECONDS <= given_up_at(copying, "at 0 bytes") <= DISK_SECONDS + PATIENCE + 2


@pytest.mark.parametrize("buffered", [0, 4096])
def test_one_that_waits_for_its_place_is_waited_for_and_then_has_to_move(buffered: int) -> None:
    copying = Copying(lambda now: buffered, sends_at=2.0, place_at=WAIT_SECONDS - 10)
    copying.takes = WAIT_SECONDS - 3
    asyncio.run(snapshot.make_image(cast("Context", copying), STATE))
    copying = Copying(lambda now: buffered, sends_at=2.0, place_at=1000.0)
    copying.takes = inf
    assert 1000 + PATIENCE <= given_up_at(copying, f"at {buffered} bytes") <= 1000 + PATIENCE + 3
    copying = Copying(lambda now: buffered, sends_at=2.0)
    copying.takes = inf
    assert WAIT_SECONDS <= given_up_at(copying, f"at {buffered} bytes") <= WAIT_SECONDS + PATIENCE + 3


@pytest.mark.parametrize("sends_at", [2.0, inf])
def test_a_host_that_is_silent_is_given_up_as_soon_as_before(sends_at: float) -> None:
    copying = Copying(lambda now: 0, sends_at=sends_at)
    copying.takes = inf
    ask = copying.send

    async def send(host: str, message: m.Message[object], *, seconds: float | None = None) -> object:
        copying.silent = copying.now > 100
        return await ask(host, message, seconds=seconds)

    copying.send = send  # type: ignore[method-assign]
    assert 100 + PATIENCE <= given_up_at(copying, "nothing") <= 100 + PATIENCE + 5
