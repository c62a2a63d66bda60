"""Extra DHCP options of a port: set by name and IP version, replaced one by one, removed by a value of null."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cumulet.network.dhcp_options import MAX_OPTIONS
from cumulet.testing import Client, JsonObject
from tests.api.test_network_stories import call, make, network_with_subnet


def option(name: str, value: str | None, version: int = 4) -> JsonObject:
    return {"opt_name": name, "opt_value": value, "ip_version": version}


def test_options_are_kept_until_they_are_taken_away(member: Client) -> None:
    network_id, _ = network_with_subnet(member)
    given = [{"opt_name": "tftp-server", "opt_value": "10.1.0.9"}, option("bootfile-url", "u:x", 6), option("x", None)]
    port = make(member, "port", network_id=network_id, extra_dhcp_opts=given)
    first = [option("bootfile-url", "u:x", 6), option("tftp-server", "10.1.0.9")]
    assert port["extra_dhcp_opts"] == first
    path = f"/ports/{port['id']}"

    def changed(*options: Mapping[str, object]) -> list[JsonObject]:
        answer = call(member, "PUT", path, {"port": {"extra_dhcp_opts": list(options)}})
        assert answer.status == 200, answer.text
        shown: list[dict[str, object]] = answer["port"]["extra_dhcp_opts"]
        return shown

    assert changed() == first
    assert changed(option("mtu", "1400")) == [first[0], option("mtu", "1400"), first[1]]
    assert changed(option("bootfile-url", None, 6), option("tftp-server", "10.1.0.8")) == [
        option("mtu", "1400"),
        option("tftp-server", "10.1.0.8"),
    ]
    revision = call(member, "GET", path)["port"]["revision_number"]
    changed(option("mtu", "1400"), option("nothing", None))
    assert call(member, "GET", path)["port"]["revision_number"] == revision
    assert call(member, "DELETE", path).status == 204


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([option("router", "")], 201),
        ([option("classless-static-route", "")], 201),
        ([option("bootfile-name", "")], 400),
        ([option("", "x")], 400),
        ([option("tftp-server", "x", 5)], 400),
        ([option("tftp-server", "x"), option("tftp-server", "y")], 400),
        ([option("domain-search", "x.test"), option("domain-search", "y.test", 6)], 201),
        ([option("tftp-server", "x\ny")], 400),
        ([option("a\nb", "x")], 400),
        ([option("tftp-server", "x" * 256)], 400),
        ([option("a" * 65, "x")], 400),
        ([{"opt_name": "tftp-server"}], 400),
        ([{"opt_value": "x"}], 400),
        ([option("tftp-server", "x") | {"more": 1}], 400),
        ([option(f"{n + 160}", "x") for n in range(MAX_OPTIONS + 1)], 400),
        ([option("224", "01:02:ff"), option("option:225", "10.0.0.1,10.0.0.2"), option("226", "words")], 201),
        ([option("no-such-option", "x")], 400),
        ([option("mtu", "9000", 6)], 400),
        ([option("mtu", "70000")], 400),
        ([option("ntp-server", "time.test")], 400),
        ([option("server-ip-address", "10.0.0.1,10.0.0.2")], 400),
        ([option("classless-static-route", "10.0.0.0/8")], 400),
        ([option("54", "10.0.0.1")], 400),
        ([option("255", "x")], 400),
    ],
)
def test_what_an_option_may_be(member: Client, options: list[Mapping[str, object]], status: int) -> None:
    network_id, _ = network_with_subnet(member)
    body = {"port": {"network_id": network_id, "extra_dhcp_opts": options}}
    assert call(member, "POST", "/ports", body).status == status


def test_an_option_for_the_version_that_a_port_has_no_address_of_is_kept(member: Client) -> None:
    """As upstream keeps it; before such an address comes, its value has to be one that can be sent."""
    network = make(member, "network")
    six = make(member, "subnet", network_id=network["id"], ip_version=6, cidr="fd00:7::/64")
    four = make(member, "subnet", network_id=network["id"], ip_version=4, cidr="10.7.0.0/24")
    odd = [option("server-ip-address", "2015::badd")]
    on_six = [{"subnet_id": six["id"]}]
    port = make(member, "port", network_id=network["id"], fixed_ips=on_six, extra_dhcp_opts=odd)
    assert port["extra_dhcp_opts"] == odd
    path = f"/ports/{port['id']}"
    both = [*on_six, {"subnet_id": four["id"]}]
    refused = call(member, "PUT", path, {"port": {"fixed_ips": both}})
    assert refused.status == 400
    assert "server-ip-address" in refused["NeutronError"]["message"]
    assert len(call(member, "GET", path)["port"]["fixed_ips"]) == 1
    better = {"fixed_ips": both, "extra_dhcp_opts": [option("server-ip-address", "192.0.2.9")]}
    assert call(member, "PUT", path, {"port": better}).status == 200
    assert call(member, "PUT", path, {"port": {"extra_dhcp_opts": odd}}).status == 400
    body = {"port": {"network_id": network["id"], "fixed_ips": on_six, "extra_dhcp_opts": [option("no-such", "x")]}}
    assert call(member, "POST", "/ports", body).status == 400


def test_a_port_has_a_bounded_number_of_options(member: Client) -> None:
    network_id, _ = network_with_subnet(member)
    port = make(member, "port", network_id=network_id)
    many = [option(f"{n + 160}", "x") for n in range(MAX_OPTIONS)]
    path = f"/ports/{port['id']}"
    assert call(member, "PUT", path, {"port": {"extra_dhcp_opts": many}}).status == 200
    assert call(member, "PUT", path, {"port": {"extra_dhcp_opts": [option("230", "x")]}}).status == 400
