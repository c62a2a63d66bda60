"""The conductor's sweep comes again, whatever became of the last one."""

from __future__ import annotations

import pytest

import cumulet.testing
from cumulet.conductor.runner import Runner


def test_a_sweep_that_fails_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with cumulet.testing.cloud() as cloud:
        sweeps: list[int] = []
        swept = Runner.sweep

        async def sweep(runner: Runner) -> None:
            sweeps.append(len(sweeps))
            if len(sweeps) == 1:
                raise ValueError("a row that this version cannot read")
            await swept(runner)

        monkeypatch.setattr(Runner, "sweep", sweep)
        admin = cloud.persona("admin")
        cloud.clock.advance(cloud.embedded.settings.lease_seconds)
        admin.wait("a sweep that fails", lambda: sweeps)
        cloud.clock.advance(cloud.embedded.settings.lease_seconds)
        admin.wait("another", lambda: len(sweeps) >= 2)
