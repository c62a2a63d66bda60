"""Lists of images: filters, order, pages, and what cannot be asked."""

from __future__ import annotations

import pytest

from .conftest import UNKNOWN, World


def names(world: World, who: str = "member", **params: object) -> list[str]:
    answer = world.ask(who, "GET", "/images", params=params)
    assert answer.status_code == 200, answer.text
    return [image["name"] for image in answer.json()["images"]]


def test_images_are_filtered(world: World) -> None:
    world.active(b"x" * 100, name="small", os_distro="debian", tags=["t", "u"])
    world.active(b"x" * 10_000, name="large", os_distro="arch", tags=["t"])
    world.create(name="queued", protected=True)
    world.create(name="hidden", os_hidden=True)
    assert set(names(world)) == {"small", "large", "queued"}
    assert names(world, os_hidden="true") == names(world, os_hidden="True") == ["hidden"]
    assert names(world, name="small") == ["small"]
    assert set(names(world, name="in:small,queued")) == {"small", "queued"}
    assert names(world, name='in:"small"') == ["small"]
    assert names(world, os_distro="arch") == ["large"]
    assert set(names(world, tag="t")) == {"small", "large"}
    assert names(world, tag=["t", "u"]) == ["small"]
    assert names(world, size_min="5000") == ["large"]
    assert names(world, size_max="5000") == ["small"]
    assert names(world, status="queued") == ["queued"]
    assert names(world, protected="true") == ["queued"]
    assert set(names(world, visibility="shared")) == {"small", "large", "queued"}
    assert names(world, visibility="public") == []
    assert names(world, owner="p2") == []
    assert set(names(world, created_at="gt:2020-01-01T00:00:00Z")) == {"small", "large", "queued"}
    assert names(world, created_at="lt:2020-01-01T00:00:00Z") == []
    assert names(world, nosuchproperty="x") == []
    assert names(world, name="' OR 1=1 --") == []


def test_community_images_of_others_show_only_when_asked_for(world: World) -> None:
    world.create(name="mine", visibility="community")
    world.create("other", name="theirs", visibility="community")
    assert names(world) == ["mine"]
    assert set(names(world, visibility="community")) == {"mine", "theirs"}
    assert set(names(world, visibility="all")) == {"mine", "theirs"}


def test_images_are_sorted_and_paged(world: World) -> None:
    for name, disk_format in (("c", "raw"), ("a", "qcow2"), ("d", "raw"), ("b", "qcow2")):
        world.create(name=name, disk_format=disk_format)
    assert names(world) == ["b", "d", "a", "c"]
    assert names(world, sort="name:asc") == ["a", "b", "c", "d"]
    assert names(world, sort_key="name", sort_dir="asc") == ["a", "b", "c", "d"]
    assert names(world, sort="disk_format:asc,name:desc") == ["b", "a", "d", "c"]
    for params in ({}, {"sort": "name:asc"}, {"sort": "disk_format,name:asc"}, {"sort": "size"}):
        whole = names(world, **params)
        page = world.ask("member", "GET", "/images", params={**params, "limit": 1}).json()
        walked = [image["name"] for image in page["images"]]
        while "next" in page:
            page = world.ask("member", "GET", page["next"].removeprefix("/v2")).json()
            walked += [image["name"] for image in page["images"]]
        assert walked == whole, params


def test_those_that_are_alike_follow_in_the_direction_that_was_asked_for(world: World) -> None:
    ids = [world.create(name="alike", min_disk=number)["id"] for number in range(3)]

    def listed(**params: object) -> list[str]:
        return [one["id"] for one in world.ask("member", "GET", "/images", params=params).json()["images"]]

    assert listed(sort="name:asc") == listed(sort_key="name", sort_dir="asc") == ids
    assert listed(sort="name:desc") == listed(sort_key="name") == ids[::-1]


@pytest.mark.parametrize(
    ("comparison", "found"),
    [("gt", False), ("gte", True), ("eq", True), ("lte", True), ("lt", False), ("neq", False), ("", True)],
)
def test_a_time_is_compared_by_the_second_that_is_shown(world: World, comparison: str, found: bool) -> None:
    second = world.create(name="one")["created_at"]
    wanted = f"{comparison}:{second}" if comparison else second
    assert names(world, created_at=wanted) == (["one"] if found else [])


def test_a_list_has_glances_links(world: World) -> None:
    image = world.create()
    world.create()
    page = world.ask("member", "GET", "/images", params={"limit": "1", "sort": "name:asc"}).json()
    assert page["first"] == "/v2/images?limit=1&sort=name%3Aasc"
    assert page["next"].startswith("/v2/images?limit=1&sort=name%3Aasc&marker=")
    assert page["schema"] == "/v2/schemas/images"
    assert world.ask("member", "GET", "/images").json().get("next") is None
    assert image["id"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "limit=-1",
        "limit=%31%0a",
        "marker=nothing",
        "sort=nothing",
        "sort=name:up",
        "sort=name&sort_key=name",
        "sort_key=name&sort_key=id&sort_key=size&sort_dir=asc&sort_dir=desc",
        "visibility=none",
        "os_hidden=maybe",
        "protected=1",
        "member_status=x",
        "changes-since=2020-01-01",
        "size_min=big",
        "size=1e3",
        "name=like:x",
        "name=in:%22open",
        "created_at=yesterday",
        "created_at=near:2020-01-01T00:00:00Z",
    ],
)
def test_a_list_that_cannot_be_understood(world: World, query: str) -> None:
    assert world.ask("member", "GET", f"/images?{query}").status_code == 400


def test_a_marker_out_of_sight_is_refused(world: World) -> None:
    image = world.create("other", visibility="private")
    hidden = world.ask("member", "GET", "/images", params={"marker": image["id"]})
    unknown = world.ask("member", "GET", "/images", params={"marker": UNKNOWN})
    assert (hidden.status_code, hidden.text.replace(image["id"], UNKNOWN)) == (400, unknown.text)
