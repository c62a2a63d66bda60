"""What Placement answers to methods, media types and versions that it does not have, as upstream does."""

from __future__ import annotations

import pytest

from .conftest import World

PROVIDERS = "/placement/resource_providers"


def status(world: World, method: str, path: str, headers: dict[str, str], content: str | None = None) -> int:
    answer = world.client.request(method, path, headers={"X-Auth-Token": "admin", **headers}, content=content)
    code: int = answer.status_code
    return code


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/plain", 406),
        ("text/html,application/xhtml+xml,application/xml;q=0.9", 406),
        ("text/html,application/xml;q=0.9,*/*;q=0.8", 200),
        ("application/json;q=0", 406),
        ("application/*", 200),
        ("", 200),
    ],
)
def test_answers_are_json_or_there_is_none(world: World, accept: str, expected: int) -> None:
    assert status(world, "GET", PROVIDERS, {"Accept": accept}) == expected


@pytest.mark.parametrize(
    ("media", "content", "expected"),
    [
        ("application/json", '{"name": "a"}', 201),
        ("application/json; charset=utf-8", '{"name": "a"}', 201),
        ("text/plain", '{"name": "a"}', 415),
        ("application/xml", "<name>a</name>", 415),
        (None, '{"name": "a"}', 400),
        (None, None, 415),
    ],
)
def test_bodies_say_that_they_are_json(world: World, media: str | None, content: str | None, expected: int) -> None:
    headers = {} if media is None else {"Content-Type": media}
    assert status(world, "POST", PROVIDERS, headers, content) == expected


def test_a_body_of_another_kind_is_no_reason_to_show_what_a_version_does_not_have(world: World) -> None:
    for version, expected in (("1.1", 404), ("1.2", 415)):
        headers = {"OpenStack-API-Version": f"placement {version}", "Content-Type": "text/plain"}
        assert status(world, "POST", "/placement/resource_classes", headers, "x") == expected


def test_other_methods_are_405_at_the_root_too(world: World) -> None:
    for path, allow in (("/placement", "GET"), ("/placement/", "GET"), (PROVIDERS, "GET, POST")):
        for method in ("DELETE", "OPTIONS", "PATCH"):
            answer = world.client.request(method, path, headers={"X-Auth-Token": "admin"})
            assert (answer.status_code, answer.headers["allow"]) == (405, allow), (method, path)
    assert status(world, "HEAD", PROVIDERS, {}) == 405


@pytest.mark.parametrize(
    ("version", "expected"), [("1.14", 200), ("latest", 200), ("0.5", 406), ("1.40", 406), ("1.2.3", 400), ("x.y", 400)]
)
@pytest.mark.parametrize("path", ["/placement", PROVIDERS])
def test_versions_that_are_none_and_that_are_not_there(world: World, path: str, version: str, expected: int) -> None:
    headers = {"X-Auth-Token": "admin", "OpenStack-API-Version": f"placement {version}"}
    answer = world.client.get(path, headers=headers)
    assert answer.status_code == expected
    if expected != 400:
        assert answer.headers["vary"] == "openstack-api-version"
        assert answer.headers["openstack-api-version"] == f"placement {'1.39' if version == 'latest' else version}"
    assert ("last-modified" in answer.headers) == (version == "latest")


def test_errors_follow_accept(world: World) -> None:
    for accept, media in (("*/*", "application/json"), ("text/html", "text/html"), ("text/plain", "text/plain")):
        answer = world.client.get("/placement/nothing", headers={"X-Auth-Token": "admin", "Accept": accept})
        assert answer.status_code == 404
        assert answer.headers["content-type"].split(";")[0] == media
