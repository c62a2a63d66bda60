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


def known(properties: Mapping[str, object]) -> dict[str, str]:
    """The properties of an image that describe hardware, image, system and traits. Servers show these (2.98).

    Of a longer value a server has the beginning, as upstream (Nova's `get_system_metadata_from_image`).
    """
    return {
        name: str(value)[:LONGEST_VALUE]
        for name, value in properties.items()
        if value is not None and (name.startswith(("hw_", "img_", "os_", TRAIT)) or name in FORMER_NAMES)
    }


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
