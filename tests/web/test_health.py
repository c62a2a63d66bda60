"""Health of a process without an API."""

from __future__ import annotations

import asyncio
import json

from cumulet.web.health import HealthServer


def test_health_is_asked_each_time_and_a_problem_is_told() -> None:
    problems: list[str | None] = [None, "the database does not answer"]

    async def healthy() -> str | None:
        return problems[0]

    async def ready() -> str | None:
        return problems[1]

    async def ask(port: int, head: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        answered = await reader.read()
        writer.close()
        return answered

    async def story() -> None:
        server = HealthServer(healthy, ready)
        port = await server.listen("127.0.0.1", 0)
        good = await ask(port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert good.startswith(b"HTTP/1.1 200 OK\r\n")
        bad = await ask(port, b"GET /readyz HTTP/1.1\r\n\r\n")
        assert bad.startswith(b"HTTP/1.1 503 ")
        assert json.loads(bad.partition(b"\r\n\r\n")[2]) == {"status": "the database does not answer"}
        problems[:] = ["gone", None]
        assert (await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
        assert (await ask(port, b"HEAD /readyz HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        assert await ask(port, b"x" * 10_000) == b"", "what is no request gets no answer"
        await server.close()

    asyncio.run(story())
