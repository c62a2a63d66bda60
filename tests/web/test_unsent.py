"""Answers that nobody takes do not fill the memory, and do not keep others from theirs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from cumulet.errors import TooManyRequests, Unavailable
from cumulet.web import unsent
from cumulet.web.context import Cloud
from cumulet.web.server import Server
from cumulet.web.unsent import AT_ONCE, UNSENT, UNSENT_OF_ONE, Unsent
from tests.web.test_server import certificate, serving

assert certificate

LONG = b"GET /compute/v2.1/widgets/w1/long HTTP/1.1\r\nhost: x\r\nx-auth-token: member\r\n\r\n"
SIZE = 16 << 20


def taken(size: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return 200, [], b"x" * size


def test_a_caller_has_so_much_waiting_and_all_together() -> None:
    waiting, quarter = Unsent(), taken(UNSENT_OF_ONE // 4)
    held = [waiting.take("one", quarter) for _ in range(4)]
    with pytest.raises(TooManyRequests):
        waiting.take("one", quarter)
    assert waiting.take("one", taken(AT_ONCE)) == 0
    for lane in range(UNSENT // UNSENT_OF_ONE - 1):
        waiting.take(f"lane {lane}", taken(UNSENT_OF_ONE))
    with pytest.raises(Unavailable):
        waiting.take("another", quarter)
    for size in held:
        waiting.give("one", size)
    assert waiting.take("another", quarter) == len(quarter[2])
    assert waiting._of["one"] == 0


def test_the_only_answer_of_a_caller_has_room_however_long_it_is() -> None:
    waiting, huge = Unsent(), taken(UNSENT_OF_ONE + 1)
    size = waiting.take("one", huge)
    with pytest.raises(TooManyRequests):
        waiting.take("one", taken(AT_ONCE + 1))
    waiting.give("one", size)
    assert waiting.take("one", huge) == size


def test_who_reads_nothing_gets_no_more(
    cloud: Cloud, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "UNSENT_OF_ONE", 3 * SIZE + SIZE // 2)

    async def test(running: Server, context: ssl.SSLContext) -> None:
        async def ask() -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context, limit=1024)
            writer.write(LONG)
            return (await asyncio.wait_for(reader.readline(), 20)).split()[1], reader, writer

        slow = [await ask() for _ in range(3)]
        assert [status for status, *_ in slow] == [b"200"] * 3
        refused, _, writer = await ask()
        assert refused == b"429"
        writer.close()
        for _, _, writer in slow:
            writer.transport.abort()
        async with asyncio.timeout(20):
            while (answer := await ask())[0] != b"200":
                answer[2].transport.abort()
                await asyncio.sleep(0.01)
        answer[2].transport.abort()

    serving(cloud, certificate, test)
