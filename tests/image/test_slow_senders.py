"""Clients that send slowly, or nothing: each body has bounds of time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from cumulet.image import sending
from cumulet.web import bodies
from cumulet.web.asgi import Message

from .conftest import World


async def status_of(world: World, method: str, path: str, media: str, pieces: AsyncIterator[bytes]) -> int:
    """The status of a request of the member, whose body never says that it is whole."""
    headers = [(b"x-auth-token", b"member"), (b"content-type", media.encode())]
    scope = {"type": "http", "method": method, "path": f"/image/v2{path}", "query_string": b"", "headers": headers}
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": await anext(pieces), "more_body": True}

    async def send(message: Message) -> None:
        if "status" in message:
            statuses.append(message["status"])

    await world.client.app(scope, receive, send)
    return statuses[0]


async def nothing() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


def test_a_patch_whose_body_does_not_come_is_408(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)
    path = f"/images/{world.create()['id']}"
    media = "application/openstack-images-v2.1-json-patch"

    async def story() -> int:
        async with asyncio.timeout(20):
            return await status_of(world, "PATCH", path, media, nothing())

    assert asyncio.run(story()) == 408


def test_the_rest_of_a_refused_upload_is_read_for_so_long_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "DRAIN_SECONDS", 0.05)
    most, came = 2000, list[int]()

    async def bytewise() -> AsyncIterator[bytes]:
        for number in range(most):
            came.append(number)
            await asyncio.sleep(0.005)
            yield b"x"

    path = f"/images/{world.create()['id']}/file"
    assert asyncio.run(status_of(world, "PUT", path, "text/plain", bytewise())) == 415
    assert len(came) < most // 2
