"""Metering: labels with rules, which routers they reach, and where the counts are read."""

from __future__ import annotations

from collections.abc import Collection
from unittest import mock

import pytest

from cumulet.compute import hosts as host_records
from cumulet.compute.descriptions import described
from cumulet.drivers.simulated.network import SimulatedTraffic
from cumulet.host import wiring as w
from cumulet.host.traffic import Metered, Traffic
from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.test_network_stories import UNKNOWN, call, make, network_with_subnet, public
from tests.api.test_qos import keeping, manager
from tests.links import silent

__all__ = ["manager"]
LABELS, RULES = "/metering/metering-labels", "/metering/metering-label-rules"


def label(client: Client, **attributes: object) -> str:
    identifier: str = make(client, "metering_label", LABELS, **attributes)["id"]
    return identifier


def rule(client: Client, label_id: str, **attributes: object) -> JsonObject:
    return make(client, "metering_label_rule", RULES, metering_label_id=label_id, **attributes)


def routed(client: Client) -> str:
    _, subnet = network_with_subnet(client)
    router: str = make(client, "router", external_gateway_info={"network_id": public(client)})["id"]
    call(client, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    return router


def meters(cloud: TestCloud, router: str) -> tuple[w.Meter, ...]:
    """What its host is told to meter on a router."""
    told = [cloud.embedded.db.read(lambda tx, name=name: described(tx, name)) for name in ("host1", "host2")]  # type: ignore[misc]
    (found,) = [one.meters for wiring in told for one in wiring.routers if one.id == router]
    return found


def test_a_label_meters_its_projects_routers_and_a_shared_one_all(
    cloud: TestCloud, manager: Client, admin: Client, other_member: Client
) -> None:
    ours, theirs = routed(manager), routed(other_member)
    own = label(manager, name="own", description="d")
    shown = call(manager, "GET", f"{LABELS}/{own}")["metering_label"]
    assert (shown["name"], shown["description"], shown["shared"]) == ("own", "d", False)
    assert meters(cloud, ours) == (), "a label without rules counts nothing"
    first = rule(manager, own, direction="egress", source_ip_prefix="10.1.0.7/24", destination_ip_prefix="192.0.2.9")
    assert (first["source_ip_prefix"], first["destination_ip_prefix"]) == ("10.1.0.0/24", "192.0.2.9/32")
    rule(manager, own, direction="ingress", remote_ip_prefix="10.1.0.0/24", excluded=True)
    outward = w.MeterRule(direction=w.Direction.OUT, excluded=False, source="10.1.0.0/24", destination="192.0.2.9/32")
    inward = w.MeterRule(direction=w.Direction.IN, excluded=True, source=None, destination="10.1.0.0/24")
    assert meters(cloud, ours) == (w.Meter(label=own, rules=(inward, outward)),)
    assert meters(cloud, theirs) == ()
    everybodys = label(admin, shared=True)
    rule(admin, everybodys, direction="egress", remote_ip_prefix="0.0.0.0/0")
    assert [one.label for one in meters(cloud, theirs)] == [everybodys]
    assert {one.label for one in meters(cloud, ours)} == {own, everybodys}
    listed = call(manager, "GET", f"{RULES}?metering_label_id={own}&sort_key=direction&sort_dir=asc")
    assert [one["direction"] for one in listed["metering_label_rules"]] == ["egress", "ingress"]
    assert call(manager, "DELETE", f"{RULES}/{first['id']}").status == 204
    assert {one.label: len(one.rules) for one in meters(cloud, ours)} == {own: 1, everybodys: 1}
    assert call(manager, "DELETE", f"{LABELS}/{own}").status == 204
    assert call(admin, "DELETE", f"{LABELS}/{everybodys}").status == 204
    assert meters(cloud, ours) == meters(cloud, theirs) == ()
    assert call(admin, "GET", RULES)["metering_label_rules"] == []


def test_labels_are_their_projects_alone(manager: Client, member: Client, other_member: Client) -> None:
    own = label(manager)
    one = rule(manager, own, direction="egress", source_ip_prefix="10.0.0.0/8")["id"]
    for path in (f"{LABELS}/{own}", f"{RULES}/{one}"):
        assert call(other_member, "GET", path).status == 404
        assert call(other_member, "DELETE", path).status == 404
        assert call(member, "GET", path).status == 200
        assert call(member, "DELETE", path).status == 403
    wanted = {"direction": "egress", "source_ip_prefix": "10.0.0.0/8", "metering_label_id": own}
    answers = [
        call(other_member, "POST", RULES, {"metering_label_rule": wanted | {"metering_label_id": identifier}})
        for identifier in (own, UNKNOWN)
    ]
    assert {answer.status for answer in answers} == {404}
    assert len({answer.text.replace(own, UNKNOWN) for answer in answers}) == 1
    assert call(other_member, "GET", LABELS)["metering_labels"] == []
    assert call(manager, "POST", LABELS, {"metering_label": {"shared": True}}).status == 403, "upstream lets a manager"


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({}, 400),
        ({"remote_ip_prefix": "10.0.0.0/8", "source_ip_prefix": "10.0.0.0/8"}, 400),
        ({"source_ip_prefix": "10.0.0.0/8", "destination_ip_prefix": "2001:db8::/32"}, 400),
        ({"source_ip_prefix": "10.0.0.0/33"}, 400),
        ({"source_ip_prefix": "fe80::1%eth0"}, 400),
        ({"source_ip_prefix": "10.0.0.0/8", "direction": "both"}, 400),
        ({"source_ip_prefix": "10.0.0.0/8", "name": "n"}, 400),
        ({"remote_ip_prefix": "10.1.0.0/16"}, 409),
        ({"remote_ip_prefix": "10.1.0.0/16", "excluded": True}, 201),
        ({"source_ip_prefix": "::/0"}, 201),
    ],
)
def test_what_a_rule_may_be(manager: Client, attributes: JsonObject, status: int) -> None:
    own = label(manager)
    rule(manager, own, direction="egress", remote_ip_prefix="10.0.0.0/8")
    wanted = {"metering_label_id": own, "direction": "egress"} | attributes
    assert call(manager, "POST", RULES, {"metering_label_rule": wanted}).status == status


def test_a_host_that_meters_nothing_is_told_nothing_and_new_rules_are_refused(
    cloud: TestCloud, manager: Client
) -> None:
    router, own = routed(manager), label(manager)
    rule(manager, own, direction="egress", source_ip_prefix="10.0.0.0/8")
    older = host_records.Kind(features=frozenset({"networks", w.PORT_NAMES}))
    with mock.patch.object(host_records, "kind_of", return_value=older):
        assert meters(cloud, router) == ()
    wanted = {"metering_label_id": own, "direction": "ingress", "source_ip_prefix": "10.0.0.0/8"}
    with keeping("networks", on=["host9"]):
        refused = call(manager, "POST", RULES, {"metering_label_rule": wanted})
    assert (refused.status, "A host cannot meter" in refused.text) == (501, True)


async def counted(self: SimulatedTraffic, port_ids: Collection[str]) -> Traffic:
    """As a host of real guests would answer."""
    return Traffic(dropped={}, ports={}, metered={UNKNOWN: Metered(packets=3, bytes=300)})


def test_metrics_tell_what_was_metered_by_host_and_label(cloud: TestCloud, admin: Client) -> None:
    with mock.patch.object(SimulatedTraffic, "traffic", counted), silent(cloud, "host2"):
        lines = [line for line in admin.request("GET", "/metrics").text.splitlines() if "metered" in line]
    assert [line for line in lines if not line.startswith("#")] == [
        f'cumulet_metered_packets_total{{host="host1",label="{UNKNOWN}"}} 3.0',
        f'cumulet_metered_bytes_total{{host="host1",label="{UNKNOWN}"}} 300.0',
    ]
