"""What an image promises of hosts is kept, or the boot ends with its name; unknown properties mean nothing."""

from __future__ import annotations

import pytest

from cumulet.compute import extra_spec_rules, image_promises, promises
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
    "hw_sound_model": "usb",
    "hw_rng_model": "egd",
    "hw_disk_bus": "fdc",
    "hw_cdrom_bus": "ide",
    "hw_floppy_bus": "fdc",
    "hw_input_bus": "ps2",
    "hw_pointer_model": "mouse",
    "hw_scsi_model": "lsilogic",
    "hw_video_model": "qxl",
    "hw_video_ram": "1",
    "hw_vif_model": "ne2k_pci",
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
NO_PROMISE = (
    # Of rescues from the image: refused there, if need be.
    *("hw_rescue_bus", "hw_rescue_device"),
    # Heeded elsewhere: the guest agent, the config drive, passwords, snapshots at rest.
    *("hw_qemu_guest_agent", "img_config_drive", "os_admin_user", "os_require_quiesce", "os_type"),
    # Of volumes, which are not here, of other hypervisors, or without hw_ephemeral_encryption or a kernel of its own.
    *("img_bdm_v2", "img_mappings", "hw_auto_disk_config", "hw_device_id", "hw_disk_type", "img_bittorrent"),
    *("img_cache_in_nova", "img_compression_level", "img_linked_clone", "img_root_device_name", "img_use_agent"),
    *("os_skip_agent_inject_files_at_boot", "os_skip_agent_inject_ssh", "hw_ephemeral_encryption_secret_uuid"),
    *("os_command_line", "os_distro", "img_owner_id", "img_version"),
    # Signatures are not verified unless an operator has Nova do so.
    *("img_signature", "img_signature_hash_method", "img_signature_certificate_uuid", "img_signature_key_type"),
)
NAMES = (
    *NO_PROMISE,
    *("hw_architecture", "hw_emulation_architecture", "hw_boot_menu", "hw_cpu_cores", "hw_cpu_sockets"),
    *("hw_cpu_max_cores", "hw_cpu_max_sockets", "hw_cpu_max_threads", "hw_cpu_policy", "hw_cpu_thread_policy"),
    *("hw_cpu_realtime_mask", "hw_cpu_threads", "hw_firmware_type", "hw_firmware_stateless", "hw_ipxe_boot"),
    *("hw_locked_memory", "hw_machine_type", "hw_mem_encryption", "hw_mem_encryption_model", "hw_mem_page_size"),
    *("hw_numa_nodes", "hw_numa_cpus.0", "hw_numa_mem.0", "hw_pci_numa_affinity_policy", "hw_pmu", "hw_rng_model"),
    *("hw_time_hpet", "hw_serial_port_count", "hw_viommu_model", "hw_vm_mode", "hw_watchdog_action"),
    *("hw_vif_multiqueue_enabled", "hw_tpm_model", "hw_tpm_version", "hw_ephemeral_encryption"),
    *("hw_virtio_packed_ring", "hw_maxphysaddr_mode", "hw_maxphysaddr_bits", "hw_sound_model", "hw_usb_model"),
    *("hw_cdrom_bus", "hw_disk_bus", "hw_floppy_bus", "hw_input_bus", "hw_pointer_model", "hw_scsi_model"),
    *("hw_video_model", "hw_video_ram", "hw_vif_model"),
    *("hw_redirected_usb_ports", "img_hv_requested_version", "img_hv_type", "img_hide_hypervisor_id"),
    "os_secure_boot",
)
"""Fields of `nova.objects.image_meta.ImageMetaProps` 34.0.0."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_kept_is_named(name: str) -> None:
    others = {"os_distro": "debian", "hw_serial_port_count": "1"}
    assert image_promises.unkept({**others, name: REFUSED[name]}, described()) == name


@pytest.mark.parametrize("name", KEPT)
def test_what_every_guest_is_anyway_is_kept_and_what_nobody_knows_means_nothing(name: str) -> None:
    assert image_promises.unkept({name: KEPT[name]}, described()) is None


@pytest.mark.parametrize("spec", [name.replace("*", "0") for name in extra_spec_rules._RULES if name.startswith("hw:")])
@pytest.mark.parametrize("value", ["no such value", "shared", "1", "2", "true", "false", "small", "none"])
def test_a_property_is_kept_with_the_values_of_the_extra_spec(spec: str, value: str) -> None:
    of_flavor = promises.of(described(**{spec: value})).unkept
    assert (image_promises.unkept({spec.replace(":", "_", 1): value}, described()) is None) == (of_flavor is None)


@pytest.mark.parametrize("name", NAMES)
def test_every_property_that_upstream_knows_is_decided_about(name: str) -> None:
    """With a value that means nothing it is refused, or it is among those that promise nothing of a host."""
    assert (image_promises.unkept({name: "no such value"}, described()) is None) == (name in NO_PROMISE)


# -- as stories


def image(member: Client, **properties: object) -> str:
    """An image with these properties."""
    body = {"name": "promising", "disk_format": "raw", "container_format": "bare", **properties}
    made = member.request("POST", "/image/v2/images", body)
    assert made.status == 201, made.text
    headers = {"Content-Type": "application/octet-stream"}
    sent = member.request("PUT", f"/image/v2/images/{made['id']}/file", content=DISK, headers=headers)
    assert sent.status == 204, sent.text
    return str(made["id"])


@pytest.mark.parametrize(("name", "value"), [("hw_cpu_policy", "dedicated"), ("hypervisor_version_requires", ">=99.0")])
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


def test_a_rebuild_from_an_image_whose_trait_the_host_lacks_is_refused(admin: Client, member: Client) -> None:
    server = create(member)
    promising = image(member, **{"trait:CUSTOM_FAST": "required"})
    answer = member.action(server["id"], {"rebuild": {"imageRef": promising}})
    assert answer.status == 400
    assert "CUSTOM_FAST" in answer.text
    give_trait(admin, host_of(admin, server["id"]), "CUSTOM_FAST")
    assert member.action(server["id"], {"rebuild": {"imageRef": promising}}).status == 202
    member.wait_for_status(server["id"], "ACTIVE")
