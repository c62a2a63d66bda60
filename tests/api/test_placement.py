"""What the hosts have and who holds it, as administrators see it through Placement's API."""

from __future__ import annotations

import msgspec
import openstack
import pytest

from cumulet.compute import hosts
from cumulet.testing import Client, TestCloud

VERSION = {"OpenStack-API-Version": "placement 1.39"}


def test_every_host_is_a_resource_provider(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds_yaml))
    placement = openstack.connect(cloud="cumulet").placement
    providers = {provider.name: provider for provider in placement.resource_providers()}
    assert set(providers) == set(cloud.hosts)
    for provider in providers.values():
        inventories = {inventory.resource_class for inventory in placement.resource_provider_inventories(provider)}
        assert inventories == {"VCPU", "MEMORY_MB", "DISK_GB"}


def test_a_servers_share_is_where_the_server_is(cloud: TestCloud, admin: Client, member: Client) -> None:
    image = admin.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    flavor = next(f for f in admin.compute("GET", "/flavors")["flavors"] if f["name"] == "m1.tiny")["id"]
    body = {"server": {"name": "s", "imageRef": image, "flavorRef": flavor, "networks": "none"}}
    server = member.compute("POST", "/servers", body)["server"]["id"]
    cloud.idle()
    shown = admin.request("GET", f"/placement/allocations/{server}", headers=VERSION).json
    [(provider, share)] = shown["allocations"].items()
    assert share["resources"] == {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}
    assert (shown["project_id"], shown["consumer_type"]) == (member.project_id, "INSTANCE")
    host = admin.compute("GET", f"/servers/{server}")["server"]["OS-EXT-SRV-ATTR:host"]
    assert admin.request("GET", f"/placement/resource_providers/{provider}")["name"] == host
    used = admin.request("GET", f"/placement/usages?project_id={member.project_id}", headers=VERSION)["usages"]
    assert used["INSTANCE"] == {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1, "consumer_count": 1}
    member.compute("DELETE", f"/servers/{server}")
    cloud.idle()
    assert admin.request("GET", f"/placement/allocations/{server}", headers=VERSION).json == {"allocations": {}}


def test_a_candidate_is_a_host_with_room(admin: Client, cloud: TestCloud) -> None:
    path = "/placement/allocation_candidates?resources=VCPU:1,MEMORY_MB:512"
    found = admin.request("GET", path, headers=VERSION).json
    assert len(found["allocation_requests"]) == len(cloud.hosts)
    path = "/placement/allocation_candidates?resources=VCPU:100000000"
    assert admin.request("GET", path, headers=VERSION)["allocation_requests"] == []


@pytest.mark.parametrize("persona", ["manager", "member", "reader"])
def test_projects_do_not_see_the_hosts(cloud: TestCloud, persona: str) -> None:
    for path in ("/resource_providers", "/allocation_candidates?resources=VCPU:1", "/traits", "/resource_classes"):
        answer = cloud.persona(persona).request("GET", f"/placement{path}", headers=VERSION)
        assert answer.status == 403, path
        assert not any(host in answer.text for host in cloud.hosts)


def provider_of(admin: Client, host: str) -> str:
    found: str = admin.request("GET", f"/placement/resource_providers?name={host}", headers=VERSION)[
        "resource_providers"
    ][0]["uuid"]
    return found


def test_the_provider_of_a_host_keeps_its_name(cloud: TestCloud, admin: Client) -> None:
    """Its host is found by that name: with another one its servers would lose their shares."""
    host = cloud.hosts[0]
    path = f"/placement/resource_providers/{provider_of(admin, host)}"
    before = admin.request("GET", path, headers=VERSION).json
    answer = admin.request("PUT", path, {"name": "another"}, headers=VERSION)
    assert answer.status == 409
    assert f"The resource provider {host} is that of the host of this name." in answer.text
    assert admin.request("GET", path, headers=VERSION).json == before
    assert admin.request("PUT", path, {"name": host}, headers=VERSION).status == 200


def test_nobody_else_takes_the_name_of_a_host(cloud: TestCloud, admin: Client) -> None:
    host = cloud.hosts[0]
    uuid = provider_of(admin, host)
    made = admin.request("POST", "/placement/resource_providers", {"name": "mine"}, headers=VERSION).json
    assert admin.request("DELETE", f"/placement/resource_providers/{uuid}", headers=VERSION).status == 204
    renamed = admin.request("PUT", f"/placement/resource_providers/{made['uuid']}", {"name": host}, headers=VERSION)
    again = admin.request("POST", "/placement/resource_providers", {"name": host}, headers=VERSION)
    assert (renamed.status, again.status) == (409, 409)
    own = {"name": host, "uuid": uuid}
    assert admin.request("POST", "/placement/resource_providers", own, headers=VERSION).status == 200


def test_nobody_else_takes_the_id_of_a_host_s_hypervisor(cloud: TestCloud, admin: Client) -> None:
    """Its provider could not be made again, and nothing that the host says would be recorded."""
    host = cloud.hosts[0]
    uuid = provider_of(admin, host)
    assert admin.request("DELETE", f"/placement/resource_providers/{uuid}", headers=VERSION).status == 204
    answer = admin.request("POST", "/placement/resource_providers", {"name": "mine", "uuid": uuid}, headers=VERSION)
    assert answer.status == 409
    assert f"The resource provider {host} is that of the host of this name." in answer.text
    cloud.reconcile()
    assert provider_of(admin, host) == uuid


def test_a_new_host_has_the_id_of_the_provider_that_has_its_name(cloud: TestCloud, admin: Client) -> None:
    """Whoever made the provider first finds its host by it."""
    made = admin.request("POST", "/placement/resource_providers", {"name": "rack9"}, headers=VERSION).json
    embedded = cloud.embedded
    facts = msgspec.structs.replace(cloud.await_(embedded.hosts.facts(cloud.hosts[0])), name="rack9")
    settings = msgspec.structs.replace(embedded.settings, host_names=(*embedded.settings.host_names, "rack9"))
    embedded.db.write(lambda tx: hosts.register(tx, facts, clock=embedded.clock, settings=settings))
    listed = admin.compute("GET", "/os-hypervisors", version="2.53")["hypervisors"]
    assert {one["hypervisor_hostname"]: one["id"] for one in listed}["rack9"] == made["uuid"]
