"""The monitor's client against a monitor that answers as told: what is owed is counted, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from cumulet.drivers.qemu.qmp import Qmp

SOCKET = Path("monitor.sock")
"""Relative: the test's folder as a whole may be too long for a socket's name."""
ANSWERED = b'{"event": "ANSWERED", "data": {}}\n'


@pytest.fixture(autouse=True)
def _in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def monitor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers everything but `hang`, which is answered with the next command; tells of each answer by an event."""
    writer.write(b'{"QMP": {"version": {}, "capabilities": []}}\n')
    owed = b""
    while line := await reader.readline():
        command = json.loads(line)
        answer = json.dumps({"return": {}, "id": command["id"]}).encode() + b"\n"
        if command["execute"] == "hang":
            owed += answer
        else:
            writer.write(owed + answer + ANSWERED)  # At once, so that it is read at once.
            owed = b""
    writer.close()


def test_an_answer_that_comes_as_its_asker_gives_up_is_not_owed() -> None:
    async def story() -> None:
        server = await asyncio.start_unix_server(monitor, str(SOCKET))
        asking: list[asyncio.Task[object]] = []

        def event(name: str, _: object) -> None:
            for task in asking:
                task.cancel()

        qmp = await Qmp.connect(SOCKET, on_event=event)
        for _ in range(5):
            asking = [asyncio.create_task(qmp.execute("query-status"))]
            with contextlib.suppress(asyncio.CancelledError):
                await asking[0]
            assert asking[0].cancelled()
        asking = []
        assert not qmp.behind
        assert await qmp.execute("query-status") == {}
        await qmp.close()
        server.close()

    asyncio.run(story())


def test_an_answer_that_nobody_waits_for_is_owed_until_it_comes() -> None:
    async def story() -> None:
        server = await asyncio.start_unix_server(monitor, str(SOCKET))
        qmp = await Qmp.connect(SOCKET)
        asking = asyncio.create_task(qmp.execute("hang"))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert qmp.behind
        await qmp.execute("query-status")
        assert not qmp.behind
        await qmp.close()
        server.close()

    asyncio.run(story())
