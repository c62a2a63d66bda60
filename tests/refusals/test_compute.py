"""What Compute refuses and no story comes upon."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.compute.server_tags import MOST_TAGS
from cumulet.compute.store import servers, settle_server
from cumulet.testing import Answer, Client
from tests.image import attack_images
from tests.links import silent

from .table import Refusal, Scene, table

REFUSALS, refused = table()
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def flavor(scene: Scene, **amounts: int) -> str:
    body = {"name": scene.new_name(), "vcpus": 1, "ram": 64, "disk": 1, **amounts}
    answer = scene.admin.compute("POST", "/flavors", {"flavor": body})
    assert answer.status == 200, answer.text
    made: str = answer["flavor"]["id"]
    return made


def image(scene: Scene, **values: object) -> str:
    """One that a server can be made from, with requirements of its own."""
    body = {"name": "i", "disk_format": "raw", "container_format": "bare", "visibility": "public", **values}
    answer = scene.admin.request("POST", "/image/v2/images", body)
    assert answer.status == 201, answer.text
    headers = {"Content-Type": "application/octet-stream"}
    path = f"/image/v2/images/{answer['id']}/file"
    assert scene.admin.request("PUT", path, headers=headers, content=b"\0" * 512).status == 204
    made: str = answer["id"]
    return made


def tiny(scene: Scene) -> str:
    found: str = scene.admin.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    return found


def asked(scene: Scene, who: Client | None = None, **values: object) -> Answer:
    server = {"name": "s", "networks": "none", **values}
    server.setdefault("imageRef", tiny(scene))
    server.setdefault("flavorRef", flavor(scene))
    return (who or scene.admin).compute("POST", "/servers", {"server": server})


def server(scene: Scene, who: Client | None = None, **values: object) -> str:
    answer = asked(scene, who, **values)
    assert answer.status == 202, answer.text
    scene.cloud.idle()
    made: str = answer["server"]["id"]
    return made


def unplaced(scene: Scene) -> str:
    """A server that no host has: none is large enough."""
    return server(scene, flavorRef=flavor(scene, ram=10_000_000))


# -- create


@refused(400, "class_name: it has more than 255 characters")
def a_quota_class_whose_name_is_too_long(scene: Scene) -> Answer:
    body = {"quota_class_set": {"cores": 1}}
    return scene.admin.compute("PUT", f"/os-quota-class-sets/{'c' * 256}", body)


@refused(400, "memory is too small")
def an_image_that_needs_more_memory(scene: Scene) -> Answer:
    return asked(scene, imageRef=image(scene, min_ram=1000))


@refused(400, "smaller than the minimum size")
def an_image_that_needs_a_larger_disk(scene: Scene) -> Answer:
    return asked(scene, imageRef=image(scene, min_disk=9))


@refused(400, "disk is too small for requested image")
def an_image_that_is_larger_than_the_disk(scene: Scene) -> Answer:
    large = qcow2(scene)
    return asked(scene, imageRef=large)


def qcow2(scene: Scene) -> str:
    """Small, and of 3 GiB inside."""
    body = {"name": "i", "disk_format": "qcow2", "container_format": "bare", "visibility": "public"}
    answer = scene.admin.request("POST", "/image/v2/images", body)
    headers = {"Content-Type": "application/octet-stream"}
    path, content = f"/image/v2/images/{answer['id']}/file", attack_images.Qcow2(virtual_size=3 << 30).build()
    uploaded = scene.admin.request("PUT", path, headers=headers, content=content)
    assert uploaded.status == 204, uploaded.text
    made: str = answer["id"]
    return made


@refused(403, "volume-backed")
def a_flavor_without_a_disk(scene: Scene) -> Answer:
    return asked(scene, scene.member, flavorRef=flavor(scene, disk=0))


@refused(400, "encrypted volume")
def a_rescue_with_an_image_of_an_encrypted_volume(scene: Scene) -> Answer:
    wanted = image(scene, cinder_encryption_key_id=UNKNOWN)
    return scene.admin.action(server(scene), {"rescue": {"rescue_image_ref": wanted}})


@refused(400, "encrypted volume")
def an_image_of_an_encrypted_volume(scene: Scene) -> Answer:
    return asked(scene, imageRef=image(scene, cinder_encryption_key_id=UNKNOWN))


@refused(400, "host2 could not be found")
def a_host_and_another_ones_hypervisor(scene: Scene) -> Answer:
    return asked(scene, host="host2", hypervisor_hostname="host1")


@refused(400, "mutually exclusive")
def a_host_named_in_two_ways(scene: Scene) -> Answer:
    return asked(scene, host="host1", availability_zone="nova:host1")


@refused(400, "Compute host host1 has no hypervisor host2.")
def a_zone_with_two_hosts(scene: Scene) -> Answer:
    return asked(scene, availability_zone="nova:host1:host2")


@refused(403, "forced_host")
def a_member_who_names_a_host_and_another_ones_node(scene: Scene) -> Answer:
    return asked(scene, scene.member, availability_zone="nova:host1:host2")


@refused(400, "specified twice")
def a_port_twice(scene: Scene) -> Answer:
    return asked(scene, networks=[{"port": UNKNOWN}] * 2)


@refused(400, "cannot be used with port")
def a_port_and_an_address(scene: Scene) -> Answer:
    return asked(scene, networks=[{"port": UNKNOWN, "fixed_ip": "10.0.0.9"}])


@refused(400, "block_device_mapping syntaxes")
def both_forms_of_block_devices(scene: Scene) -> Answer:
    old = [{"volume_id": UNKNOWN, "device_name": "vda"}]
    new = [{"uuid": UNKNOWN, "source_type": "image", "destination_type": "local", "boot_index": 0}]
    return asked(scene, block_device_mapping=old, block_device_mapping_v2=new)


@refused(409, "is still in use")
def a_port_of_something_else(scene: Scene) -> Answer:
    port = scene.made("port", network_id=network(scene), device_id="something")["id"]
    return asked(scene, networks=[{"port": port}])


@refused(400, "requires a FixedIP")
def a_port_without_an_address(scene: Scene) -> Answer:
    port = scene.made("port", network_id=network(scene), fixed_ips=[])["id"]
    return asked(scene, networks=[{"port": port}])


@refused(400, "already in use")
def an_address_that_somebody_has(scene: Scene) -> Answer:
    net = network(scene)
    taken = scene.made("port", network_id=net)["fixed_ips"][0]["ip_address"]
    return asked(scene, networks=[{"uuid": net, "fixed_ip": taken}])


@refused(400, "port_security_enabled")
def groups_on_a_network_without_port_security(scene: Scene) -> Answer:
    net = network(scene, port_security_enabled=False)
    group = scene.made("security_group", name=scene.new_name())["name"]
    return asked(scene, networks=[{"uuid": net}], security_groups=[{"name": group}])


def network(scene: Scene, **attributes: Any) -> str:
    made: str = scene.made("network", **attributes)["id"]
    scene.made("subnet", network_id=made, ip_version=4, cidr="10.9.0.0/24")
    return made


# -- resize, and what follows one


def resized(scene: Scene, server_id: str, wanted: str) -> Answer:
    return scene.admin.action(server_id, {"resize": {"flavorRef": wanted}})


@refused(400, "memory is too small")
def a_resize_below_the_images_memory(scene: Scene) -> Answer:
    made = server(scene, imageRef=image(scene, min_ram=100), flavorRef=flavor(scene, ram=200))
    return resized(scene, made, flavor(scene, ram=99))


@refused(400, "smaller than the minimum size")
def a_resize_below_the_images_disk(scene: Scene) -> Answer:
    made = server(scene, imageRef=image(scene, min_disk=2), flavorRef=flavor(scene, disk=2))
    return resized(scene, made, flavor(scene, disk=1))


@refused(400, "disk is too small for requested image")
def a_resize_below_the_images_size(scene: Scene) -> Answer:
    made = server(scene, imageRef=qcow2(scene), flavorRef=flavor(scene, disk=4))
    return resized(scene, made, flavor(scene, disk=2))


@refused(409, "is not ready")
def a_move_of_what_no_host_has(scene: Scene) -> Answer:
    """No request makes it so."""
    made = server(scene)
    nowhere = sa.update(servers).where(servers.c.id == made).values(host=None)
    scene.cloud.embedded.db.write(lambda tx: tx.execute(nowhere))
    return scene.admin.action(made, {"migrate": None}, version="2.55")


@refused(400, "has not been resized")
def a_confirmation_of_what_was_not_resized(scene: Scene) -> Answer:
    """Nor this: a record that is wrong is refused all the same."""
    made = server(scene)
    scene.cloud.embedded.db.write(lambda tx: settle_server(tx, made, now_us=1, vm_state="resized"))
    return scene.admin.action(made, {"confirmResize": None})


# -- a server's host is asked


@refused(409, "is not ready")
def the_console_of_what_no_host_has(scene: Scene) -> Answer:
    return scene.admin.action(unplaced(scene), {"os-getConsoleOutput": {}})


@refused(404, "does not have a console")
def the_console_on_a_silent_host(scene: Scene) -> Answer:
    made = server(scene, host="host1")
    with silent(scene.cloud, "host1"):
        return scene.admin.action(made, {"os-getConsoleOutput": {}})


@refused(409, "is not ready")
def the_diagnostics_of_what_no_host_has(scene: Scene) -> Answer:
    return scene.admin.compute("GET", f"/servers/{unplaced(scene)}/diagnostics")


@refused(409, "is not ready")
def the_diagnostics_on_a_silent_host(scene: Scene) -> Answer:
    made = server(scene, host="host1")
    with silent(scene.cloud, "host1"):
        return scene.admin.compute("GET", f"/servers/{made}/diagnostics")


@refused(409, "while an operation is running")
def another_state_while_an_operation_runs(scene: Scene) -> Answer:
    """Its host does not answer, so that it does not end."""
    made = server(scene, host="host1")
    with silent(scene.cloud, "host1"):
        assert scene.admin.compute("DELETE", f"/servers/{made}").status == 204
        return scene.admin.action(made, {"os-resetState": {"state": "active"}})


@refused(409, "has no guest until it is unshelved")
def another_state_of_what_was_taken_off_its_host(scene: Scene) -> Answer:
    made = server(scene)
    assert scene.admin.action(made, {"shelve": None}).status == 202
    scene.cloud.idle()
    return scene.admin.action(made, {"os-resetState": {"state": "error"}})


# -- the rest


@refused(400, "Unacceptable parameters")
def an_aggregate_in_a_zone_without_a_name(scene: Scene) -> Answer:
    made = scene.admin.compute("POST", "/os-aggregates", {"aggregate": {"name": scene.new_name()}})["aggregate"]["id"]
    body = {"set_metadata": {"metadata": {"availability_zone": ""}}}
    return scene.admin.compute("POST", f"/os-aggregates/{made}/action", body)


@refused(400, "marker")
def images_after_one_that_is_not(scene: Scene) -> Answer:
    return scene.admin.compute("GET", f"/images?marker={UNKNOWN}", version="2.1")


@refused(400, "changes-since must be less")
def actions_of_a_span_that_ends_before_it_begins(scene: Scene) -> Answer:
    query = "changes-since=2026-01-02T00:00:00Z&changes-before=2026-01-01T00:00:00Z"
    return scene.admin.compute("GET", f"/servers/{server(scene)}/os-instance-actions?{query}")


@refused(404, "is not live-migration")
def a_cold_migration_among_live_ones(scene: Scene) -> Answer:
    made = server(scene)
    assert scene.admin.action(made, {"migrate": None}, version="2.55").status == 202
    scene.cloud.idle()
    (found,) = scene.admin.compute("GET", f"/os-migrations?instance_uuid={made}")["migrations"]
    return scene.admin.compute("GET", f"/servers/{made}/migrations/{found['id']}")


@refused(400, "must be less than or equal to")
def a_users_limit_above_its_projects(scene: Scene) -> Answer:
    body = {"quota_set": {"cores": 10_000}}
    user = scene.member.user_id
    return scene.admin.compute("PUT", f"/os-quota-sets/{scene.member.project_id}?user_id={user}", body)


@refused(400, "Sort direction size exceeds")
def more_directions_than_keys(scene: Scene) -> Answer:
    return scene.admin.compute("GET", "/servers?sort_key=display_name&sort_dir=asc&sort_dir=desc")


@refused(400, "cannot be empty")
def a_group_without_a_name(scene: Scene) -> Answer:
    return grouped(scene, " ")


@refused(404, "not found for project")
def a_group_that_is_not(scene: Scene) -> Answer:
    return grouped(scene, "nobody")


@refused(409, "Multiple security groups found")
def a_name_of_two_groups(scene: Scene) -> Answer:
    name = scene.new_name()
    for _ in range(2):
        scene.made("security_group", name=name)
    return grouped(scene, name)


@refused(404, "has no ports")
def a_group_for_a_server_without_ports(scene: Scene) -> Answer:
    assert scene.admin.request("GET", "/network/v2.0/security-groups").status == 200  # Makes its own, as upstream.
    return grouped(scene, "default")


def grouped(scene: Scene, name: str) -> Answer:
    return scene.admin.action(server(scene), {"addSecurityGroup": {"name": name}})


@refused(400, "exceeded the per-server limit")
def a_tag_too_many(scene: Scene) -> Answer:
    path = f"/servers/{server(scene)}/tags"
    tags = {"tags": [f"t{number}" for number in range(MOST_TAGS)]}
    assert scene.admin.compute("PUT", path, tags).status == 200
    return scene.admin.compute("PUT", f"{path}/one-more")


@refused(403, "too many server groups")
def a_server_group_too_many(scene: Scene) -> Answer:
    path = f"/os-quota-sets/{scene.admin.project_id}"
    assert scene.admin.compute("PUT", path, {"quota_set": {"server_groups": 0}}).status == 200
    refused = scene.admin.compute("POST", "/os-server-groups", {"server_group": {"name": "g", "policy": "affinity"}})
    assert scene.admin.compute("DELETE", path).status == 202
    return refused


@refused(400, "Missing forced_down field")
def a_host_forced_down_without_a_word(scene: Scene) -> Answer:
    body = {"host": "host1", "binary": "nova-compute"}
    return scene.admin.compute("PUT", "/os-services/force-down", body, version="2.11")


@refused(400, "Only nova-compute services")
def a_service_of_another_kind_disabled(scene: Scene) -> Answer:
    body = {"host": "host1", "binary": "nova-conductor"}
    return scene.admin.compute("PUT", "/os-services/disable", body, version="2.11")


@refused(404, "could not be found")
def the_description_of_a_flavor_that_is_not(scene: Scene) -> Answer:
    return scene.admin.compute("PUT", "/flavors/nothing", {"flavor": {"description": "d"}})


def prepare(scene: Scene) -> None:
    unlimited = {"quota_set": {"instances": -1, "cores": -1, "ram": -1}}
    assert scene.admin.compute("PUT", f"/os-quota-sets/{scene.admin.project_id}", unlimited).status == 200


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused(scene: Scene, refusal: Refusal) -> None:
    refusal.check(scene)
