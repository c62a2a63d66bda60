"""Servers through the API: created one or many, found, changed, deleted, and everything that is refused on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cumulet.testing import Answer, Client, JsonObject, TestCloud

LATEST = "2.104"
NOBODY = "00000000-0000-4000-8000-000000000000"


def image_and_flavor(client: Client) -> dict[str, str]:
    image = client.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    flavors = client.compute("GET", "/flavors")["flavors"]
    return {"imageRef": image, "flavorRef": next(f["id"] for f in flavors if f["name"] == "m1.nano")}


def ask_for(
    client: Client, *, version: str = LATEST, hints: Mapping[str, object] | None = None, **attributes: object
) -> Answer:
    wanted = {"name": "one", "networks": "none"} | image_and_flavor(client) | attributes
    body: dict[str, object] = {"server": wanted}
    if hints is not None:
        body["os:scheduler_hints"] = hints
    return client.compute("POST", "/servers", body, version=version)


def create(client: Client, **attributes: Any) -> JsonObject:
    answer = ask_for(client, **attributes)
    assert answer.status == 202, answer.text
    return client.wait_for_status(answer["server"]["id"], "ACTIVE")


def listed(client: Client, query: str, *, version: str = LATEST) -> list[str]:
    answer = client.compute("GET", f"/servers?{query}", version=version)
    assert answer.status == 200, answer.text
    return [server["name"] for server in answer["servers"]]


def test_a_created_server_boots_and_says_where_it_is_found(member: Client) -> None:
    answer = ask_for(member, name="Web 1", metadata={"role": "web"}, description="the first")
    assert answer.status == 202
    location = answer.headers["location"]
    assert location.endswith(f"/servers/{answer['server']['id']}")
    server = member.wait_for_status(answer["server"]["id"], "ACTIVE")
    assert server["metadata"] == {"role": "web"}
    assert server["addresses"] == {}
    seen = member.compute("GET", f"/servers/{server['id']}", version=LATEST)["server"]
    assert (seen["OS-EXT-SRV-ATTR:hostname"], seen["description"]) == ("web-1", "the first")


def test_servers_of_one_request_are_numbered_and_share_a_reservation(admin: Client) -> None:
    answer = ask_for(admin, name="pair", min_count=2, return_reservation_id=True)
    assert list(answer.json) == ["reservation_id"]
    assert sorted(listed(admin, f"reservation_id={answer['reservation_id']}")) == ["pair-1", "pair-2"]


def test_what_only_administrators_see_members_do_not(member: Client, admin: Client) -> None:
    server_id = create(member)["id"]
    hidden = {"OS-EXT-SRV-ATTR:host", "OS-EXT-SRV-ATTR:instance_name", "host_status"}
    assert hidden <= set(admin.server(server_id))
    assert not hidden & set(member.server(server_id))


def test_another_projects_server_is_as_one_that_never_was(member: Client, other_member: Client) -> None:
    server_id = create(member)["id"]
    foreign = other_member.compute("GET", f"/servers/{server_id}")
    unknown = other_member.compute("GET", f"/servers/{NOBODY}")
    assert foreign.status == unknown.status == 404
    assert foreign.text.replace(server_id, NOBODY) == unknown.text
    assert listed(other_member, "") == []


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"name": ""}, 400),
        ({"flavorRef": "no-such-flavor"}, 400),
        ({"imageRef": NOBODY}, 400),
        ({"imageRef": ""}, 400),
        ({"networks": [{"uuid": NOBODY}]}, 400),
        ({"key_name": "nobodys"}, 400),
        ({"min_count": 3, "max_count": 2}, 400),
        ({"availability_zone": "nowhere"}, 400),
        ({"availability_zone": "nova:host1"}, 403),
        ({"host": "host1"}, 403),
        ({"hostname": "same", "min_count": 2}, 400),
        ({"min_count": 11}, 403),
        ({"metadata": {"too long": "x" * 256}}, 400),
        ({"surprise": 1}, 400),
        ({"trusted_image_certificates": ["a"]}, 501),
        ({"block_device_mapping_v2": [{"boot_index": 0, "source_type": "volume", "uuid": NOBODY}]}, 501),
    ],
)
def test_a_request_that_cannot_be_met_creates_nothing(member: Client, wrong: JsonObject, status: int) -> None:
    answer = ask_for(member, **wrong)
    assert answer.status == status, answer.text
    assert listed(member, "") == []


def test_an_administrator_names_the_host(admin: Client) -> None:
    by_zone = create(admin, name="by-zone", availability_zone="nova:host2")
    by_host = create(admin, name="by-host", host="host1")
    assert by_zone["OS-EXT-SRV-ATTR:host"] == "host2"
    assert by_host["OS-EXT-SRV-ATTR:host"] == "host1"
    assert ask_for(admin, host="host9").status == 400


def test_a_server_that_fits_nowhere_ends_in_error_with_a_fault(admin: Client) -> None:
    huge = {"flavor": {"name": "huge", "ram": 2_000_000, "vcpus": 1, "disk": 1}}
    flavor_id = admin.compute("POST", "/flavors", huge)["flavor"]["id"]
    project = admin.project_id
    admin.compute("PUT", f"/os-quota-sets/{project}", {"quota_set": {"ram": -1}})
    server_id = ask_for(admin, flavorRef=flavor_id)["server"]["id"]
    server = admin.wait_for_status(server_id, "ERROR")
    assert server["fault"]["message"].startswith("No valid host was found")


def test_the_quota_of_servers_counts_what_is_there_now(member: Client) -> None:
    assert ask_for(member, min_count=10).status == 202
    refused = ask_for(member, name="eleventh")
    assert refused.status == 403
    assert "Quota exceeded for instances" in refused.text
    some = member.compute("GET", "/servers")["servers"][0]["id"]
    member.wait_for_status(some, "ACTIVE")
    assert member.compute("DELETE", f"/servers/{some}").status == 204
    member.wait("the server to be gone", lambda: member.compute("GET", f"/servers/{some}").status == 404)
    assert ask_for(member, name="eleventh").status == 202


def test_lists_are_filtered_by_what_was_asked(member: Client) -> None:
    red = create(member, name="red", tags=["colour", "warm"])
    create(member, name="blue.1", tags=["colour"])
    assert listed(member, "name=blue") == ["blue.1"]
    assert listed(member, "name=%5Eb.%2B1%24") == ["blue.1"]
    assert listed(member, "tags=colour,warm") == ["red"]
    assert listed(member, "not-tags=warm") == ["blue.1"]
    assert listed(member, "tags-any=warm,cold") == ["red"]
    assert listed(member, "status=ERROR") == []
    assert sorted(listed(member, "status=ACTIVE")) == ["blue.1", "red"]
    member.action(red["id"], {"lock": {"locked_reason": "keep"}})
    assert listed(member, "locked=true") == ["red"]


def test_a_filter_cannot_be_made_to_run_for_ever(member: Client) -> None:
    create(member, name="a" * 60)
    assert listed(member, "name=" + "a*" * 40 + "b") == []
    assert listed(member, "name=(a%2B)%2B%24") == ["a" * 60]
    assert member.compute("GET", "/servers?name=(a)%5C1").status == 400


def test_a_text_that_is_too_long_to_be_in_anything_is_in_nothing(member: Client, admin: Client) -> None:
    """SQLite fails with parts of more than 50,000 bytes, where there is something to look at."""
    create(member, name="a" * 60)
    for part in ("a" * 1025, "a" * 60_000):
        for name in ("name", "key_name", "ip"):
            assert listed(member, f"{name}={part}") == []
        found = member.compute("GET", f"/flavors?name={part}", version="2.102")
        assert found["flavors"] == []
        assert admin.compute("GET", f"/os-hypervisors/{part}/search").status == 404
        assert member.request("GET", f"/network/v2.0/ports?fixed_ips=ip_address_substr={part}")["ports"] == []


def test_pages_lead_through_all_servers_once(member: Client) -> None:
    ask_for(member, name="many", min_count=5)
    seen: list[str] = []
    path: str | None = "/servers?limit=2&sort_key=display_name&sort_dir=asc"
    while path is not None:
        answer = member.compute("GET", path)
        seen += [server["name"] for server in answer["servers"]]
        following = answer.json.get("servers_links")
        path = following[0]["href"].split("/compute/v2.1")[1] if following else None
    assert seen == [f"many-{n}" for n in range(1, 6)]
    assert member.compute("GET", f"/servers?marker={NOBODY}").status == 400


def test_only_administrators_list_all_projects(member: Client, other_member: Client, admin: Client) -> None:
    create(member, name="mine")
    create(other_member, name="theirs")
    assert listed(member, "") == ["mine"]
    assert member.compute("GET", "/servers?all_tenants=1").status == 403
    assert sorted(listed(admin, "all_tenants=1")) == ["mine", "theirs"]
    assert listed(admin, f"all_tenants=1&project_id={other_member.project_id}") == ["theirs"]


def test_unknown_parameters_are_refused_from_2_75_on(member: Client) -> None:
    assert member.compute("GET", "/servers?surprise=1", version="2.74").status == 200
    assert member.compute("GET", "/servers?surprise=1", version="2.75").status == 400


def test_deleted_servers_are_listed_to_who_asks_for_changes(member: Client, admin: Client) -> None:
    server_id = create(member, name="short-lived")["id"]
    member.compute("DELETE", f"/servers/{server_id}")
    member.wait("the server to be gone", lambda: member.compute("GET", f"/servers/{server_id}").status == 404)
    assert listed(member, "") == []
    assert listed(member, "changes-since=2020-01-01T00:00:00Z") == ["short-lived"]
    assert member.compute("GET", "/servers?status=deleted").status == 403
    assert listed(admin, "status=deleted&all_tenants=1") == ["short-lived"]


def test_a_server_is_renamed_and_described(member: Client, reader: Client) -> None:
    server_id = create(member)["id"]
    change = {"server": {"name": "two", "description": "second", "hostname": "two"}}
    assert reader.compute("PUT", f"/servers/{server_id}", change, version=LATEST).status == 403
    answer = member.compute("PUT", f"/servers/{server_id}", change, version=LATEST)
    assert answer.status == 200
    assert (answer["server"]["name"], answer["server"]["description"]) == ("two", "second")
    assert (
        "OS-EXT-STS:vm_state"
        not in member.compute("PUT", f"/servers/{server_id}", {"server": {}}, version="2.74")["server"]
    )


def test_a_pin_to_a_zone_is_set_to_where_the_server_is_and_taken_away(member: Client) -> None:
    server_id = create(member)["id"]

    def pin(zone: str | None) -> Answer:
        return member.compute(
            "PUT", f"/servers/{server_id}", {"server": {"pinned_availability_zone": zone}}, version=LATEST
        )

    assert pin("elsewhere").status == 409
    assert pin("nova")["server"]["pinned_availability_zone"] == "nova"
    assert pin("other").status == 409
    assert pin(None)["server"]["pinned_availability_zone"] is None


def test_metadata_and_tags_are_changed_piece_by_piece(member: Client) -> None:
    server_id = create(member, metadata={"a": "1"})["id"]
    path = f"/servers/{server_id}/metadata"
    assert member.compute("POST", path, {"metadata": {"b": "2"}})["metadata"] == {"a": "1", "b": "2"}
    assert member.compute("PUT", f"{path}/a", {"meta": {"a": "3"}})["meta"] == {"a": "3"}
    assert member.compute("PUT", f"{path}/a", {"meta": {"c": "3"}}).status == 400
    assert member.compute("DELETE", f"{path}/a").status == 204
    assert member.compute("GET", path)["metadata"] == {"b": "2"}
    assert member.compute("DELETE", f"{path}/a").status == 404
    tags = f"/servers/{server_id}/tags"
    assert member.compute("PUT", f"{tags}/new").status == 201
    assert member.compute("PUT", f"{tags}/new").status == 204
    assert member.compute("PUT", tags, {"tags": ["x", "y"]})["tags"] == ["x", "y"]
    assert member.compute("GET", f"{tags}/new").status == 404
    assert member.compute("DELETE", tags).status == 204
    assert member.compute("GET", tags)["tags"] == []


def test_a_server_on_a_network_has_its_address_and_security_group(member: Client) -> None:
    network = member.request("POST", "/network/v2.0/networks", {"network": {"name": "lan"}})["network"]["id"]
    subnet = {"subnet": {"network_id": network, "cidr": "10.7.0.0/24", "ip_version": 4}}
    assert member.request("POST", "/network/v2.0/subnets", subnet).status == 201
    server = create(member, networks=[{"uuid": network}])
    address = server["addresses"]["lan"][0]
    assert address["addr"].startswith("10.7.0.")
    assert address["OS-EXT-IPS:type"] == "fixed"
    assert server["security_groups"] == [{"name": "default"}]
    group = {"security_group": {"name": "web"}}
    assert member.request("POST", "/network/v2.0/security-groups", group).status == 201
    assert member.action(server["id"], {"addSecurityGroup": {"name": "web"}}).status == 202
    assert member.server(server["id"])["security_groups"] == [{"name": "default"}, {"name": "web"}]
    assert member.action(server["id"], {"removeSecurityGroup": {"name": "web"}}).status == 202
    assert member.action(server["id"], {"removeSecurityGroup": {"name": "web"}}).status == 404
    interface = member.compute("GET", f"/servers/{server['id']}/os-interface")["interfaceAttachments"][0]
    assert interface["fixed_ips"][0]["ip_address"] == address["addr"]
    assert listed(member, f"ip={address['addr']}") == ["one"]


def test_servers_of_an_anti_affine_group_do_not_share_a_host(cloud: TestCloud, admin: Client) -> None:
    wanted = {"server_group": {"name": "apart", "policy": "anti-affinity"}}
    group = admin.compute("POST", "/os-server-groups", wanted, version=LATEST)["server_group"]["id"]
    first = ask_for(admin, name="first", hints={"group": group})["server"]["id"]
    on_first = admin.wait_for_status(first, "ACTIVE")["OS-EXT-SRV-ATTR:host"]
    second = ask_for(admin, name="second", hints={"group": group})["server"]["id"]
    on_second = admin.wait_for_status(second, "ACTIVE")["OS-EXT-SRV-ATTR:host"]
    assert {on_first, on_second} == set(cloud.hosts)
    third = ask_for(admin, name="third", hints={"group": group})["server"]["id"]
    assert admin.wait_for_status(third, "ERROR")["fault"]["message"].startswith("No valid host")
    members = admin.compute("GET", f"/os-server-groups/{group}")["server_group"]["members"]
    assert members == [first, second, third]


def test_a_server_may_stay_near_or_far_from_servers_of_its_own_project(
    cloud: TestCloud, admin: Client, member: Client, other_member: Client
) -> None:
    """Another project's server is no server: an id one has heard of places nobody beside it."""

    def placed(**hints: object) -> JsonObject:
        server = ask_for(member, hints=hints)["server"]["id"]
        admin.wait("a server placed or refused", lambda: admin.server(server)["status"] != "BUILD")
        return admin.server(server)

    def host_of(server: JsonObject) -> str:
        return str(admin.server(server["id"])["OS-EXT-SRV-ATTR:host"])

    theirs = [create(other_member, name=f"theirs-{n}")["id"] for n in range(2)]
    assert {host_of(admin.server(server)) for server in theirs} == set(cloud.hosts)
    first = placed()
    near, far = placed(same_host=first["id"]), placed(different_host=[first["id"]])
    assert host_of(near) == host_of(first) != host_of(far)
    assert placed(different_host=theirs)["status"] == "ACTIVE"
    for unseen in (theirs[0], "7c2d25ca-3d12-4a09-96b4-4c32ac30e6de"):
        refused = placed(same_host=[unseen])
        assert refused["status"] == "ERROR"
        assert refused["fault"]["message"].startswith("No valid host")
