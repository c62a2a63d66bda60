"""The agent's end of the socket by which passwords of guests come."""

from __future__ import annotations

import asyncio
import socket

import msgspec

from cumulet.drivers.linux_network.posts import MOST_AT_ONCE, MOST_OF_A_SERVER, Posts
from cumulet.drivers.linux_network.responder import LARGEST_POST_BYTES, Post, Taken

HOSTILE = 100
"""Ports of one guest have lower numbers than this."""


def test_one_server_s_many_posts_keep_no_other_s_out() -> None:
    kept: list[str] = []

    async def story() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        posts = Posts(ours, lambda number: "hostile" if number < HOSTILE else "honest")

        async def take(server_id: str, content: str) -> bool:
            kept.append(server_id)
            if server_id == "hostile":
                await over.wait()
            return True

        async def ask(visit: int, number: int) -> None:
            await loop.sock_sendall(theirs, msgspec.json.encode(Post(visit=visit, number=number, content="x")))

        async def answer() -> Taken:
            async with asyncio.timeout(20):
                said = await loop.sock_recv(theirs, LARGEST_POST_BYTES)
            return msgspec.json.decode(said, type=Taken)

        posts.take = take
        with ours, theirs:
            for visit in range(MOST_AT_ONCE + 5):
                await ask(visit, visit)
                if visit >= MOST_OF_A_SERVER:
                    assert await answer() == Taken(visit=visit, done=None)
            await ask(1000, HOSTILE)
            assert await answer() == Taken(visit=1000, done=True)
            over.set()
            assert {(await answer()).visit for _ in range(MOST_OF_A_SERVER)} == set(range(MOST_OF_A_SERVER))
            await ask(1001, 0)
            assert await answer() == Taken(visit=1001, done=True), "it may post again"
            await posts.close()

    asyncio.run(story())
    assert kept == ["hostile"] * MOST_OF_A_SERVER + ["honest", "hostile"]
