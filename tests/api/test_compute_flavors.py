"""Flavors, who may use private ones, and their extra specs."""

from __future__ import annotations

import pytest

from cumulet.testing import Client, JsonObject

LATEST = "2.104"


def make(admin: Client, **attributes: object) -> JsonObject:
    wanted = {"name": "c2.small", "ram": 1024, "vcpus": 2, "disk": 10} | attributes
    answer = admin.compute("POST", "/flavors", {"flavor": wanted}, version=LATEST)
    assert answer.status == 200, answer.text
    flavor: dict[str, object] = answer["flavor"]
    return flavor


def names(client: Client, query: str = "") -> list[str]:
    return [flavor["name"] for flavor in client.compute("GET", f"/flavors{query}")["flavors"]]


def test_the_shape_of_a_flavor_grows_and_shrinks_with_its_versions(admin: Client) -> None:
    flavor_id = make(admin, id="f1", description="for tests")["id"]

    def shown(version: str) -> JsonObject:
        flavor: dict[str, object] = admin.compute("GET", f"/flavors/{flavor_id}", version=version)["flavor"]
        return flavor

    assert shown("2.1")["swap"] == ""
    assert "description" not in shown("2.54")
    assert shown("2.55")["description"] == "for tests"
    assert "extra_specs" not in shown("2.60")
    assert shown("2.61")["extra_specs"] == {}
    assert shown("2.75")["swap"] == 0
    assert "rxtx_factor" in shown("2.101")
    assert not {"rxtx_factor", "OS-FLV-DISABLED:disabled"} & set(shown("2.102"))


@pytest.mark.parametrize(
    "wrong", [{"ram": 0}, {"vcpus": "none"}, {"disk": -1}, {"name": " padded "}, {"id": " x"}, {"colour": "red"}]
)
def test_a_flavor_that_makes_no_sense_is_refused(admin: Client, wrong: JsonObject) -> None:
    wanted = {"name": "odd", "ram": 1, "vcpus": 1, "disk": 1} | wrong
    assert admin.compute("POST", "/flavors", {"flavor": wanted}).status == 400
    assert "odd" not in names(admin)


def test_names_and_ids_are_given_once(admin: Client) -> None:
    make(admin, id="f1")
    same_name = {"flavor": {"name": "c2.small", "ram": 1, "vcpus": 1, "disk": 1}}
    same_id = {"flavor": {"name": "other", "id": "f1", "ram": 1, "vcpus": 1, "disk": 1}}
    assert admin.compute("POST", "/flavors", same_name).status == 409
    assert admin.compute("POST", "/flavors", same_id).status == 409


def test_only_administrators_make_flavors(member: Client, manager: Client) -> None:
    wanted = {"flavor": {"name": "mine", "ram": 1, "vcpus": 1, "disk": 1}}
    for client in (member, manager):
        assert client.compute("POST", "/flavors", wanted).status == 403


def test_a_private_flavor_is_seen_by_projects_that_were_given_it(
    admin: Client, member: Client, other_member: Client
) -> None:
    make(admin, id="secret", name="secret", **{"os-flavor-access:is_public": False})
    assert "secret" not in names(member)
    assert member.compute("GET", "/flavors/secret").status == 404
    share = {"addTenantAccess": {"tenant": member.project_id}}
    assert admin.compute("POST", "/flavors/secret/action", share).status == 200
    assert admin.compute("POST", "/flavors/secret/action", share).status == 409
    assert "secret" in names(member)
    assert "secret" not in names(other_member)
    access = admin.compute("GET", "/flavors/secret/os-flavor-access")["flavor_access"]
    assert access == [{"flavor_id": "secret", "tenant_id": member.project_id}]
    take = {"removeTenantAccess": {"tenant": member.project_id}}
    assert admin.compute("POST", "/flavors/secret/action", take)["flavor_access"] == []
    assert "secret" not in names(member)


def test_lists_are_filtered_sorted_and_paged(admin: Client) -> None:
    everything = names(admin, "?sort_key=memory_mb&sort_dir=asc")
    assert everything[0] == "m1.nano"
    assert names(admin, "?sort_key=memory_mb&sort_dir=desc") == everything[::-1]
    assert names(admin, "?minRam=4096&sort_key=memory_mb") == ["m1.medium", "m1.large"]
    assert admin.compute("GET", "/flavors?minRam=x").status == 400
    first = admin.compute("GET", "/flavors?limit=2&sort_key=name")
    following = first["flavors_links"][0]["href"].split("/compute/v2.1")[1]
    second = admin.compute("GET", following)
    got = [f["name"] for f in first["flavors"] + second["flavors"]]
    assert got == sorted(everything)[:4]


def test_extra_specs_come_and_go(admin: Client, member: Client) -> None:
    make(admin, id="f1")
    path = "/flavors/f1/os-extra_specs"
    specs = {"extra_specs": {"hw:cpu_policy": "shared", "own:thing": "1"}}
    assert admin.compute("POST", path, specs).status == 200
    assert member.compute("POST", path, specs).status == 403
    assert member.compute("GET", path)["extra_specs"] == specs["extra_specs"]
    assert admin.compute("PUT", f"{path}/own:thing", {"own:thing": "2"}).status == 200
    assert admin.compute("PUT", f"{path}/own:thing", {"another": "2"}).status == 400
    assert admin.compute("DELETE", f"{path}/own:thing").status == 200
    assert admin.compute("GET", f"{path}/own:thing").status == 404


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("hw:cpu_policy", "best"),
        ("hw:cpu_cores", "0"),
        ("hw:no_such", "1"),
        ("quota:cpu_shares", "x"),
        ("trait:HW_CPU", "maybe"),
        ("hw:boot_menu", "perhaps"),
        ("hw:cpu_realtime_mask", "all"),
    ],
)
def test_extra_specs_that_mean_nothing_are_refused_from_2_86_on(admin: Client, spec: str, value: str) -> None:
    make(admin, id="f1")
    body = {"extra_specs": {spec: value}}
    assert admin.compute("POST", "/flavors/f1/os-extra_specs", body, version="2.86").status == 400
    assert admin.compute("POST", "/flavors/f1/os-extra_specs", body, version="2.85").status == 200


@pytest.mark.parametrize(("path", "key"), [("a%0A", "a\n"), ("a%1Bb", "a\x1bb"), ("%C3%A4", "ä")])
def test_a_key_in_a_path_is_one_that_a_body_may_have(admin: Client, path: str, key: str) -> None:
    make(admin, id="f1")
    answer = admin.compute("PUT", f"/flavors/f1/os-extra_specs/{path}", {key: "x"}, version="2.1")
    assert (answer.status, "A key is letters" in answer.text) == (400, True), answer.text
    assert admin.compute("GET", "/flavors/f1/os-extra_specs")["extra_specs"] == {}


def test_a_deleted_flavor_stays_with_its_servers(admin: Client) -> None:
    make(admin, id="f1", ram=64, vcpus=1, disk=1)
    image = admin.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    wanted = {"server": {"name": "one", "imageRef": image, "flavorRef": "f1", "networks": "none"}}
    server_id = admin.compute("POST", "/servers", wanted)["server"]["id"]
    assert admin.compute("DELETE", "/flavors/f1").status == 202
    assert admin.compute("GET", "/flavors/f1").status == 404
    assert admin.wait_for_status(server_id, "ACTIVE")["flavor"]["original_name"] == "c2.small"
