"""A process that has taken an agent's place on this machine: what it says harms no question but the one it answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.bus.unix_socket import UnixSocketLink, read_frame, serve_agent, write_frame
from cumulet.host import messages as m
from tests.bus.test_contract import HOST, gate

PLACE = Path("agent.sock")
HOSTILE = [
    b"{",
    b"[]",
    b'{"number":1,"text":"\xff"}',
    b'{"number":1,"value":' + b"[" * 100_000,
    b'{"number":1,"value":{"name":"\xff"}}',
]


@pytest.mark.parametrize("said", HOSTILE)
def test_what_is_no_answer_fails_at_once_and_the_next_question_is_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.chdir(tmp_path)

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        write_frame(writer, said)

    async def story() -> None:
        link = UnixSocketLink(PLACE)
        hostile = await asyncio.start_unix_server(say, PLACE)
        async with asyncio.timeout(10):
            with pytest.raises(m.HostUnreachable, match="connection to agent lost"):
                await link.send(m.AskFacts())
            hostile.close()
            honest = await serve_agent(Agent(name=HOST, driver=gate(), fence=MemoryFence()), PLACE)
            assert (await link.send(m.AskFacts())).name == HOST
        await link.close()
        honest.close()

    asyncio.run(story())


@pytest.mark.parametrize("asked", HOSTILE)
def test_what_is_no_request_ends_its_connection_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: bytes
) -> None:
    monkeypatch.chdir(tmp_path)

    async def story() -> None:
        served = await serve_agent(Agent(name=HOST, driver=gate(), fence=MemoryFence()), PLACE)
        link = UnixSocketLink(PLACE)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_unix_connection(PLACE)
            write_frame(writer, asked)
            assert await reader.read() == b""
            writer.close()
            assert (await link.send(m.AskFacts())).name == HOST
        await link.close()
        served.close()

    asyncio.run(story())
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["a request was not understood"]
