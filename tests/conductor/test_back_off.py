"""How long a runner waits before it tries again to save."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from sqlalchemy.exc import OperationalError

from cumulet.conductor.carried import BACK_OFF_FIRST_SECONDS, Carried
from cumulet.conductor.runner import Runner
from cumulet.conductor.saga import Failure, Saga, Status


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0])
def test_while_the_database_is_away_it_waits_for_once_to_twice_the_first_pause(drawn: float) -> None:
    slept: list[float] = []
    tries = 0

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def write_async(fn: object) -> str:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise OperationalError("COMMIT", {}, Exception("the database is away"))
        return "saved"

    clock = SimpleNamespace(sleep=sleep, random=lambda: drawn)
    runner = cast("Runner", SimpleNamespace(db=SimpleNamespace(write_async=write_async), clock=clock))
    operation = cast("Carried[msgspec.Struct]", SimpleNamespace(id="one", status=Status.FORWARD, position=0))
    saga = cast("Saga[msgspec.Struct]", SimpleNamespace(steps=("only",)))
    saved: object = asyncio.run(Runner._save_failure(runner, saga, operation, Failure(reason="IT_FAILED", public="")))
    assert saved == "saved"
    assert slept == [BACK_OFF_FIRST_SECONDS * (1 + drawn)] * 3
