"""What a project puts into the wirings of hosts is bounded where it is asked for, and what is there goes on working."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from cumulet.network import address_groups, dhcp_options, limits, wiring_bounds
from cumulet.testing import Answer, Client, JsonObject
from tests.testing.test_reachability import made

from .test_compute_servers import create

PAIRS = [{"ip_address": f"10.1.{number}.0/24"} for number in range(10)]


@pytest.fixture(autouse=True)
def few_ports() -> Iterator[None]:
    """Projects may have three ports."""
    with mock.patch.dict(limits.DEFAULT_LIMITS, port=3):
        yield


def asked(who: Client, method: str, path: str, body: JsonObject) -> Answer:
    return who.request(method, f"/network/v2.0{path}", body)


def a_network(who: Client) -> str:
    network = made(who, "network", name="n")
    made(who, "subnet", network_id=network, ip_version=4, cidr="10.0.0.0/16")
    return network


def test_a_port_is_changed_within_the_bound_and_what_was_over_it_may_shrink(member: Client) -> None:
    network = a_network(member)
    wanted = {"network_id": network, "fixed_ips": [{"ip_address": f"10.0.1.{n}"} for n in range(1, 11)]}
    port = made(member, "port", **wanted)
    other = made(member, "port", network_id=network)

    def put(port_id: str, **values: object) -> int:
        answer = asked(member, "PUT", f"/ports/{port_id}", {"port": values})
        if answer.status != 200:
            assert "security_groups: 12 for each port of the quota" in answer.text
        return int(answer.status)

    assert put(port, allowed_address_pairs=PAIRS) == 200
    addresses = [{"ip_address": f"10.0.2.{n}"} for n in range(1, 17)]
    assert put(other, fixed_ips=addresses) == 200  # 36 of 36.
    assert put(other, fixed_ips=[*addresses, {"ip_address": "10.0.2.17"}]) == 409
    with mock.patch.object(wiring_bounds, "ADDRESSES_OF_A_PORT", 5):
        assert put(other, name="renamed") == 200
        assert put(other, fixed_ips=addresses[:15]) == 200
        answer = asked(member, "PUT", f"/ports/{other}", {"port": {"fixed_ips": addresses}})
        assert answer.status == 409


def test_a_server_s_ports_join_a_group_within_the_bound(member: Client) -> None:
    network = a_network(member)
    wanted = [{"ip_address": f"10.0.1.{n}"} for n in range(1, 20)]
    port = made(member, "port", network_id=network, fixed_ips=wanted)
    server = create(member, networks=[{"port": port}])["id"]
    made(member, "security_group", name="more")
    answer = member.compute("POST", f"/servers/{server}/action", {"addSecurityGroup": {"name": "more"}})
    assert (answer.status, "each counted for each of its port's security_groups" in answer.text) == (403, True)


def test_dhcp_options_of_all_ports_of_a_project_are_bounded_together(member: Client) -> None:
    network = a_network(member)

    def options(number: int, characters: int) -> list[JsonObject]:
        names = ("bootfile-name", "tftp-server", "domain-name", "root-path", "server-ip-address")
        return [{"opt_name": name, "opt_value": "x" * characters} for name in names[:number]]

    first = made(member, "port", network_id=network, extra_dhcp_opts=options(3, 230))  # 750 of 900.
    made(member, "port", network_id=network, extra_dhcp_opts=options(1, 230))
    refused = {"network_id": network, "extra_dhcp_opts": options(2, 140)}
    answer = asked(member, "POST", "/ports", {"port": refused})
    assert (answer.status, "extra_dhcp_opts of a project's ports have at most 900 bytes" in answer.text) == (409, True)
    with mock.patch.object(dhcp_options, "BYTES_OF_A_PORT", 10):
        fewer = {"extra_dhcp_opts": [{"opt_name": "bootfile-name", "opt_value": "x" * 100}]}
        assert asked(member, "PUT", f"/ports/{first}", {"port": fewer}).status == 200
        more = {"extra_dhcp_opts": [{"opt_name": "bootfile-name", "opt_value": "x" * 101}]}
        assert asked(member, "PUT", f"/ports/{first}", {"port": more}).status == 409


def test_addresses_of_all_address_groups_of_a_project_are_bounded_together(
    member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_groups, "MOST_OF_PROJECT", 3)
    one = made(member, "address_group", name="a", addresses=["10.0.0.0/25", "10.0.1.0/25"])
    two = made(member, "address_group", name="b", addresses=["10.0.0.0/25"])
    more = {"addresses": ["10.0.2.0/25"]}
    new = {"address_group": {"name": "c", **more}}
    for answer in (
        asked(member, "PUT", f"/address-groups/{two}/add_addresses", more),
        asked(member, "POST", "/address-groups", new),
    ):
        assert (answer.status, "have at most 3 addresses together" in answer.text) == (409, True)
    made(member, "address_group", name="empty")
    monkeypatch.setattr(address_groups, "MOST_OF_PROJECT", 1)  # As for groups of before.
    assert asked(member, "PUT", f"/address-groups/{one}/remove_addresses", {"addresses": ["10.0.0.0/25"]}).status == 200
    assert asked(member, "PUT", f"/address-groups/{two}", {"address_group": {"name": "other"}}).status == 200
