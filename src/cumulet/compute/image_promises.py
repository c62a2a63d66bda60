"""What an image asks of the hosts of its guests: each known promise is kept, or no host will have the server.

Names, former names and meanings are upstream's (Glance's "Useful image properties", Nova's `ImageMetaProps`). A
property ``hw_X`` asks what the extra spec ``hw:X`` of a flavor does, but for those that choose devices
(`image_devices`). What upstream does not know means nothing, as there.
"""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.compute import image_devices, promises
from cumulet.compute.model import Flavor
from cumulet.compute.promises import Kept, no, says
from cumulet.host import hypervisors
from cumulet.image.attributes import MOST_PROPERTIES, PROPERTY_BYTES, RESERVED_PREFIX, SIGNATURE
from cumulet.image.store import BootImage

TRAIT = "trait:"
LONGEST_VALUE = 255
FORMER_NAMES: Mapping[str, str] = {
    "architecture": "hw_architecture",
    "auto_disk_config": "hw_auto_disk_config",
    "hypervisor_type": "img_hv_type",
    "hypervisor_version_requires": "img_hv_requested_version",
    "ipxe_boot": "hw_ipxe_boot",
    "owner_id": "img_owner_id",
    "root_device_name": "img_root_device_name",
    "vm_mode": "hw_vm_mode",
}

KEPT: Mapping[str, Kept] = {
    **image_devices.KEPT,
    "hw_architecture": says("x86_64", "amd64", "i386", "i486", "i586", "i686"),
    "hw_emulation_architecture": says("x86_64"),
    "hw_firmware_stateless": no,
    "hw_firmware_type": says("bios"),
    "hw_ipxe_boot": no,
    "hw_machine_type": says("q35"),
    "hw_rng_model": says("virtio"),
    "hw_time_hpet": no,
    "hw_vm_mode": says("hvm"),
    "img_hide_hypervisor_id": no,
    "img_hv_requested_version": says(""),
    "img_hv_type": says(*hypervisors.TYPES),
    "os_secure_boot": says("disabled", "optional"),
}
"""Properties that no extra spec is called as, and with which values guests keep them."""


_FIELDS = (
    "hw_architecture hw_auto_disk_config hw_boot_menu hw_cdrom_bus hw_cpu_cores hw_cpu_max_cores "
    "hw_cpu_max_sockets hw_cpu_max_threads hw_cpu_policy hw_cpu_realtime_mask hw_cpu_sockets "
    "hw_cpu_thread_policy hw_cpu_threads hw_device_id hw_disk_bus hw_disk_type hw_emulation_architecture "
    "hw_ephemeral_encryption hw_ephemeral_encryption_format hw_ephemeral_encryption_secret_uuid "
    "hw_firmware_stateless hw_firmware_type hw_floppy_bus hw_input_bus hw_ipxe_boot hw_locked_memory "
    "hw_machine_type hw_maxphysaddr_bits hw_maxphysaddr_mode hw_mem_encryption hw_mem_encryption_model "
    "hw_mem_page_size hw_numa_cpus hw_numa_mem hw_numa_nodes hw_pci_numa_affinity_policy hw_pmu "
    "hw_pointer_model hw_qemu_guest_agent hw_redirected_usb_ports hw_rescue_bus hw_rescue_device hw_rng_model "
    "hw_scsi_model hw_serial_port_count hw_sound_model hw_time_hpet hw_tpm_model hw_tpm_version hw_usb_model "
    "hw_video_model hw_video_ram hw_vif_model hw_vif_multiqueue_enabled hw_viommu_model hw_virtio_packed_ring "
    "hw_vm_mode hw_watchdog_action img_bdm_v2 img_bittorrent img_block_device_mapping img_cache_in_nova "
    "img_compression_level img_config_drive img_hide_hypervisor_id img_hv_requested_version img_hv_type "
    "img_linked_clone img_mappings img_owner_id img_root_device_name img_signature "
    "img_signature_certificate_uuid img_signature_hash_method img_signature_key_type img_use_agent img_version "
    "os_admin_user os_command_line os_distro os_require_quiesce os_secure_boot "
    "os_skip_agent_inject_files_at_boot os_skip_agent_inject_ssh os_type "
)
_OTHER_FORMER_NAMES = (
    "vmware_disktype vmware_image_version vmware_ostype xenapi_device_id xenapi_image_compression_level "
    "vmware_linked_clone xenapi_use_agent xenapi_skip_agent_inject_ssh xenapi_skip_agent_inject_files_at_boot "
    "cache_in_nova bittorrent mappings block_device_mapping bdm_v2 "
)
"""Former names of fields that promise nothing of a host."""
SHOWN = frozenset((*_FIELDS.split(), *_OTHER_FORMER_NAMES.split(), *FORMER_NAMES))
"""Upstream's fields of `ImageMetaProps`, and their former names: the properties that servers show (2.98)."""
NOT_STORED = frozenset({"mappings", "block_device_mapping", "img_mappings", "img_block_device_mapping"})
"""Upstream's: large, and of volumes."""
_OF_VOLUMES = ("cinder_encryption_key_id", "cinder_encryption_key_deletion_policy")
NOT_INHERITED = frozenset((*SIGNATURE, *_OF_VOLUMES, "cache_in_nova", "bittorrent"))
"""Properties of one image only, upstream's: images of its servers have none of them, nor any of Glance's own."""
MIN_RAM, MIN_DISK = "image_min_ram", "image_min_disk"
"""Keys of a server's system metadata: what its image asked of flavors, MiB and GiB. Older servers have neither."""


def stored(properties: Mapping[str, object]) -> dict[str, str]:
    """What a server keeps of its image's properties: all, for images of it; `SHOWN` are those that it shows.

    Of a longer value a server has the beginning, as upstream (Nova's `get_system_metadata_from_image`). So these are as
    many as an image may have (`MOST_PROPERTIES`), and no larger.
    """
    return {
        name: str(value)[:LONGEST_VALUE]
        for name, value in properties.items()
        if value is not None and name not in NOT_STORED
    }


def shown(properties: Mapping[str, object]) -> dict[str, object]:
    """Those that a server shows."""
    return {name: value for name, value in properties.items() if name in SHOWN}


def minimums(image: BootImage) -> dict[str, str]:
    """System metadata of a server that is made from this image."""
    return {MIN_RAM: str(image.min_ram_mib), MIN_DISK: str(image.min_disk_gib)}


def inherited(properties: Mapping[str, str], besides: Mapping[str, str]) -> dict[str, str]:
    """What an image of a server takes over of its properties, for which there is room `besides` what it has itself.

    Those that mean something come first, so that an image with all the properties that it may have can be made anew.
    """
    found: dict[str, str] = {}
    places = MOST_PROPERTIES - len(besides)
    room = PROPERTY_BYTES - sum(len(value.encode()) for value in besides.values())
    for name in sorted(properties, key=lambda name: (name not in SHOWN and not name.startswith(TRAIT), name)):
        size = len(properties[name].encode())
        if name in besides or name in NOT_INHERITED or name.startswith(RESERVED_PREFIX):
            continue
        if len(found) < places and size <= room:
            found[name] = properties[name]
            room -= size
    return found


def unkept(properties: Mapping[str, str], flavor: Flavor) -> str | None:
    """The first property that no host keeps."""
    return next((name for name, value in sorted(properties.items()) if not _is_kept(name, value, flavor)), None)


def traits(properties: Mapping[str, str]) -> frozenset[str]:
    """The traits that a host must have."""
    return frozenset(
        name.removeprefix(TRAIT)
        for name, value in properties.items()
        if name.startswith(TRAIT) and value.strip() == "required"
    )


def _is_kept(name: str, value: str, flavor: Flavor) -> bool:
    name = FORMER_NAMES.get(name, name)
    if name in KEPT:
        return KEPT[name](value, flavor)
    return not name.startswith("hw_") or promises.is_kept(name.replace("hw_", "hw:", 1), value, flavor)
