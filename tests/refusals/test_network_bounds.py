"""What Network refuses so that no transaction is long: more than one request, one network or one port may have."""

from __future__ import annotations

from unittest import mock

import pytest

from cumulet.network import port_forwardings, scopes, topology
from cumulet.network.subnet_checks import MOST_AUTOMATIC
from cumulet.testing import Answer, JsonObject

from .network_scene import net, public, router, without_quotas
from .table import Refusal, Scene, table

REFUSALS, refused = table()
prepare = without_quotas


@refused(400, "one request asks for 80 addresses at most")
def more_addresses_at_once_than_one_request_asks_for(scene: Scene) -> Answer:
    network, subnet = net(scene)
    port = {"network_id": network, "fixed_ips": [{"subnet_id": subnet}] * 41}
    return scene.network("POST", "/ports", {"ports": [port, port]})


def _automatic(network: str, numbers: range) -> JsonObject:
    modes = {"ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
    subnet = {"network_id": network, "ip_version": 6, **modes}
    return {"subnets": [subnet | {"cidr": f"fd00:{number:x}::/64"} for number in numbers]}


@refused(409, "has 16 subnets with automatic addresses: there cannot be more.")
def more_subnets_with_automatic_addresses_than_a_guest_takes(scene: Scene) -> Answer:
    network = scene.made("network")["id"]
    assert scene.network("POST", "/subnets", _automatic(network, range(MOST_AUTOMATIC))).status == 201
    return scene.network("POST", "/subnets", _automatic(network, range(20, 21)))


@refused(400, "would get more than 1 automatic addresses by one request. Create these subnets one by one.")
def more_automatic_addresses_at_once_than_one_request_gives(scene: Scene) -> Answer:
    network = scene.made("network")["id"]
    scene.made("port", network_id=network)
    with mock.patch.object(topology, "MOST_GIVEN", 1):
        assert scene.network("POST", "/subnets", _automatic(network, range(1))).status == 201
        return scene.network("POST", "/subnets", _automatic(network, range(1, 3)))


@refused(400, "A floating IP has 1 port forwardings at most, and so many lead to one port.")
def more_forwardings_of_one_floating_ip_than_it_may_have(scene: Scene) -> Answer:
    port, floating = _forwarded(scene)
    with mock.patch.object(port_forwardings, "MOST_OF_ONE", 1):
        assert _forward(scene, floating, port, 22).status == 201
        return _forward(scene, floating, port, 23)


@refused(400, "A floating IP has 1 port forwardings at most, and so many lead to one port.")
def more_forwardings_to_one_port_than_it_may_have(scene: Scene) -> Answer:
    port, floating = _forwarded(scene)
    network = scene.network("GET", f"/floatingips/{floating}")["floatingip"]["floating_network_id"]
    other = scene.made("floatingip", floating_network_id=network)["id"]
    with mock.patch.object(port_forwardings, "MOST_OF_ONE", 1):
        assert _forward(scene, floating, port, 22).status == 201
        return _forward(scene, other, port, 23)


def _forwarded(scene: Scene) -> tuple[str, str]:
    """A port behind a router, and a floating IP."""
    network, subnet = net(scene)
    way = router(scene, external_gateway_info={"network_id": public(scene)})
    assert scene.network("PUT", f"/routers/{way}/add_router_interface", {"subnet_id": subnet}).status == 200
    floating = scene.made("floatingip", floating_network_id=public(scene))["id"]
    return scene.made("port", network_id=network)["id"], floating


def _forward(scene: Scene, floating: str, port: str, number: int) -> Answer:
    wanted = {"protocol": "tcp", "internal_port_id": port, "internal_port": number, "external_port": number}
    return scene.network("POST", f"/floatingips/{floating}/port_forwardings", {"port_forwarding": wanted})


@refused(400, "its subnetpools have more than 1 prefixes together.")
def more_prefixes_in_an_address_scope_than_are_looked_at(scene: Scene) -> Answer:
    scope = scene.made("address_scope", name="s", ip_version=4)["id"]
    pool = {"name": "p", "prefixes": ["10.0.0.0/24", "10.0.2.0/24"], "address_scope_id": scope}
    with mock.patch.object(scopes, "MOST_PREFIXES", 1):
        return scene.network("POST", "/subnetpools", {"subnetpool": pool})


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused(scene: Scene, refusal: Refusal) -> None:
    refusal.check(scene)
