"""Images cannot fill the cloud: what uploads reserve, what ends them, how many images there may be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, MutableMapping
from typing import Any

import msgspec
import pytest

from cumulet import space
from cumulet.db.engine import Database
from cumulet.image import sending, uploads
from cumulet.image.left_data import clear_alone
from cumulet.settings import Settings
from cumulet.web.operation import Caller
from tests.service_alone import PersonaTokens

from .conftest import DATA, PERSONAS, World, make_world

MIB = 1 << 20


def declared(size: int) -> dict[str, str]:
    return {**DATA, "X-OpenStack-Image-Size": str(size)}


def piecewise(world: World, image_id: str, pieces: Iterator[bytes]) -> int:
    """Upload without a length, each piece when it is asked for; the status."""
    headers = [(b"x-auth-token", b"member"), (b"content-type", b"application/octet-stream")]
    path = f"/image/v2/images/{image_id}/file"
    scope = {"type": "http", "method": "PUT", "path": path, "query_string": b"", "headers": headers}
    statuses: list[int] = []

    async def receive() -> MutableMapping[str, Any]:
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(message: MutableMapping[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def request() -> None:
        await world.client.app(scope, receive, send)

    asyncio.run(request())
    return statuses[0]


@pytest.fixture
def room(world: World, monkeypatch: pytest.MonkeyPatch) -> int:
    """How much room there is above the floor, in bytes."""
    floor = space.floor_bytes(world.cloud.state_dir, world.cloud.settings.free_space_floor_mib)
    monkeypatch.setattr(space, "free_bytes", lambda _: floor + 10 * MIB)
    return 10 * MIB


def test_an_upload_that_would_reach_below_the_floor_is_507_and_changes_nothing(world: World, room: int) -> None:
    image = world.create()
    answer = world.ask("member", "PUT", f"/images/{image['id']}/file", content=b"x", headers=declared(room + 1))
    assert (answer.status_code, answer.json()["title"]) == (507, "Insufficient Storage")
    assert "full" in answer.json()["message"]
    assert world.show(image["id"]) == image
    assert world.files() == set()
    whole = b"\0" * room
    accepted = world.ask("member", "PUT", f"/images/{image['id']}/file", content=whole, headers=declared(room))
    assert accepted.status_code == 204


def test_without_a_length_room_is_reserved_as_it_comes(
    world: World, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "AHEAD_BYTES", 2 * MIB)
    monkeypatch.setattr(uploads, "BLOCK_BYTES", MIB)

    def pieces(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b"\0" * MIB

    image = world.create()
    # What is written would be seen on the disk; here it is not, so only what waits to be written counts.
    assert piecewise(world, image["id"], pieces(30)) == 204
    assert world.cloud.space.promised == 0
    monkeypatch.setattr(uploads, "BLOCK_BYTES", 1 << 30)  # nothing is written before the end
    image = world.create()
    assert piecewise(world, image["id"], pieces(30)) == 507
    assert world.show(image["id"])["status"] == "queued"
    assert world.cloud.space.promised == 0


def test_what_an_upload_under_way_has_reserved_is_not_given_twice(world: World, room: int) -> None:
    first, second = world.create(), world.create()
    seen: list[int] = []

    def pieces() -> Iterator[bytes]:
        yield b"\0" * 100
        for size in (room // 2, room // 2 + 1):
            whole, headers = b"\0" * size, declared(size)
            answer = world.ask("other", "PUT", f"/images/{second['id']}/file", content=whole, headers=headers)
            seen.append(answer.status_code)
        yield b"\0" * (room // 2 - 100)

    second = world.create("other")
    headers = declared(room // 2)
    answer = world.ask("member", "PUT", f"/images/{first['id']}/file", content=pieces(), headers=headers)
    assert (answer.status_code, seen) == (204, [204, 507])
    assert world.cloud.space.promised == 0


def test_an_upload_under_way_counts_in_its_projects_quota(small_world: World) -> None:
    first, second = small_world.create(), small_world.create()
    seen: list[int] = []

    def pieces() -> Iterator[bytes]:
        yield b"\0" * 100
        for size in (1025, 1024):
            whole, headers = b"\0" * size, declared(size)
            answer = small_world.ask("member", "PUT", f"/images/{second['id']}/file", content=whole, headers=headers)
            seen.append(answer.status_code)

    headers = declared((1 << 30) - 1024)
    answer = small_world.ask("member", "PUT", f"/images/{first['id']}/file", content=pieces(), headers=headers)
    assert (answer.status_code, seen) == (400, [413, 204]), "the first ends early: less came than was reserved"


def test_more_than_was_declared_is_taken_only_as_far_as_the_quota_goes(database: Database, settings: Settings) -> None:
    tight = make_world(database, msgspec.structs.replace(settings, image_project_quota_gib=0))
    image = tight.create()
    assert tight.upload(image["id"], b"x").status_code == 413
    assert tight.show(image["id"])["status"] == "queued"


def test_an_upload_ends_with_its_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHECK_SECONDS", 0.0)
    revoked: list[str] = []

    async def authenticate(_self: PersonaTokens, token: str, **_request: str) -> Caller | None:
        return None if token in revoked else PERSONAS.get(token)

    monkeypatch.setattr(PersonaTokens, "authenticate", authenticate)
    image = world.create()

    def pieces() -> Iterator[bytes]:
        yield b"\0" * 100
        revoked.append("member")
        yield b"\0" * 100

    answer = world.ask("member", "PUT", f"/images/{image['id']}/file", content=pieces(), headers=DATA)
    assert answer.status_code == 401
    assert world.show(image["id"], "admin")["status"] == "queued"
    assert world.files() == set()


def test_an_upload_goes_on_whichever_header_shows_its_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHECK_SECONDS", 0.0)
    image = world.create()
    headers = {**DATA, "X-Auth-Token": "", "Authorization": "Bearer member"}
    answer = world.ask("", "PUT", f"/images/{image['id']}/file", content=b"\0" * 100, headers=headers)
    assert answer.status_code == 204
    assert world.show(image["id"])["status"] == "active"


def test_an_upload_ends_with_its_image_before_all_of_it_has_come(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(sending, "DRAIN_LIMIT_BYTES", 0)
    image = world.create()
    came: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(1000):
            if number == 1:
                delete = threading.Thread(target=world.ask, args=("member", "DELETE", f"/images/{image['id']}"))
                delete.start()
                delete.join()
            came.append(number)
            yield b"\0" * 1000

    assert piecewise(world, image["id"], pieces()) == 410
    assert len(came) < 10
    assert world.files() == set()


@pytest.mark.parametrize(("restart", "status"), [(True, 410), (False, 500)])
def test_an_upload_without_its_file_is_410_only_if_a_starting_process_ended_it(
    world: World, restart: bool, status: int
) -> None:
    image = world.create()

    def pieces() -> Iterator[bytes]:
        yield b"\0" * 1000
        if restart:
            assert clear_alone(world.cloud.db, world.cloud.state_dir, world.cloud.clock.now_us()) == 1
        else:
            [uploaded] = world.files()
            (world.store / uploaded).unlink()
        yield b"\0" * 1000

    assert piecewise(world, image["id"], pieces()) == status
    assert world.show(image["id"])["status"] == "queued"
    assert world.files() == set()


def test_a_project_has_only_so_many_images_with_data_or_without(database: Database, settings: Settings) -> None:
    world = make_world(database, msgspec.structs.replace(settings, images_per_project=2))
    first = world.create()
    world.active()
    refused = world.ask("member", "POST", "/images", json={"name": "third"})
    assert (refused.status_code, "limit of 2 images" in refused.text) == (413, True)
    world.create("other")
    assert world.ask("member", "DELETE", f"/images/{first['id']}").status_code == 204
    world.create()
