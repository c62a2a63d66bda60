"""Ranges of segments: whose networks get their numbers from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

import pytest

from cumulet.network import segment_ranges
from cumulet.testing import Answer, Client, JsonObject
from tests.api.test_network_stories import UNKNOWN, call, make

RANGES = "/network_segment_ranges"


def asked(client: Client, minimum: object, maximum: object, **attributes: object) -> Answer:
    wanted = {"network_type": "vxlan", "minimum": minimum, "maximum": maximum} | attributes
    return call(client, "POST", RANGES, {"network_segment_range": wanted})


def ranged(admin: Client, minimum: int, maximum: int, **attributes: object) -> JsonObject:
    answer = asked(admin, minimum, maximum, **attributes)
    assert answer.status == 201, answer.text
    made: dict[str, object] = answer["network_segment_range"]
    return made


def shown(admin: Client, one: Mapping[str, object]) -> JsonObject:
    found: dict[str, object] = call(admin, "GET", f"{RANGES}/{one['id']}")["network_segment_range"]
    return found


def numbers(admin: Client, client: Client, count: int, **attributes: Any) -> list[int]:
    """The segments of so many new networks."""
    ids = [make(client, "network", **attributes)["id"] for _ in range(count)]
    return [call(admin, "GET", f"/networks/{one}")["network"]["provider:segmentation_id"] for one in ids]


def test_a_network_gets_its_segment_from_its_projects_range_then_a_shared_one_then_outside(
    member: Client, other_member: Client, admin: Client
) -> None:
    (outside,) = numbers(admin, member, 1)
    own = ranged(admin, 901, 902, shared=False, project_id=member.project_id, name="own")
    assert (own["shared"], own["project_id"], own["available"]) == (False, member.project_id, [901, 902])
    assert numbers(admin, other_member, 1) == [outside + 1], "nobody else gets one of a project's range"
    shared = ranged(admin, 911, 912, description="for all")
    assert (shared["shared"], shared["project_id"], shared["default"]) == (True, None, False)
    assert numbers(admin, member, 3) == [901, 902, 911]
    assert numbers(admin, other_member, 1) == [912]
    assert shown(admin, shared)["used"] == {"911": member.project_id, "912": other_member.project_id}
    assert shown(admin, shared)["available"] == []
    assert numbers(admin, member, 1) + numbers(admin, other_member, 1) == [outside + 2, outside + 3]
    more = ranged(admin, 921, 922, shared=False, project_id=member.project_id)
    wanted = {"provider:network_type": "vxlan", "project_id": member.project_id}
    assert numbers(admin, admin, 1, **wanted) == [921], "also for an administrator who names the type"
    assert numbers(admin, admin, 1, **wanted, **{"provider:segmentation_id": 5000}) == [5000]
    assert shown(admin, more)["available"] == [922]


def test_a_range_in_use_stays_and_keeps_the_numbers_in_use(member: Client, admin: Client) -> None:
    made = ranged(admin, 901, 910, shared=False, project_id=member.project_id)
    place = f"{RANGES}/{made['id']}"
    first, second = (make(member, "network")["id"] for _ in range(2))
    for change in ({"minimum": 902}, {"maximum": 901}, {"minimum": 950, "maximum": 951}):
        refused = call(admin, "PUT", place, {"network_segment_range": change})
        assert refused.status == 409
        assert refused["NeutronError"]["type"] == "NetworkSegmentRangeReferencedByProject"
    assert call(admin, "DELETE", place).status == 409
    wanted = {"name": "n", "description": None, "minimum": 900, "maximum": 902}
    found = call(admin, "PUT", place, {"network_segment_range": wanted})["network_segment_range"]
    assert (found["name"], found["description"], found["minimum"], found["maximum"]) == ("n", "", 900, 902)
    assert (found["available"], found["revision_number"]) == ([900], made["revision_number"] + 1)
    assert call(admin, "GET", f"{RANGES}?name=n&network_type=vxlan")["network_segment_ranges"] == [found]
    for network in (first, second):
        assert call(member, "DELETE", f"/networks/{network}").status == 204
    assert call(admin, "DELETE", place).status == 204
    assert call(admin, "GET", RANGES)["network_segment_ranges"] == []


def test_ranges_do_not_overlap(admin: Client) -> None:
    one, other = ranged(admin, 901, 910), ranged(admin, 911, 920)
    for minimum, maximum in ((910, 910), (895, 901), (903, 904), (800, 1000)):
        refused = asked(admin, minimum, maximum)
        assert refused.status == 409
        assert refused["NeutronError"]["type"] == "NetworkSegmentRangeOverlaps"
        assert one["id"] in refused.text
    refused = call(admin, "PUT", f"{RANGES}/{one['id']}", {"network_segment_range": {"maximum": 911}})
    assert (refused.status, other["id"] in refused.text) == (409, True)


def test_numbers_of_vlans_are_of_their_physical_network(admin: Client) -> None:
    first = ranged(admin, 5, 6, network_type="vlan", physical_network="a")
    assert first["physical_network"] == "a"
    ranged(admin, 5, 5, network_type="vlan", physical_network="b")
    ranged(admin, 5, 5)
    wanted = {"provider:network_type": "vlan", "provider:physical_network": "a"}
    assert numbers(admin, admin, 3, **wanted) == [5, 6, 1]
    assert shown(admin, first)["used"].keys() == {"5", "6"}
    assert call(admin, "GET", f"{RANGES}?physical_network=a")["network_segment_ranges"] == [shown(admin, first)]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"minimum": 0}, "'0:910' is no range"),
        ({"minimum": 911}, "'911:910' is no range"),
        ({"maximum": 2**24}, "16777215 at most"),
        ({"minimum": "x"}, "minimum"),
        ({"minimum": None}, "minimum"),
        ({"network_type": "vlan", "physical_network": "p", "maximum": 4095}, "4094 at most"),
        ({"network_type": "vlan"}, "physical_network required for vlan network"),
        ({"physical_network": "p"}, "physical_network not allowed for vxlan network"),
        ({"network_type": "vlan", "physical_network": "p" * 65}, "physical_network"),
        ({"network_type": "vlan", "physical_network": "p\n"}, "physical_network"),
        ({"network_type": "gre"}, "Network type gre does not support network segment ranges"),
        ({"network_type": "flat"}, "network_type"),
        ({"default": True}, "default"),
        ({"name": "n" * 256}, "name"),
    ],
)
def test_what_is_no_range_is_refused_by_the_name_of_the_field(
    admin: Client, attributes: JsonObject, words: str
) -> None:
    refused = asked(admin, **{"minimum": 901, "maximum": 910} | attributes)
    assert (refused.status, words in refused.text) == (400, True), refused.text
    assert call(admin, "GET", RANGES)["network_segment_ranges"] == []


def test_only_administrators_see_ranges(member: Client, admin: Client) -> None:
    place = f"{RANGES}/{ranged(admin, 901, 910)['id']}"
    assert call(member, "GET", f"{RANGES}?limit=1").json == {"network_segment_ranges": []}, "no link to a next page"
    missing = call(member, "GET", place)
    assert (missing.status, missing["NeutronError"]["type"]) == (404, "NetworkSegmentRangeNotFound")
    assert call(member, "DELETE", place).status == 404
    assert asked(member, 911, 912).status == 403
    assert call(admin, "GET", f"{RANGES}/{UNKNOWN}").status == 404
    assert call(admin, "GET", "/extensions/network-segment-range").status == 200


def test_there_are_so_many_ranges_and_no_more(admin: Client) -> None:
    with mock.patch.object(segment_ranges, "MOST", 1):
        ranged(admin, 901, 901)
        refused = asked(admin, 902, 902)
    assert (refused.status, "network_segment_range" in refused.text) == (409, True)


def test_a_large_range_shows_its_lowest_free_numbers(member: Client, admin: Client) -> None:
    made = ranged(admin, 10_000, 16_777_215)
    assert made["available"] == list(range(10_000, 11_000))
    assert numbers(admin, member, 1) == [10_000]
    assert shown(admin, made)["available"] == list(range(10_001, 11_001))
