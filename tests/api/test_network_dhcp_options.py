"""Extra DHCP options of a port: set by name and IP version, replaced one by one, removed by a value of null."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.network.dhcp_options import MAX_OPTIONS
from cumulet.testing import Client
from tests.api.test_network_stories import call, make, network_with_subnet


def option(name: str, value: str | None, version: int = 4) -> dict[str, Any]:
    return {"opt_name": name, "opt_value": value, "ip_version": version}


def test_options_are_kept_until_they_are_taken_away(member: Client) -> None:
    network_id, _ = network_with_subnet(member)
    given = [{"opt_name": "tftp-server", "opt_value": "10.1.0.9"}, option("mtu", "9000", 6), option("x", None)]
    port = make(member, "port", network_id=network_id, extra_dhcp_opts=given)
    first = [option("mtu", "9000", 6), option("tftp-server", "10.1.0.9")]
    assert port["extra_dhcp_opts"] == first
    path = f"/ports/{port['id']}"

    def changed(*options: dict[str, Any]) -> list[dict[str, Any]]:
        answer = call(member, "PUT", path, {"port": {"extra_dhcp_opts": list(options)}})
        assert answer.status == 200, answer.text
        shown: list[dict[str, Any]] = answer["port"]["extra_dhcp_opts"]
        return shown

    assert changed() == first
    assert changed(option("mtu", "1400")) == [option("mtu", "1400"), *first]
    assert changed(option("mtu", None, 6), option("tftp-server", "10.1.0.8")) == [
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
        ([option("a", "x", 5)], 400),
        ([option("a", "x"), option("a", "y")], 400),
        ([option("a", "x"), option("a", "y", 6)], 201),
        ([option("a", "x\ny")], 400),
        ([option("a\nb", "x")], 400),
        ([option("a", "x" * 256)], 400),
        ([option("a" * 65, "x")], 400),
        ([{"opt_name": "a"}], 400),
        ([{"opt_value": "x"}], 400),
        ([option("a", "x") | {"more": 1}], 400),
        ([option(f"o{n}", "x") for n in range(MAX_OPTIONS + 1)], 400),
    ],
)
def test_what_an_option_may_be(member: Client, options: list[dict[str, Any]], status: int) -> None:
    network_id, _ = network_with_subnet(member)
    body = {"port": {"network_id": network_id, "extra_dhcp_opts": options}}
    assert call(member, "POST", "/ports", body).status == status


def test_a_port_has_a_bounded_number_of_options(member: Client) -> None:
    network_id, _ = network_with_subnet(member)
    port = make(member, "port", network_id=network_id)
    many = [option(f"o{n}", "x") for n in range(MAX_OPTIONS)]
    path = f"/ports/{port['id']}"
    assert call(member, "PUT", path, {"port": {"extra_dhcp_opts": many}}).status == 200
    assert call(member, "PUT", path, {"port": {"extra_dhcp_opts": [option("one-more", "x")]}}).status == 400
