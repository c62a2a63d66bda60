"""Agents of this machine's hosts are kept running."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from cumulet.fleet import local_agents
from cumulet.fleet.local_agents import AgentPlace, AgentProcesses


def test_an_agent_that_cannot_be_started_for_a_while_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = asyncio.Event()
    tries: list[int] = []
    start = asyncio.create_subprocess_exec

    async def fails_twice(*command: str, **options: Any) -> asyncio.subprocess.Process:
        tries.append(len(tries))
        if len(tries) < 3:
            raise OSError(24, "Too many open files")
        process = await start(*command, **options)
        started.set()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fails_twice)
    monkeypatch.setattr(local_agents, "RESTART_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(AgentPlace, "command", lambda _: [sys.executable, "-c", "input()"])
    place = AgentPlace(name="host1", state=tmp_path, tls=tmp_path, socket=tmp_path / "s", images=tmp_path / "i")

    async def story() -> None:
        keeping = asyncio.create_task(AgentProcesses([place])._keep(place))
        async with asyncio.timeout(30):
            await started.wait()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(story())
    assert tries == [0, 1, 2]
