"""Lists: filters compare values, not spellings; what is not understood is refused; equal rules are one rule."""

from __future__ import annotations

import pytest

from cumulet.testing import Client, JsonObject
from tests.api.test_network_stories import call, make


@pytest.fixture
def things(member: Client) -> dict[str, str]:
    """A network with two subnets and a port: {kind: id}."""
    network_id = make(member, "network")["id"]
    v4 = make(member, "subnet", network_id=network_id, ip_version=4, cidr="10.0.0.0/24")["id"]
    v6 = make(member, "subnet", network_id=network_id, ip_version=6, cidr="fd00::/64", gateway_ip="fd00::1")["id"]
    wanted = [{"ip_address": "10.0.0.9"}, {"ip_address": "fd00::9"}]
    mac = "fa:16:3e:00:00:0a"
    port = make(member, "port", network_id=network_id, mac_address=mac, fixed_ips=wanted)["id"]
    return {"network": network_id, "v4": v4, "v6": v6, "port": port}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("subnets?cidr=10.0.0.0/24", "v4"),
        ("subnets?cidr=10.0.0.77/24", "v4"),
        ("subnets?cidr=FD00:0:0::/64", "v6"),
        ("subnets?cidr=10.0.0.0/25", None),
        ("subnets?gateway_ip=FD00:0::1", "v6"),
        ("subnets?enable_dhcp=FALSE", None),
        ("ports?mac_address=FA:16:3E:00:00:0A", "port"),
        ("ports?mac_address=fa-16-3e-00-00-0a", "port"),
        ("ports?mac_address=nothing", None),
        ("ports?fixed_ips=ip_address=FD00:0::9", "port"),
        ("ports?ip_allocation=immediate", "port"),
        ("ports?ip_allocation=none", None),
    ],
)
def test_a_value_is_found_however_it_is_spelled(
    member: Client, things: dict[str, str], query: str, found: str | None
) -> None:
    collection = query.split("?")[0]
    listed = call(member, "GET", f"/{query}&network_id={things['network']}")[collection]
    assert [one["id"] for one in listed] == ([] if found is None else [things[found]])


@pytest.mark.parametrize(
    "query",
    [
        "subnets?cidr=x",
        "subnets?enable_dhcp=maybe",
        "subnets?ip_version=four",
        "subnets?dns_nameservers=1.1.1.1",
        "subnets?nothing=1",
        "ports?fixed_ips=10.0.0.9",
        "ports?binding:profile=x",
        "networks?segments=x",
        "networks?created_at=2020-01-01",
        "networks?sort_key=name",
        "networks?sort_key=nothing&sort_dir=asc",
        "networks?limit=x",
        "security-group-rules?protocol=nothing",
    ],
)
def test_an_unknown_filter_or_value_is_refused(admin: Client, query: str) -> None:
    assert call(admin, "GET", f"/{query}").status == 400


SAME_RULES: tuple[tuple[dict[str, object], ...], ...] = (
    (
        {"protocol": "tcp"},
        {"protocol": 6},
        {"protocol": "TCP"},
        {"protocol": "tcp", "port_range_min": 1, "port_range_max": 65535},
    ),
    (
        {"protocol": "udp", "port_range_min": 53, "port_range_max": 53},
        {"protocol": "17", "port_range_min": "53", "port_range_max": "53"},
    ),
    (
        {"ethertype": "IPv6", "protocol": "icmpv6"},
        {"ethertype": "ipv6", "protocol": "icmp"},
        {"ethertype": "IPv6", "protocol": 58},
    ),
    ({"remote_ip_prefix": "10.0.0.5"}, {"remote_ip_prefix": "10.0.0.5/32"}),
    ({"ethertype": "IPv6", "remote_ip_prefix": "fd00::/64"}, {"ethertype": "IPv6", "remote_ip_prefix": "FD00:0::7/64"}),
    ({}, {"remote_ip_prefix": "0.0.0.0/0"}, {"protocol": "any"}, {"protocol": None}),
)


@pytest.mark.parametrize("same", SAME_RULES, ids=str)
def test_rules_that_mean_the_same_are_one(member: Client, same: tuple[JsonObject, ...]) -> None:
    group = {"security_group_id": make(member, "security_group", name="g")["id"], "direction": "ingress"}
    first = make(member, "security_group_rule", **group, **same[0])
    for again in same[1:]:
        refused = call(member, "POST", "/security-group-rules", {"security_group_rule": group | again})
        assert (refused.status, refused["NeutronError"]["type"]) == (409, "SecurityGroupRuleExists")
        asked = "&".join(
            f"{name}={value}"
            for name, value in again.items()
            if value not in (None, "any", "0.0.0.0/0") and "port" not in name and value != "icmp"
        )
        path = f"/security-group-rules?security_group_id={group['security_group_id']}&direction=ingress&{asked}"
        assert [rule["id"] for rule in call(member, "GET", path)["security_group_rules"]] == [first["id"]]
