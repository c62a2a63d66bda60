"""Names of ports: how they are shown, who gives them, and which hosts are told them."""

from __future__ import annotations

from unittest import mock

import pytest

from cumulet.compute import hosts as host_records
from cumulet.compute.descriptions import described
from cumulet.host import wiring as w
from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.test_compute_servers import create
from tests.api.test_network_stories import call, make, network_with_subnet


def assigned(port: JsonObject) -> list[str]:
    return [entry["fqdn"] for entry in port["dns_assignment"]]


def names_told(cloud: TestCloud, network_id: str) -> set[str]:
    """The names of a network's ports that its hosts are told; each is told the same."""
    told = {
        network.names
        for host in ("host1", "host2")
        for network in cloud.embedded.db.read(lambda tx, host=host: described(tx, host)).networks  # type: ignore[misc]
        if network.id == network_id
    }
    (names,) = told
    return {name.hostname for name in names}


def test_a_ports_whole_name_ends_in_the_domain_of_its_network(member: Client) -> None:
    network, _ = network_with_subnet(member)
    path = f"/networks/{network}"
    named = make(member, "port", network_id=network, dns_name="Web", fixed_ips=[{"ip_address": "10.1.0.5"}])
    other = make(member, "port", network_id=network, fixed_ips=[{"ip_address": "10.1.0.6"}])
    whole = make(member, "port", network_id=network, dns_name="a.example.org.")
    assert (named["dns_name"], assigned(named)) == ("web", ["web.openstacklocal."])
    assert (other["dns_name"], assigned(other)) == ("", ["host-10-1-0-6.openstacklocal."])
    assert assigned(whole) == ["a.example.org."]
    answer = call(member, "PUT", path, {"network": {"dns_domain": "Example.org."}})
    assert (answer.status, answer["network"]["dns_domain"]) == (200, "example.org.")
    assert assigned(call(member, "GET", f"/ports/{named['id']}")["port"]) == ["web.example.org."]
    assert call(member, "PUT", path, {"network": {"dns_domain": ""}})["network"]["dns_domain"] == ""


@pytest.mark.parametrize("domain", ["example.org", "x_y.", "-x.", "a..b.", ".", "a.1.", "x" * 64 + ".", "a." * 127])
def test_what_is_no_domain_name_is_refused(member: Client, domain: str) -> None:
    answer = call(member, "POST", "/networks", {"network": {"dns_domain": domain}})
    assert (answer.status, "dns_domain" in answer.text) == (400, True)


def test_a_name_that_its_domain_makes_too_long_is_refused(member: Client) -> None:
    network, _ = network_with_subnet(member)
    domain = ".".join(["y" * 60] * 3) + "."
    assert call(member, "PUT", f"/networks/{network}", {"network": {"dns_domain": domain}}).status == 200
    long = {"port": {"network_id": network, "dns_name": "x" * 60 + "." + "x" * 20}}
    refused = call(member, "POST", "/ports", long)
    assert (refused.status, "dns_name" in refused.text) == (400, True)
    port = make(member, "port", network_id=network, dns_name="x" * 60)["id"]
    del long["port"]["network_id"]
    assert call(member, "PUT", f"/ports/{port}", long).status == 400


def test_a_domain_that_makes_the_name_of_a_port_too_long_is_refused(member: Client) -> None:
    network, _ = network_with_subnet(member)
    path = f"/networks/{network}"
    name = ".".join(["x" * 60] * 3)
    whole = ".".join(["w" * 60] * 4) + "."
    port = make(member, "port", network_id=network, dns_name=name)
    make(member, "port", network_id=network, dns_name=whole)
    just = ".".join(["y" * 63, "z" * (255 - len(name) - 1 - 64 - 1)]) + "."
    fits = call(member, "PUT", path, {"network": {"dns_domain": just}})
    assert fits.status == 200, fits.text
    assert [len(one) for one in assigned(call(member, "GET", f"/ports/{port['id']}")["port"])] == [255]
    longer = {"network": {"dns_domain": just[:-1] + "a."}}
    refused = call(member, "PUT", path, longer)
    assert (refused.status, "dns_domain" in refused.text, port["id"] in refused.text) == (400, True, True)
    assert "256 characters" in refused.text
    assert call(member, "PUT", path, {"network": {"dns_domain": just, "name": "n"}}).status == 200
    assert call(member, "PUT", f"/ports/{port['id']}", {"port": {"dns_name": "x"}}).status == 200
    assert call(member, "PUT", path, longer).status == 200


def test_the_ports_of_a_server_have_its_name_until_they_are_detached(cloud: TestCloud, member: Client) -> None:
    network, _ = network_with_subnet(member)
    own = make(member, "port", network_id=network)["id"]
    server = create(member, name="My Server", networks=[{"uuid": network}, {"port": own}])["id"]
    ports = call(member, "GET", f"/ports?device_id={server}")["ports"]
    assert [port["dns_name"] for port in ports] == ["my-server"] * 2
    assert names_told(cloud, network) == {"my-server"}
    second = make(member, "port", network_id=network, dns_name="my-server")["id"]
    attached = member.compute("POST", f"/servers/{server}/os-interface", {"interfaceAttachment": {"port_id": second}})
    assert attached.status == 200, attached.text
    member.wait(
        "the interface to be gone",
        lambda: member.compute("DELETE", f"/servers/{server}/os-interface/{own}").status in (202, 404),
    )
    member.wait("the port to be free", lambda: call(member, "GET", f"/ports/{own}")["port"]["device_id"] == "")
    assert call(member, "GET", f"/ports/{own}")["port"]["dns_name"] == ""


def test_a_server_gets_no_port_that_has_another_name(member: Client) -> None:
    network, _ = network_with_subnet(member)
    port = make(member, "port", network_id=network, dns_name="db")["id"]
    server = create(member, networks="none")["id"]
    wanted = {"interfaceAttachment": {"port_id": port}}
    refused = member.compute("POST", f"/servers/{server}/os-interface", wanted)
    assert (refused.status, "dns_name" in refused.text) == (400, True)
    shown = call(member, "GET", f"/ports/{port}")["port"]
    assert (shown["dns_name"], shown["device_id"]) == ("db", "")
    assert create(member, name="db", networks=[{"port": port}])["id"]


def test_hosts_are_told_the_names_of_their_networks_alone_and_older_agents_none(
    cloud: TestCloud, member: Client
) -> None:
    (ours, _), (theirs, _) = network_with_subnet(member), network_with_subnet(cloud.persona("other_member"))
    create(member, name="web", networks=[{"uuid": ours}])
    create(cloud.persona("other_member"), name="secret", networks=[{"uuid": theirs}])
    make(member, "port", network_id=ours, dns_name="nowhere-yet")
    assert names_told(cloud, ours) == {"web", "nowhere-yet"}
    assert names_told(cloud, theirs) == {"secret"}
    older = host_records.Kind(features=frozenset({"networks", w.BANDWIDTH_LIMITS, w.FLOATING_IP_LIMITS}))
    with mock.patch.object(host_records, "kind_of", return_value=older):
        assert names_told(cloud, ours) == set()


@pytest.mark.parametrize(
    ("name", "domain", "status"),
    [("www", "example.org.", 201), ("www.", "example.org.", 400), ("www", "example.org", 400), ("a_b", "", 400)],
)
def test_what_a_floating_ip_may_be_called(member: Client, name: str, domain: str, status: int) -> None:
    external = call(member, "GET", "/networks?router:external=true")["networks"][0]["id"]
    body = {"floatingip": {"floating_network_id": external, "dns_name": name, "dns_domain": domain}}
    assert call(member, "POST", "/floatingips", body).status == status
