"""Flavors of services and their profiles: described by administrators, and used by nothing here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

import pytest

from cumulet.network import flavors, service_profiles
from cumulet.testing import Client, JsonObject
from tests.api.test_network_stories import UNKNOWN, call, make

PROFILES = "/service_profiles"


def profile(admin: Client, **attributes: object) -> JsonObject:
    return make(admin, "service_profile", PROFILES, **{"metainfo": "{'a': 1}"} | attributes)


def flavor(admin: Client, **attributes: Any) -> JsonObject:
    return make(admin, "flavor", **{"service_type": "L3_ROUTER_NAT"} | attributes)


def test_a_flavor_has_profiles_until_they_are_taken_from_it(member: Client, admin: Client) -> None:
    made, used = flavor(admin, name="f", description="d" * 1024), profile(admin, description="p")
    assert made == {
        "id": made["id"],
        "name": "f",
        "description": "d" * 1024,
        "service_type": "L3_ROUTER_NAT",
        "enabled": True,
        "service_profiles": [],
    }
    assert used == {"id": used["id"], "description": "p", "driver": "", "metainfo": "{'a': 1}", "enabled": True}
    of_flavor, wanted = f"/flavors/{made['id']}/service_profiles", {"service_profile": {"id": used["id"]}}
    added = call(admin, "POST", of_flavor, wanted)
    assert (added.status, added["service_profile"]) == (201, {"id": used["id"]})
    again = call(admin, "POST", of_flavor, wanted)
    assert (again.status, again["NeutronError"]["type"]) == (409, "FlavorServiceProfileBindingExists")
    assert call(member, "GET", f"/flavors/{made['id']}")["flavor"]["service_profiles"] == [used["id"]]
    assert call(member, "GET", "/flavors?name=f")["flavors"][0]["service_profiles"] == [used["id"]]
    for method, body in (("DELETE", None), ("PUT", {"service_profile": {"enabled": False}})):
        refused = call(admin, method, f"{PROFILES}/{used['id']}", body)
        assert (refused.status, refused["NeutronError"]["type"]) == (409, "ServiceProfileInUse")
    assert call(admin, "DELETE", f"{of_flavor}/{used['id']}").status == 204
    missing = call(admin, "DELETE", f"{of_flavor}/{used['id']}")
    assert (missing.status, missing["NeutronError"]["type"]) == (404, "FlavorServiceProfileBindingNotFound")
    assert call(admin, "POST", of_flavor, wanted).status == 201
    assert call(admin, "DELETE", f"/flavors/{made['id']}").status == 204
    assert call(admin, "DELETE", f"{PROFILES}/{used['id']}").status == 204


def test_both_are_changed(admin: Client) -> None:
    place = f"/flavors/{flavor(admin)['id']}"
    change: dict[str, object] = {"name": "n", "description": None, "enabled": "false"}
    changed = call(admin, "PUT", place, {"flavor": change})["flavor"]
    assert (changed["name"], changed["description"], changed["enabled"]) == ("n", "", False)
    place = f"{PROFILES}/{profile(admin, enabled=False)['id']}"
    change = {"metainfo": "m", "description": "d", "enabled": True, "driver": ""}
    changed = call(admin, "PUT", place, {"service_profile": change})["service_profile"]
    assert (changed["metainfo"], changed["description"], changed["enabled"]) == ("m", "d", True)
    emptied = call(admin, "PUT", place, {"service_profile": {"metainfo": ""}})
    assert (emptied.status, emptied["NeutronError"]["type"]) == (400, "ServiceProfileEmpty")
    assert call(admin, "GET", place)["service_profile"] == changed


@pytest.mark.parametrize(
    ("kind", "attributes", "status", "words"),
    [
        ("flavor", {}, 400, "service_type"),
        ("flavor", {"service_type": "LOADBALANCER"}, 400, "service_type"),
        ("flavor", {"service_type": "QOS", "service_profiles": [UNKNOWN]}, 400, "service_profiles"),
        ("flavor", {"service_type": "QOS", "description": "d" * 1025}, 400, "description"),
        ("service_profile", {}, 400, "Service Profile needs either a driver or metainfo."),
        ("service_profile", {"driver": "d"}, 404, "Service Profile driver d could not be found."),
        ("service_profile", {"driver": "d", "metainfo": "m"}, 404, "Service Profile driver d could not be found."),
        ("service_profile", {"metainfo": "m" * 4097}, 400, "metainfo"),
        ("service_profile", {"metainfo": {"a": 1}}, 400, "metainfo"),
    ],
)
def test_what_is_none_is_refused(
    admin: Client, kind: str, attributes: Mapping[str, object], status: int, words: str
) -> None:
    refused = call(admin, "POST", f"/{kind}s", {kind: attributes})
    assert (refused.status, words in refused.text) == (status, True), refused.text
    assert call(admin, "GET", f"/{kind}s")[f"{kind}s"] == []


def test_no_router_is_made_by_a_flavor(member: Client, admin: Client) -> None:
    refused = call(member, "POST", "/routers", {"router": {"flavor_id": flavor(admin)["id"]}})
    assert (refused.status, "flavored routers" in refused.text) == (501, True)
    assert call(member, "GET", "/routers")["routers"] == []


def test_profiles_are_seen_by_administrators_alone(member: Client, admin: Client) -> None:
    made, used = flavor(admin), profile(admin)
    assert call(member, "GET", f"{PROFILES}?limit=1").json == {PROFILES[1:]: []}, "no link to a next page"
    assert call(member, "GET", f"{PROFILES}/{used['id']}").status == 404
    of_flavor = f"/flavors/{made['id']}/service_profiles"
    assert call(member, "POST", of_flavor, {"service_profile": {"id": used["id"]}}).status == 403
    assert call(admin, "POST", of_flavor, {"service_profile": {"id": UNKNOWN}}).status == 404
    assert call(admin, "GET", "/extensions/flavors").status == 200


def test_there_are_so_many_and_no_more(admin: Client) -> None:
    with mock.patch.object(flavors, "MOST", 0), mock.patch.object(service_profiles, "MOST", 0):
        refused = call(admin, "POST", "/flavors", {"flavor": {"service_type": "QOS"}})
        assert (refused.status, "['flavor']" in refused.text) == (409, True)
        refused = call(admin, "POST", PROFILES, {"service_profile": {"metainfo": "m"}})
        assert (refused.status, "['service_profile']" in refused.text) == (409, True)
