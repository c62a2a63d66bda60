"""What an image promises of hosts is kept, or the boot ends with its name; unknown properties mean nothing."""

from __future__ import annotations

import pytest

from cumulet.compute import image_promises, promises
from cumulet.testing import Client

from .servers import AUTO, host_of
from .test_compute_servers import ask_for, create
from .test_places import reasons
from .test_promises import described, give_trait

DISK = bytes(1 << 20)
REFUSED = {
    "hw_cpu_policy": "dedicated",
    "hw_cpu_thread_policy": "require",
    "hw_cpu_sockets": "2",
    "hw_cpu_max_cores": "1",
    "hw_numa_nodes": "2",
    "hw_numa_cpus.0": "0,1",
    "hw_numa_mem.1": "128",
    "hw_mem_page_size": "large",
    "hw_mem_encryption": "true",
    "hw_firmware_type": "uefi",
    "hw_tpm_version": "2.0",
    "hw_machine_type": "pc",
    "hw_time_hpet": "true",
    "hw_watchdog_action": "reset",
    "os_secure_boot": "required",
    "img_hide_hypervisor_id": "true",
    "hw_architecture": "aarch64",
    "architecture": "ppc64le",
    "hypervisor_type": "hyperv",
    "img_hv_requested_version": ">=99.0",
    "vm_mode": "xen",
}
KEPT = {
    "hw_cpu_policy": "shared",
    "hw_cpu_cores": "2",
    "hw_mem_page_size": "any",
    "hw_firmware_type": "bios",
    "hw_machine_type": "q35",
    "hw_serial_port_count": "1",
    "os_secure_boot": "optional",
    "img_hide_hypervisor_id": "no",
    "architecture": "x86_64",
    "hypervisor_type": "QEMU",
    "vm_mode": "hvm",
    "hw_disk_bus": "scsi",
    "os_distro": "debian",
    "hw_colour": "blue",
    "colour": "blue",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_kept_is_named(name: str) -> None:
    others = {"os_distro": "debian", "hw_serial_port_count": "1"}
    assert image_promises.unkept({**others, name: REFUSED[name]}, described()) == name


@pytest.mark.parametrize("name", KEPT)
def test_what_every_guest_is_anyway_is_kept_and_what_nobody_knows_means_nothing(name: str) -> None:
    assert image_promises.unkept({name: KEPT[name]}, described()) is None


@pytest.mark.parametrize(("name", "spec"), image_promises.AS_A_FLAVOR.items())
@pytest.mark.parametrize("value", ["no such value", "shared", "1", "2", "true", "false", "small"])
def test_a_property_is_kept_with_the_values_of_the_extra_spec(name: str, spec: str, value: str) -> None:
    of_flavor = promises.of(described(**{spec: value})).unkept
    assert (image_promises.unkept({name: value}, described()) is None) == (of_flavor is None)


# -- as stories


def image(member: Client, **properties: str) -> str:
    """An image with these properties."""
    body = {"name": "promising", "disk_format": "raw", "container_format": "bare", **properties}
    made = member.request("POST", "/image/v2/images", body)
    assert made.status == 201, made.text
    headers = {"Content-Type": "application/octet-stream"}
    sent = member.request("PUT", f"/image/v2/images/{made['id']}/file", content=DISK, headers=headers)
    assert sent.status == 204, sent.text
    return str(made["id"])


@pytest.mark.parametrize(("name", "value"), [("hw_cpu_policy", "dedicated"), ("architecture", "aarch64")])
def test_a_server_of_an_image_that_is_not_kept_is_not_active(
    admin: Client, member: Client, name: str, value: str
) -> None:
    server = ask_for(member, imageRef=image(member, **{name: value}))["server"]["id"]
    member.wait_for_status(server, "ERROR")
    details = admin.server(server)["fault"]["details"]
    assert details == (
        f"NO_VALID_HOST: host1: IMAGE_PROPERTY_NOT_KEPT ({name}); host2: IMAGE_PROPERTY_NOT_KEPT ({name})"
    )


def test_nor_does_a_server_become_one_by_rebuild(member: Client) -> None:
    server = create(member)
    promising = image(member, hw_firmware_type="uefi")
    answer = member.action(server["id"], {"rebuild": {"imageRef": promising}})
    assert answer.status == 400
    assert "hw_firmware_type" in answer.text
    assert member.server(server["id"])["image"]["id"] == server["image"]["id"]


def test_traits_of_an_image_choose_the_host_in_boots_and_moves(admin: Client, member: Client) -> None:
    promising = image(member, **{"trait:CUSTOM_FAST": "required"})
    give_trait(admin, "host2", "CUSTOM_FAST")
    server = create(member, imageRef=promising)
    assert host_of(admin, server["id"]) == "host2"
    assert admin.action(server["id"], {"os-migrateLive": {"host": "host1", **AUTO}}).status == 202
    assert "host1: TRAIT_MISSING (CUSTOM_FAST)" in reasons(admin, server["id"], "live-migration")
