"""The MTU of networks follows from what the wire between hosts carries: setting `global_physnet_mtu`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.testing import TestCloud

from .test_compute_servers import create

NETWORK = "/network/v2.0"


@pytest.fixture(scope="module")
def jumbo() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(global_physnet_mtu=9000) as running:
        yield running


def mtu_of(cloud: TestCloud, name: str) -> int:
    (found,) = cloud.persona("admin").request("GET", f"{NETWORK}/networks?name={name}").json["networks"]
    return int(found["mtu"])


@pytest.mark.parametrize(
    ("attributes", "largest"),
    [
        ({}, 8950),
        ({"provider:network_type": "flat", "provider:physical_network": "wire"}, 9000),
        ({"provider:network_type": "vlan", "provider:physical_network": "wire"}, 9000),
        ({"provider:network_type": "local"}, 9000),
    ],
)
def test_a_network_has_what_its_encapsulation_leaves_and_never_more(
    jumbo: TestCloud, attributes: dict[str, object], largest: int
) -> None:
    admin = jumbo.persona("admin")
    too_big = admin.request("POST", f"{NETWORK}/networks", {"network": {**attributes, "mtu": largest + 1}})
    assert (too_big.status, str(largest) in too_big.text) == (400, True)
    made = admin.request("POST", f"{NETWORK}/networks", {"network": attributes}).json["network"]
    assert made["mtu"] == largest
    changed = admin.request("PUT", f"{NETWORK}/networks/{made['id']}", {"network": {"mtu": largest + 1}})
    assert changed.status == 400


def test_networks_that_the_cloud_makes_follow_the_setting_too(jumbo: TestCloud) -> None:
    assert (mtu_of(jumbo, "public"), mtu_of(jumbo, "private")) == (9000, 8950)
    answer = jumbo.persona("member").request("GET", f"{NETWORK}/auto-allocated-topology/null")
    assert answer.status == 200, answer.text
    assert mtu_of(jumbo, "auto_allocated_network") == 8950


def test_the_network_that_a_server_gets_without_any_follows_it(jumbo: TestCloud) -> None:
    user = jumbo.persona("other_member")
    server_id = create(user, networks="auto")["id"]
    (network,) = user.request("GET", f"{NETWORK}/networks?router:external=false").json["networks"]
    assert network["mtu"] == 8950
    assert user.request("DELETE", f"/compute/v2.1/servers/{server_id}").status == 204
