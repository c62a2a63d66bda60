"""Imports of images, from the request to the data: staged, fetched, refused, deleted on the way; so many at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

import cumulet.testing
from cumulet.image import imports, internet, tasks, uploads
from cumulet.image.files import image_folder
from cumulet.testing import Answer, Client, JsonObject, TestCloud

DATA = {"Content-Type": "application/octet-stream"}
CONTENT = b"a raw disk".ljust(4096, b"\0")
URL = "https://images.example.org/disk.raw"


def ask(client: Client, method: str, path: str, body: Any = None, **more: Any) -> Answer:
    return client.request(method, f"/image/v2{path}", body, **more)


def new(client: Client, **body: object) -> str:
    body = {"name": "imported", "disk_format": "raw", "container_format": "bare", **body}
    answer = ask(client, "POST", "/images", body)
    assert answer.status == 201, answer.text
    image_id: str = answer["id"]
    return image_id


def stage(client: Client, image_id: str, content: bytes = CONTENT, **headers: str) -> Answer:
    return ask(client, "PUT", f"/images/{image_id}/stage", content=content, headers={**DATA, **headers})


def import_(client: Client, image_id: str, method: str = "glance-direct", **more: object) -> Answer:
    uri = {"uri": more.pop("uri")} if "uri" in more else {}
    return ask(client, "POST", f"/images/{image_id}/import", {"method": {"name": method, **uri}, **more})


def image(client: Client, image_id: str) -> JsonObject:
    answer = ask(client, "GET", f"/images/{image_id}")
    assert answer.status == 200, answer.text
    found: dict[str, object] = answer.json
    return found


def ended(client: Client, image_id: str) -> JsonObject:
    """The image, once its import is over."""
    client.wait("the import", lambda: "os_glance_import_task" not in image(client, image_id))
    return image(client, image_id)


def tasks_of(client: Client, image_id: str) -> list[JsonObject]:
    found: list[dict[str, object]] = ask(client, "GET", f"/images/{image_id}/tasks")["tasks"]
    return found


def left(cloud: TestCloud, image_id: str) -> list[str]:
    """Files that belong to the image, or to no image yet."""
    folder = image_folder(cloud.embedded.settings.state_dir)
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return [name for name in files if image_id in name or name.startswith(".uploads")]


def test_what_is_staged_becomes_the_images_data(cloud: TestCloud, member: Client) -> None:
    image_id = new(member)
    assert stage(member, image_id).status == 204
    staged = image(member, image_id)
    assert (staged["status"], staged["size"], left(cloud, image_id)) == ("uploading", 4096, [f".staged/{image_id}"])
    assert ask(member, "GET", f"/images/{image_id}/file").status == 204
    answer = import_(member, image_id)
    assert (answer.status, answer.text) == (202, "")
    found = ended(member, image_id)
    assert (found["status"], found["size"], found["stores"]) == ("active", 4096, "file")
    assert (found["os_glance_failed_import"], found["os_glance_importing_to_stores"]) == ("", "")
    assert found["os_hash_value"] == hashlib.sha512(CONTENT).hexdigest()
    assert ask(member, "GET", f"/images/{image_id}/file").text.encode() == CONTENT
    (task,) = tasks_of(member, image_id)
    assert (task["status"], task["request_id"]) == ("success", answer.headers["x-openstack-request-id"])
    assert task["input"]["import_req"]["method"] == {"name": "glance-direct"}
    assert task["result"] == {"image_id": image_id}
    member.wait("the staged file to go", lambda: left(cloud, image_id) == [image_id])


def test_data_that_is_not_what_it_claims_is_refused_and_can_be_brought_again(cloud: TestCloud, member: Client) -> None:
    image_id = new(member, disk_format="qcow2")
    assert stage(member, image_id, b"QFI\xfb but no more").status == 204
    assert import_(member, image_id).status == 202
    found = ended(member, image_id)
    assert (found["status"], found["size"], found["os_glance_failed_import"]) == ("queued", None, "file")
    (task,) = tasks_of(member, image_id)
    assert task["status"] == "failure"
    assert "qcow2" in task["message"]
    assert left(cloud, image_id) == []
    assert stage(member, image_id).status == 204
    assert ask(member, "DELETE", f"/images/{image_id}").status == 204
    assert left(cloud, image_id) == []


@pytest.mark.parametrize(
    ("method", "before", "more", "status"),
    [
        ("glance-direct", "", {}, 409),
        ("glance-direct", "active", {}, 409),
        ("glance-direct", "staged", {"stores": ["swift"]}, 409),
        ("copy-image", "", {}, 409),
        ("copy-image", "active", {"all_stores": True}, 403),
        ("web-download", "", {"uri": URL}, 400),
        ("glance-download", "", {}, 400),
        ("glance-direct", "staged", {"all_stores": "yes"}, 400),
    ],
)
def test_an_import_that_does_not_fit_is_refused(
    member: Client, method: str, before: str, more: Mapping[str, object], status: int
) -> None:
    image_id = new(member)
    if before == "staged":
        assert stage(member, image_id).status == 204
    elif before == "active":
        assert ask(member, "PUT", f"/images/{image_id}/file", content=CONTENT, headers=DATA).status == 204
    shown = image(member, image_id)
    assert import_(member, image_id, method, **more).status == status
    assert image(member, image_id) == shown
    assert tasks_of(member, image_id) == []


def test_an_image_without_formats_is_staged_and_not_imported(member: Client) -> None:
    image_id: str = ask(member, "POST", "/images", {"name": "bare"})["id"]
    assert stage(member, image_id).status == 204
    answer = import_(member, image_id)
    assert (answer.status, "container_format" in answer.text) == (409, True)


def test_staged_data_is_bounded_like_uploads_and_staged_once(cloud: TestCloud, member: Client) -> None:
    image_id = new(member)
    too_much = str((cloud.embedded.settings.image_size_limit_gib << 30) + 1)
    assert stage(member, image_id, CONTENT, **{"x-openstack-image-size": too_much}).status == 413
    for size in (len(CONTENT) - 1, len(CONTENT) + 1):
        assert stage(member, image_id, CONTENT, **{"x-openstack-image-size": str(size)}).status == 400
    assert ask(member, "PUT", f"/images/{image_id}/stage", content=b"x", headers={"Content-Type": "a/b"}).status == 415
    assert (image(member, image_id)["status"], left(cloud, image_id)) == ("queued", [])
    assert stage(member, image_id).status == 204
    assert stage(member, image_id).status == 409
    assert ask(member, "PUT", f"/images/{image_id}/file", content=CONTENT, headers=DATA).status == 409
    usage = ask(member, "GET", "/info/usage")["usage"]
    assert usage["image_count_uploading"]["usage"] == 1
    assert import_(member, image_id).status == 202
    ended(member, image_id)


def test_copying_to_all_stores_has_nothing_to_do(cloud: TestCloud, member: Client) -> None:
    admin, image_id = cloud.persona("admin"), new(member)
    assert ask(member, "PUT", f"/images/{image_id}/file", content=CONTENT, headers=DATA).status == 204
    assert import_(admin, image_id, "copy-image").status == 400
    assert import_(admin, image_id, "copy-image", all_stores=True).status == 202
    assert image(member, image_id)["os_glance_importing_to_stores"] == ""
    for store, status in (("file", 403), ("swift", 409)):
        assert ask(admin, "DELETE", f"/stores/{store}/{image_id}").status == status


def test_tasks_are_listed_in_pages_and_go_by_themselves(
    cloud: TestCloud, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, made = cloud.persona("admin"), []
    for _ in range(3):
        made.append(new(member))
        stage(member, made[-1])
        import_(member, made[-1])
        ended(member, made[-1])
    wanted = {tasks_of(member, image_id)[0]["id"] for image_id in made}
    page, seen = "/tasks?limit=1&sort_key=created_at&sort_dir=asc&status=success&type=api_image_import", set()
    while page:
        answer = ask(admin, "GET", page)
        seen |= {task["id"] for task in answer["tasks"]}
        page = answer.json.get("next", "").removeprefix("/v2")
    assert wanted <= seen
    one = ask(admin, "GET", f"/tasks/{min(wanted)}").json
    assert (one["status"], one["self"]) == ("success", f"/v2/tasks/{one['id']}")
    assert ask(admin, "DELETE", f"/tasks/{one['id']}").status == 405
    for query in ("status=over", "type=export", "sort_key=colour", "sort_dir=up", "marker=nothing"):
        assert ask(admin, "GET", f"/tasks?{query}").status == 400
    monkeypatch.setattr(tasks, "MOST_ENDED", 1)
    image_id = new(member)
    stage(member, image_id)
    import_(member, image_id)
    ended(member, image_id)
    assert len([one for one in wanted if ask(admin, "GET", f"/tasks/{one}").status == 200]) == 0
    assert len(tasks_of(member, image_id)) == 1


def test_a_project_has_so_many_imports_at_once(member: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "MOST_AT_ONCE", 0)
    image_id = new(member)
    stage(member, image_id)
    assert (import_(member, image_id).status, image(member, image_id)["status"]) == (413, "uploading")


# -- from the Internet


@pytest.fixture
def open_cloud() -> Iterator[TestCloud]:
    """A cloud that imports from hosts of the Internet below example.org."""
    with cumulet.testing.cloud(web_download_hosts="*.example.org, images.example.net") as made:
        yield made


def internet_has(monkeypatch: pytest.MonkeyPatch, *pieces: bytes, error: Exception | None = None) -> None:
    async def fetch(url: str, allowed: tuple[str, ...]) -> AsyncIterator[bytes]:
        internet.target_of(url, allowed)
        for piece in pieces:
            yield piece
        if error is not None:
            raise error

    monkeypatch.setattr(internet, "fetch", fetch)


def test_what_is_at_a_url_becomes_the_images_data(open_cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    internet_has(monkeypatch, CONTENT[:1000], CONTENT[1000:])
    member = open_cloud.persona("member")
    assert "web-download" in ask(member, "GET", "/info/import")["import-methods"]["value"]
    image_id = new(member, visibility="community")
    assert import_(member, image_id, "web-download", uri=URL).status == 202
    found = ended(member, image_id)
    assert (found["status"], found["os_hash_value"]) == ("active", hashlib.sha512(CONTENT).hexdigest())
    assert left(open_cloud, image_id) == [image_id]
    (task,) = tasks_of(member, image_id)
    assert task["input"]["import_req"]["method"]["uri"] == URL
    assert tasks_of(open_cloud.persona("admin"), image_id) == [task]
    assert tasks_of(open_cloud.persona("other_member"), image_id) == [], "who may use it need not know where it is from"
    second = new(member)
    for uri in ("http://127.0.0.1/", "https://example.net/", "file:///etc/shadow", ""):
        answer = import_(member, second, "web-download", uri=uri)
        assert (answer.status, "does not pass filtering" in answer.text) == (400, True)
    assert image(member, second)["status"] == "queued"


def test_a_download_needs_an_image_without_data_and_is_the_only_one(
    open_cloud: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def for_ever(url: str, allowed: tuple[str, ...]) -> AsyncIterator[bytes]:
        yield CONTENT
        await asyncio.Event().wait()

    monkeypatch.setattr(internet, "fetch", for_ever)
    member = open_cloud.persona("member")
    staged, fetched = new(member), new(member)
    assert stage(member, staged).status == 204
    answer = import_(member, staged, "web-download", uri=URL)
    assert (answer.status, "needs to be in 'queued' state" in answer.text) == (409, True)
    assert image(member, staged)["status"] == "uploading"
    assert import_(member, fetched, "web-download", uri=URL).status == 202
    answer = import_(member, fetched, "web-download", uri=URL)
    assert (answer.status, "prior operation is still in progress" in answer.text) == (409, True)
    assert len(tasks_of(member, fetched)) == 1


def test_a_download_that_breaks_leaves_the_image_queued(open_cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    internet_has(monkeypatch, CONTENT, error=internet.NotFetched("The connection failed: ReadError."))
    member = open_cloud.persona("member")
    image_id = new(member)
    assert import_(member, image_id, "web-download", uri=URL).status == 202
    assert ended(member, image_id)["status"] == "queued"
    assert tasks_of(member, image_id)[0]["message"] == "The connection failed: ReadError."
    assert left(open_cloud, image_id) == []


def test_what_is_refused_is_fetched_no_further(open_cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opened the connection closes it, and the garbage collector does not have to."""
    monkeypatch.setattr(uploads, "BLOCK_BYTES", 1 << 16)
    sent: list[int] = []
    closed: list[bool] = []

    async def fetch(_url: str, _allowed: tuple[str, ...]) -> AsyncIterator[bytes]:
        task = asyncio.current_task()
        try:
            for number in range(100):
                sent.append(number)
                yield b"no qcow2".ljust(1 << 16)
        finally:
            closed.append(asyncio.current_task() is task)

    monkeypatch.setattr(internet, "fetch", fetch)
    member = open_cloud.persona("member")
    image_id = new(member, disk_format="qcow2")
    assert import_(member, image_id, "web-download", uri=URL).status == 202
    assert ended(member, image_id)["status"] == "queued"
    assert (len(sent) < 100, closed) == (True, [True])


def test_a_task_makes_an_image_of_what_is_at_a_url(open_cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    internet_has(monkeypatch, CONTENT)
    admin = open_cloud.persona("admin")
    properties = {"disk_format": "raw", "container_format": "bare", "name": "by a task", "visibility": "public"}
    wanted = {"import_from": URL, "import_from_format": "raw", "image_properties": properties}
    answer = ask(admin, "POST", "/tasks", {"type": "import", "input": wanted})
    assert answer.status == 201, answer.text
    assert (answer["status"], answer["input"]) == ("pending", wanted)
    image_id = answer["image_id"]
    assert ended(admin, image_id)["status"] == "active"
    task = ask(admin, "GET", f"/tasks/{answer['id']}").json
    assert (task["status"], task["result"], task["type"]) == ("success", {"image_id": image_id}, "import")
    changes: tuple[dict[str, object], ...] = (
        {"import_from": "http://localhost/"},
        {"import_from_format": "qcow2"},
        {"image_properties": {}},
        {"image_properties": {"disk_format": "no such"}},
        {"image_properties": {**properties, "id": image_id}},
    )
    for change in changes:
        refused = ask(admin, "POST", "/tasks", {"type": "import", "input": {**wanted, **change}})
        assert refused.status in (400, 409), json.dumps(change)
    assert ask(admin, "POST", "/tasks", {"type": "export", "input": wanted}).status == 400


def test_an_image_that_is_deleted_while_it_is_imported_leaves_nothing(
    open_cloud: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = open_cloud.persona("member")
    image_id = new(member)

    async def fetch(_url: str, _allowed: tuple[str, ...]) -> AsyncIterator[bytes]:
        yield CONTENT
        answer = await asyncio.to_thread(ask, member, "DELETE", f"/images/{image_id}")
        assert answer.status == 204
        yield CONTENT

    monkeypatch.setattr(internet, "fetch", fetch)
    assert import_(member, image_id, "web-download", uri=URL).status == 202
    admin = open_cloud.persona("admin")
    member.wait("the task", lambda: ask(admin, "GET", "/tasks?status=failure")["tasks"] != [])
    (task,) = ask(admin, "GET", "/tasks?status=failure")["tasks"]
    assert "deleted" in ask(admin, "GET", f"/tasks/{task['id']}")["message"]
    member.wait("all of it to go", lambda: left(open_cloud, image_id) == [])
    assert ask(member, "GET", f"/images/{image_id}").status == 404


def test_no_location_is_taken_or_told(cloud: TestCloud, member: Client) -> None:
    admin, image_id, body = cloud.persona("admin"), new(member), {"url": URL}
    assert ask(member, "POST", f"/images/{image_id}/locations", body).status == 403
    helper = cloud.user("helper", project="helpers", roles=("member", "reader", "service"))
    helped = new(helper)
    refused = ask(helper, "POST", f"/images/{helped}/locations", body)
    assert (refused.status, "Unknown scheme 'https'" in refused.text) == (400, True)
    assert image(helper, helped)["status"] == "queued"
    assert ask(member, "PUT", f"/images/{image_id}/file", content=CONTENT, headers=DATA).status == 204
    assert ask(member, "POST", f"/images/{image_id}/locations", body).status == 409
    assert ask(member, "GET", f"/images/{image_id}/locations").status == 403
    assert ask(admin, "GET", f"/images/{image_id}/locations").json == []
