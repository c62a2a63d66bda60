"""Segments: the one that each network has, and further ones."""

from __future__ import annotations

import pytest

from cumulet.network import segments
from cumulet.testing import Client
from tests.api.test_network_stories import call, make


def test_each_network_has_one_segment_which_administrators_see(member: Client, admin: Client) -> None:
    one, other = make(member, "network", name="one")["id"], make(member, "network", name="other")["id"]
    network = call(admin, "GET", f"/networks/{one}")["network"]
    (segment,) = call(admin, "GET", f"/segments?network_id={one}")["segments"]
    told = {name: segment[name] for name in ("network_id", "network_type", "physical_network", "segmentation_id")}
    assert told == {
        "network_id": one,
        "network_type": network["provider:network_type"],
        "physical_network": network["provider:physical_network"],
        "segmentation_id": network["provider:segmentation_id"],
    }
    assert call(admin, "GET", f"/segments/{segment['id']}")["segment"] == segment
    of_type = call(admin, "GET", "/segments?network_type=vxlan&sort_key=segmentation_id&sort_dir=asc")["segments"]
    numbers = [each["segmentation_id"] for each in of_type]
    assert numbers == sorted(numbers)
    assert {one, other} <= {each["network_id"] for each in of_type}
    page = call(admin, "GET", "/segments?limit=1")
    assert len(page["segments"]) == 1
    assert f"marker={page['segments'][0]['id']}" in page["segments_links"][0]["href"]
    assert call(member, "GET", "/segments?limit=1").json == {"segments": []}, "no link to a next page"
    assert call(member, "GET", f"/segments/{segment['id']}").status == 404
    assert call(member, "DELETE", f"/networks/{one}").status == 204
    gone = call(admin, "GET", f"/segments/{segment['id']}")
    assert (gone.status, gone["NeutronError"]["type"]) == (404, "SegmentNotFound")


def test_a_network_has_further_segments_which_hold_their_numbers_and_carry_nothing(
    member: Client, admin: Client
) -> None:
    network = make(member, "network")
    wanted = {"network_id": network["id"], "network_type": "vxlan", "segmentation_id": 7_700_077}
    assert call(member, "POST", "/segments", {"segment": wanted}).status == 403
    first = call(admin, "GET", f"/segments/{network['id']}")["segment"]
    second = call(admin, "POST", "/segments", {"segment": wanted | {"name": "second", "description": "for later"}})[
        "segment"
    ]
    third = make(admin, "segment", network_id=network["id"], network_type="vxlan")
    assert (second["name"], second["description"]) == ("second", "for later")
    assert (third["name"], third["description"]) == (None, "")
    numbers = [first["segmentation_id"], 7_700_077, third["segmentation_id"]]
    assert len(set(numbers)) == 3
    listed = call(admin, "GET", f"/segments?network_id={network['id']}&sort_key=name&sort_dir=asc")["segments"]
    assert sorted(each["segmentation_id"] for each in listed) == sorted(numbers)
    assert [each["id"] for each in call(admin, "GET", "/segments?name=second")["segments"]] == [second["id"]]
    shown = call(admin, "GET", f"/networks/{network['id']}")["network"]
    assert [each["provider:segmentation_id"] for each in shown["segments"]] == numbers
    assert "provider:segmentation_id" not in shown
    assert "segments" not in call(member, "GET", f"/networks/{network['id']}")["network"]
    taken = {"provider:network_type": "vxlan", "provider:segmentation_id": 7_700_077}
    assert call(admin, "POST", "/networks", {"network": taken}).status == 409
    assert call(admin, "POST", "/segments", {"segment": wanted}).status == 409
    ranges = make(
        admin,
        "network_segment_range",
        "/network_segment_ranges",
        network_type="vxlan",
        minimum=7_700_077,
        maximum=7_700_078,
    )
    assert ranges["used"] == {str(number): network["project_id"] for number in numbers[1:]}
    assert call(admin, "DELETE", f"/network_segment_ranges/{ranges['id']}").status == 409
    assert call(member, "DELETE", f"/segments/{second['id']}").status == 404
    assert call(admin, "DELETE", f"/segments/{second['id']}").status == 204
    assert call(admin, "POST", "/networks", {"network": taken}).status == 201
    assert call(member, "DELETE", f"/networks/{network['id']}").status == 204
    assert call(admin, "GET", f"/segments/{third['id']}").status == 404


def test_a_segment_is_named_and_described(member: Client, admin: Client) -> None:
    network = make(member, "network", name="of the segment")["id"]
    further = make(admin, "segment", network_id=network, network_type="vxlan")["id"]
    for segment in (network, further):
        before = call(admin, "GET", f"/segments/{segment}")["segment"]
        wanted = {"name": "n", "description": "d"}
        assert call(member, "PUT", f"/segments/{segment}", {"segment": wanted}).status == 404
        changed = call(admin, "PUT", f"/segments/{segment}", {"segment": wanted})["segment"]
        assert changed == before | wanted | {name: changed[name] for name in ("revision_number", "updated_at")}
        assert changed["revision_number"] > before["revision_number"]
        cleared = call(admin, "PUT", f"/segments/{segment}", {"segment": {"name": None}})["segment"]
        assert (cleared["name"], cleared["description"]) == (None, "d")
    assert call(admin, "GET", f"/networks/{network}")["network"]["name"] == "of the segment"


def test_what_is_no_segment_of_a_network_is_refused_in_words(member: Client, admin: Client) -> None:
    network = make(member, "network")["id"]
    first = call(admin, "DELETE", f"/segments/{network}")
    assert (first.status, "delete network" in first.text) == (501, True)
    unknown = {"network_id": "00000000-0000-4000-8000-000000000009", "network_type": "vxlan"}
    assert call(admin, "POST", "/segments", {"segment": unknown}).status == 404
    for wrong in (
        {"network_type": "token-ring"},
        {"network_type": "vlan"},
        {"network_type": "local", "segmentation_id": 1},
    ):
        assert call(admin, "POST", "/segments", {"segment": {"network_id": network} | wrong}).status == 400, wrong
    of_segment = {"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24", "segment_id": network}
    assert call(admin, "POST", "/subnets", {"subnet": of_segment}).status == 501
    assert call(admin, "GET", "/extensions/segment").status == 200


def test_a_network_has_so_many_segments_and_no_more(
    member: Client, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "MOST", 2)
    wanted = {"network_id": make(member, "network")["id"], "network_type": "vxlan"}
    assert call(admin, "POST", "/segments", {"segment": wanted}).status == 201
    assert call(admin, "POST", "/segments", {"segment": wanted}).status == 409


@pytest.mark.parametrize("name", ["", "p\n", "p" * 65])
def test_what_is_no_name_of_a_physical_network_is_refused_by_the_name_of_the_field(admin: Client, name: str) -> None:
    flat = {"provider:network_type": "flat", "provider:physical_network": name}
    refused = call(admin, "POST", "/networks", {"network": flat})
    assert (refused.status, "provider:physical_network" in refused.text) == (400, True), refused.text


def test_the_name_of_a_physical_network_has_64_characters_at_most(admin: Client) -> None:
    flat = {"provider:network_type": "flat", "provider:physical_network": "p" * 64}
    assert make(admin, "network", **flat)["provider:physical_network"] == "p" * 64
