"""What an agent knows of a QEMU process that it has found, from answers and events."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.process import identify

SOCKET = Path("monitor.sock")
"""Relative: the test's folder as a whole may be too long for a socket's name."""


@pytest.fixture(autouse=True)
def _in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("event", "known"),
    [(b"", "postcopy-active"), (b'{"event": "MIGRATION", "data": {"status": "completed"}}\n', "completed")],
)
def test_an_event_that_comes_with_the_answer_is_newer_than_the_answer(event: bytes, known: str) -> None:
    async def monitor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {"version": {}, "capabilities": []}}\n')
        while line := await reader.readline():
            command = json.loads(line)
            asked = command["execute"] == "query-migrate"
            answer = {"return": {"status": "postcopy-active"} if asked else {}, "id": command["id"]}
            # In one piece, so that both are read before whoever asked goes on.
            writer.write(json.dumps(answer).encode() + b"\n" + (event if asked else b""))
        writer.close()

    async def story() -> None:
        server = await asyncio.start_unix_server(monitor, str(SOCKET))
        itself = identify(os.getpid())
        assert itself is not None
        hypervisor = Hypervisor(process=itself, monitor=SOCKET)
        await hypervisor.learn_migration()
        assert hypervisor.migration == known
        await hypervisor.let_go()
        server.close()

    asyncio.run(story())


def test_a_capability_that_no_later_use_would_switch_off_is_not_switched_on() -> None:
    async def story() -> None:
        itself = identify(os.getpid())
        assert itself is not None
        with pytest.raises(ValueError, match="multifd"):
            await Hypervisor(process=itself, monitor=SOCKET).migrate_set_capabilities(["events", "multifd"])

    asyncio.run(story())
