"""Segments: the one that each network has."""

from __future__ import annotations

import pytest

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


def test_a_network_gets_no_second_segment_and_missing_resources_answer_501_or_404(
    member: Client, admin: Client
) -> None:
    network = make(member, "network")["id"]
    body = {"segment": {"network_id": network, "network_type": "vxlan", "segmentation_id": 77}}
    assert call(admin, "POST", "/segments", body).status == 501
    assert call(admin, "PUT", f"/segments/{network}", {"segment": {"name": "n"}}).status == 501
    assert call(admin, "DELETE", f"/segments/{network}").status == 501
    assert call(member, "POST", "/segments", body).status == 403
    assert call(member, "PUT", f"/segments/{network}", {"segment": {"name": "n"}}).status == 403
    assert call(member, "DELETE", f"/segments/{network}").status == 403
    assert len(call(admin, "GET", f"/segments?network_id={network}")["segments"]) == 1
    assert call(admin, "GET", "/extensions/segment").status == 200


@pytest.mark.parametrize("name", ["", "p\n", "p" * 65])
def test_what_is_no_name_of_a_physical_network_is_refused_by_the_name_of_the_field(admin: Client, name: str) -> None:
    flat = {"provider:network_type": "flat", "provider:physical_network": name}
    refused = call(admin, "POST", "/networks", {"network": flat})
    assert (refused.status, "provider:physical_network" in refused.text) == (400, True), refused.text


def test_the_name_of_a_physical_network_has_64_characters_at_most(admin: Client) -> None:
    flat = {"provider:network_type": "flat", "provider:physical_network": "p" * 64}
    assert make(admin, "network", **flat)["provider:physical_network"] == "p" * 64
