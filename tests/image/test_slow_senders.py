"""Clients that send slowly, or nothing: each body has bounds of time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.requests import Request

from cumulet.image import sending
from cumulet.image.sending import Body
from cumulet.image.uploads import receive_data
from cumulet.testing.simulation.virtual_time import VirtualLoop
from cumulet.web import bodies
from cumulet.web.asgi import Message

from .conftest import DATA, World


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


def test_a_project_has_so_many_uploads_under_way_and_all_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "MOST_OF_ONE", 1)
    monkeypatch.setattr(sending, "MOST", 2)
    images = {who: [world.create(who)["id"] for _ in range(2)] for who in ("member", "other", "third")}
    seen: list[tuple[str, int, str | None]] = []

    def upload(who: str, number: int, content: bytes | Iterator[bytes]) -> None:
        path = f"/images/{images[who][number]}/file"
        answer = world.ask(who, "PUT", path, content=content, headers=DATA)
        seen.append((who, answer.status_code, answer.headers.get("retry-after")))

    def of_other() -> Iterator[bytes]:
        yield b"data"
        upload("third", 0, b"data")

    def of_member() -> Iterator[bytes]:
        yield b"data"
        upload("member", 1, b"data")
        upload("other", 0, of_other())
        upload("third", 0, b"data")

    upload("member", 0, of_member())
    upload("member", 1, b"data")
    refusals = [("member", 429, "10"), ("third", 503, "10")]
    assert seen == [*refusals, ("other", 204, None), ("third", 204, None), ("member", 204, None), ("member", 204, None)]
    assert world.show(images["member"][1])["status"] == "active", "it was left queued"


def test_what_is_read_of_a_refused_upload_keeps_its_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error may hold the memory of its upload."""
    monkeypatch.setattr(sending, "MOST_OF_ONE", 1)
    first, second = world.create()["id"], world.create()["id"]
    seen: list[int] = []

    def pieces() -> Iterator[bytes]:
        yield b"longer than was said"
        yield b"the rest"
        seen.append(world.upload(second, b"data").status_code)
        yield b"the rest"

    headers = {**DATA, "X-OpenStack-Image-Size": "4"}
    answer = world.ask("member", "PUT", f"/images/{first}/file", content=pieces(), headers=headers)
    assert (answer.status_code, seen) == (400, [429])
    assert world.upload(second, b"data").status_code == 204


def received(least: int, *sent: tuple[float, int]) -> tuple[int, float]:
    """How many pieces of a body were read, and when that ended. `sent`: how long each takes, and its size."""
    left = iter(sent)

    async def receive() -> Message:
        seconds, size = next(left, (0, 0))
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": b"x" * size, "more_body": bool(size)}

    async def story() -> tuple[int, float]:
        loop, read = asyncio.get_running_loop(), 0
        began = loop.time()
        body = Body(Request({"type": "http"}, receive), least)
        try:
            async for piece in body.pieces():
                read += len(piece) > 0
        except TimeoutError:
            pass
        return read, loop.time() - began

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story())


def test_an_upload_that_is_too_slow_ends() -> None:
    read, seconds = received(1000, (0, 100_000), *[(59, 1)] * 100)
    assert (read, seconds < 61) == (2, True), "what came before is no credit for a minute without data"
    read, seconds = received(1000, *[(1, 500)] * 1000)
    assert 110 < seconds < 130, "at half the rate it is a minute behind after two"


def test_an_upload_at_its_least_rate_goes_on_and_may_pause() -> None:
    assert received(1000, *[(2, 2100)] * 500)[0] == 500
    assert received(1000, *[(50, 100_000)] * 50)[0] == 50
    assert received(0, *[(59, 1)] * 100)[0] == 100, "there is no least rate"


def test_what_hosts_bring_takes_no_clients_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "MOST", 0)
    image_id = world.create()["id"]
    assert world.upload(image_id, b"data").status_code == 503

    async def pieces() -> AsyncIterator[bytes]:
        yield b"data"

    async def allowed() -> None:
        pass

    asyncio.run(receive_data(world.cloud, image_id, pieces(), None, allowed))
    assert world.show(image_id)["status"] == "active"
