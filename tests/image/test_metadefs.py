"""Metadata definitions: what a namespace holds, who sees it, what is refused, and the catalog that comes along."""

from __future__ import annotations

import pytest

from cumulet.db.engine import Database
from cumulet.image import metadef_catalog, metadef_namespaces, metadef_store
from cumulet.testing import JsonObject

from .conftest import World

ROOT = "/metadefs/namespaces"
SPEED = {"title": "Speed", "type": "integer", "minimum": 1, "default": 7, "minLength": 2}
WHOLE: dict[str, object] = {
    "namespace": "N",
    "display_name": "Names",
    "visibility": "public",
    "owner": "p1",
    "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": "hw:"}],
    "properties": {"speed": SPEED},
    "objects": [{"name": "disk", "required": ["size"], "properties": {"size": {"title": "Size", "type": "integer"}}}],
    "tags": [{"name": "blue"}, {"name": "red"}],
}


def make(world: World, **values: object) -> JsonObject:
    answer = world.ask("admin", "POST", ROOT, json={"namespace": "N", **values})
    assert answer.status_code == 201, answer.text
    made: dict[str, object] = answer.json()
    return made


def names(world: World, who: str, query: str = "") -> list[str]:
    answer = world.ask(who, "GET", f"{ROOT}{query}")
    assert answer.status_code == 200, answer.text
    return [each["namespace"] for each in answer.json()["namespaces"]]


def test_a_namespace_is_made_with_all_it_holds_and_shown_so(world: World) -> None:
    answer = world.ask("admin", "POST", ROOT, json=WHOLE)
    assert answer.status_code == 201
    assert answer.headers["location"].endswith("/image/v2/metadefs/namespaces/N")
    made = answer.json()
    assert made["tags"] == WHOLE["tags"]
    assert made["properties"]["speed"]["default"] == "7"
    shown = world.ask("reader", "GET", f"{ROOT}/N").json()
    assert {key: shown[key] for key in ("namespace", "display_name", "visibility", "owner", "protected", "self")} == {
        "namespace": "N",
        "display_name": "Names",
        "visibility": "public",
        "owner": "p1",
        "protected": False,
        "self": "/v2/metadefs/namespaces/N",
    }
    assert "description" not in shown
    assert shown["properties"] == {"speed": {**SPEED, "default": "7"}}
    assert [tag["name"] for tag in shown["tags"]] == ["red", "blue"]
    assert [(each["name"], each["prefix"]) for each in shown["resource_type_associations"]] == [
        ("OS::Nova::Flavor", "hw:")
    ]
    (disk,) = shown["objects"]
    assert (disk["self"], disk["required"]) == ("/v2/metadefs/namespaces/N/objects/disk", ["size"])


def test_names_of_properties_have_the_prefix_of_the_type_that_is_asked_for(world: World) -> None:
    world.ask("admin", "POST", ROOT, json=WHOLE)
    shown = world.ask("reader", "GET", f"{ROOT}/N?resource_type=OS::Nova::Flavor").json()
    assert list(shown["properties"]) == ["hw:speed"]
    assert (list(shown["objects"][0]["properties"]), shown["objects"][0]["required"]) == (["hw:size"], ["hw:size"])
    one = world.ask("reader", "GET", f"{ROOT}/N/properties/hw:speed?resource_type=OS::Nova::Flavor")
    assert one.json()["name"] == "speed"
    for path in ("speed?resource_type=OS::Nova::Flavor", "hw:speed?resource_type=OS::Glance::Image", "hw:speed"):
        assert world.ask("reader", "GET", f"{ROOT}/N/properties/{path}").status_code == 404


def test_a_private_namespace_is_seen_by_its_project_and_administrators(world: World) -> None:
    make(world, owner="p1", objects=[{"name": "disk"}])
    for path in ("N", "N/objects", "N/objects/disk", "N/properties", "N/tags", "N/resource_types"):
        seen = {who: world.ask(who, "GET", f"{ROOT}/{path}").status_code for who in ("admin", "reader", "other")}
        assert seen == {"admin": 200, "reader": 200, "other": 404}, path
    assert (names(world, "reader"), names(world, "other"), names(world, "admin")) == (["N"], [], ["N"])
    never = world.ask("other", "DELETE", f"{ROOT}/N")
    assert (never.status_code, world.ask("reader", "DELETE", f"{ROOT}/N").status_code) == (404, 403)


def test_what_a_namespace_holds_is_changed_in_place_and_deleted(world: World) -> None:
    make(world, **{key: value for key, value in WHOLE.items() if key != "namespace"})
    changes = {
        "objects/disk": {"name": "drive", "description": "turns"},
        "properties/speed": {"name": "pace", "title": "Pace", "type": "string", "enum": ["a"]},
        "tags/blue": {"name": "green"},
    }
    for path, body in changes.items():
        answer = world.ask("admin", "PUT", f"{ROOT}/N/{path}", json=body)
        assert (answer.status_code, answer.json() | body) == (200, answer.json())
        assert world.ask("admin", "GET", f"{ROOT}/N/{path}").status_code == 404
    assert "required" not in world.ask("admin", "GET", f"{ROOT}/N/objects/drive").json()
    for path in ("objects/drive", "properties/pace", "tags/green", "resource_types/OS::Nova::Flavor"):
        assert world.ask("admin", "DELETE", f"{ROOT}/N/{path}").status_code == 204
        assert world.ask("admin", "DELETE", f"{ROOT}/N/{path}").status_code == 404
    left = world.ask("admin", "GET", f"{ROOT}/N").json()
    assert left["tags"] == [{"name": "red"}]
    assert {"objects", "properties", "resource_type_associations"}.isdisjoint(left)
    # A type of resources stays when its last association goes, and when its last namespace goes.
    assert types(world) == ["OS::Nova::Flavor"]
    assert world.ask("admin", "DELETE", f"{ROOT}/N").status_code == 204
    assert types(world) == ["OS::Nova::Flavor"]


def types(world: World) -> list[str]:
    return [each["name"] for each in world.ask("reader", "GET", "/metadefs/resource_types").json()["resource_types"]]


@pytest.mark.parametrize("kind", ["objects", "properties", "tags"])
def test_all_of_a_kind_go_at_once_and_the_rest_stays(world: World, kind: str) -> None:
    world.ask("admin", "POST", ROOT, json=WHOLE)
    assert world.ask("admin", "DELETE", f"{ROOT}/N/{kind}").status_code == 204
    left = world.ask("admin", "GET", f"{ROOT}/N").json()
    assert {"objects", "properties", "tags"} - left.keys() == {kind}


def test_a_protected_namespace_keeps_all_it_holds(world: World) -> None:
    make(world, protected=True, **{key: value for key, value in WHOLE.items() if key != "namespace"})
    held = ("objects/disk", "properties/speed", "tags/red", "resource_types/OS::Nova::Flavor")
    for path in ("", "/objects", "/properties", "/tags", *(f"/{one}" for one in held)):
        answer = world.ask("admin", "DELETE", f"{ROOT}/N{path}")
        assert (answer.status_code, "protected" in answer.text) == (403, True), path
    assert world.ask("admin", "PUT", f"{ROOT}/N", json={"namespace": "N"}).json()["protected"] is False
    assert world.ask("admin", "DELETE", f"{ROOT}/N").status_code == 204
    assert names(world, "admin") == []


def test_tags_take_the_place_of_those_there_are_or_stand_beside_them(world: World) -> None:
    make(world, tags=[{"name": "blue"}])
    path = f"{ROOT}/N/tags"
    red = {"tags": [{"name": "red"}]}
    appended = world.ask("admin", "POST", path, json=red, headers={"X-OpenStack-Append": "True"})
    assert (appended.status_code, appended.json()) == (201, red)
    assert world.ask("admin", "POST", path, json=red, headers={"X-OpenStack-Append": "True"}).status_code == 409
    listed = world.ask("reader", "GET", f"{path}?limit=1&sort_key=name&sort_dir=asc")
    assert listed.status_code == 404, "a private namespace of the administrator's project"
    listed = world.ask("admin", "GET", f"{path}?limit=1&sort_key=name&sort_dir=asc")
    assert listed.json() == {"tags": [{"name": "blue"}]}
    assert world.ask("admin", "GET", f"{path}?marker=blue&sort_key=name&sort_dir=asc").json() == red
    assert world.ask("admin", "POST", path, json={"tags": [{"name": "a"}, {"name": "b"}]}).status_code == 201
    assert world.ask("admin", "GET", path).json() == {"tags": [{"name": "b"}, {"name": "a"}]}
    assert world.ask("admin", "POST", f"{path}/c").json()["name"] == "c"
    assert world.ask("admin", "POST", f"{path}/c").status_code == 409


def test_namespaces_are_listed_in_pages_sorted_and_by_type(world: World) -> None:
    for number in range(5):
        types = [{"name": "OS::Odd"}] if number % 2 else []
        make(world, namespace=f"n{number}", visibility="public", resource_type_associations=types)
    assert names(world, "reader", "?sort_key=namespace&sort_dir=asc") == [f"n{n}" for n in range(5)]
    assert names(world, "reader", "?resource_types=OS::Odd,OS::None&sort_key=namespace&sort_dir=asc") == ["n1", "n3"]
    assert names(world, "reader", "?visibility=private") == []
    page, seen = f"{ROOT}?limit=2&sort_key=display_name", []
    while page:
        answer = world.ask("reader", "GET", page).json()
        seen += [each["namespace"] for each in answer["namespaces"]]
        page = answer.get("next", "").removeprefix("/v2")
    assert sorted(seen) == [f"n{n}" for n in range(5)]
    odd = world.ask("reader", "GET", f"{ROOT}?resource_types=OS::Odd").json()["namespaces"][0]
    assert odd["resource_type_associations"][0]["name"] == "OS::Odd"


def test_namespaces_are_listed_in_pages_by_every_key(world: World) -> None:
    for number in range(3):
        make(world, namespace=f"n{number}", protected=number == 1, owner=f"p{number % 2}")
    for key in metadef_namespaces.SORT_KEYS:
        page, seen = f"{ROOT}?limit=1&sort_key={key}&sort_dir=asc", []
        while page:
            answer = world.ask("admin", "GET", page).json()
            seen += [each["namespace"] for each in answer["namespaces"]]
            page = answer.get("next", "").removeprefix("/v2")
        assert sorted(seen) == ["n0", "n1", "n2"], key


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("sort_key=colour", 400),
        ("sort_dir=up", 400),
        ("limit=many", 400),
        ("limit=-1", 400),
        ("visibility=shared", 400),
        ("marker=nothing", 404),
    ],
)
def test_a_list_with_a_wrong_query_is_refused(world: World, query: str, status: int) -> None:
    assert world.ask("reader", "GET", f"{ROOT}?{query}").status_code == status


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        *(("tags", query) for query in ("sort_key=colour", "sort_dir=up", "limit=many", "limit=-1", "visibility=x")),
        *(("objects", query) for query in ("sort_dir=up", "limit=many", "limit=0", "limit=-1", "visibility=x")),
    ],
)
def test_a_list_in_a_namespace_with_a_wrong_query_is_refused(world: World, kind: str, query: str) -> None:
    make(world)
    assert world.ask("admin", "GET", f"{ROOT}/N/{kind}?{query}").status_code == 400
    assert world.ask("admin", "GET", f"{ROOT}/N/{kind}?limit=5&sort_dir=asc&visibility=public").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("", {}, 400),
        ("", {"namespace": "x" * 81}, 400),
        ("", {"namespace": "N"}, 409),
        ("", {"namespace": "M", "visibility": "shared"}, 400),
        ("", {"namespace": "M", "colour": "blue"}, 400),
        ("", {"namespace": "M", "self": "here"}, 403),
        ("", {"namespace": "M", "created_at": "2026-01-01T00:00:00Z"}, 403),
        ("", {"namespace": "M", "properties": {"p": {"title": "P"}}}, 400),
        ("", {"namespace": "M", "tags": [{"name": "a"}, {"name": "a"}]}, 409),
        ("/N/objects", {"name": "disk"}, 409),
        ("/N/objects", {"name": "d", "schema": "there"}, 403),
        ("/N/objects", {"name": "d", "properties": {"p": {"type": "text", "title": "P"}}}, 400),
        ("/N/properties", {"name": "speed", "title": "S", "type": "string"}, 409),
        ("/N/properties", {"title": "S", "type": "string"}, 400),
        ("/N/properties", {"name": "p", "title": "S", "type": "string", "minLength": -1}, 400),
        ("/N/properties", {"name": "p", "title": "S", "type": "array", "items": {"type": "string", "x": 1}}, 400),
        ("/N/properties", {"name": "p", "title": "S", "type": "string", "enum": [1]}, 400),
        ("/N/resource_types", {"name": "OS::Nova::Flavor"}, 409),
        ("/N/resource_types", {"name": "r", "updated_at": "now"}, 403),
        ("/N/tags", {"tags": [{"colour": "blue"}]}, 400),
        ("/N/tags", {"tags": [{"name": "a", "created_at": "now"}]}, 403),
        ("/N/tags/blue", None, 409),
        ("/N/tags/" + "x" * 81, None, 400),
        ("/M/tags/blue", None, 404),
    ],
)
def test_a_wrong_body_is_refused_and_changes_nothing(world: World, path: str, body: object, status: int) -> None:
    make(world, **{key: value for key, value in WHOLE.items() if key != "namespace"})
    before = world.ask("admin", "GET", f"{ROOT}/N").json()
    assert world.ask("admin", "POST", f"{ROOT}{path}", json=body).status_code == status
    assert world.ask("admin", "GET", f"{ROOT}/N").json() == before
    assert names(world, "admin") == ["N"]


def test_names_that_are_taken_are_not_given_again(world: World) -> None:
    make(world, objects=[{"name": "a"}, {"name": "b"}])
    make(world, namespace="M")
    assert world.ask("admin", "PUT", f"{ROOT}/M", json={"namespace": "N"}).status_code == 409
    assert world.ask("admin", "PUT", f"{ROOT}/N/objects/a", json={"name": "b"}).status_code == 409
    assert world.ask("admin", "PUT", f"{ROOT}/N", json={"namespace": "L", "description": "new"}).status_code == 200
    assert world.ask("admin", "GET", f"{ROOT}/L/objects/a").status_code == 200


def test_there_are_so_many_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadef_store, "MOST_NAMESPACES", 2)
    monkeypatch.setattr(metadef_store, "MOST_OF_A_KIND", 2)
    monkeypatch.setattr(metadef_store, "MOST_TYPES", 1)
    for name in ("a", "b"):
        make(world, namespace=name)
    assert world.ask("admin", "POST", ROOT, json={"namespace": "c"}).status_code == 413
    make(world, namespace="c", owner="p1")
    assert world.ask("admin", "POST", f"{ROOT}/a/tags", json={"tags": [{"name": n} for n in "xyz"]}).status_code == 413
    assert world.ask("admin", "GET", f"{ROOT}/a/tags").json() == {"tags": []}
    for name, status in (("one", 201), ("two", 413), ("one", 409)):
        assert world.ask("admin", "POST", f"{ROOT}/a/resource_types", json={"name": name}).status_code == status
    assert types(world) == ["one"]


def test_the_catalog_is_loaded_once_and_leaves_what_there_is(world: World, database: Database) -> None:
    taken = "OS::Compute::Watchdog"
    make(world, namespace=taken, visibility="public", description="ours")
    for _ in range(2):
        metadef_catalog.load(database, world.cloud.clock)
        assert len(names(world, "reader", "?limit=100")) == 32
    assert world.ask("reader", "GET", f"{ROOT}/{taken}").json()["description"] == "ours"
    topology = world.ask("reader", "GET", f"{ROOT}/OS::Compute::VirtCPUTopology?resource_type=OS::Nova::Flavor").json()
    assert (topology["owner"], topology["protected"]) == ("admin", True)
    assert topology["properties"]["hw:cpu_cores"]["type"] == "integer"
    databases = world.ask("reader", "GET", f"{ROOT}/OS::Software::DBMS/objects").json()["objects"]
    assert [each["name"] for each in databases][:2] == ["MySQL", "PostgreSQL"]
    assert "OS::Glance::Image" in types(world)


@pytest.mark.parametrize("name", ["namespace", "objects", "property", "properties", "tags", "resource_types"])
def test_schemas_are_told(world: World, name: str) -> None:
    schema = world.ask("reader", "GET", f"/schemas/metadefs/{name}").json()
    assert schema["name"] in (name, "resource_type_associations")
    if name == "properties":
        assert schema["properties"]["properties"]["additionalProperties"]["required"] == ["type", "title"]
