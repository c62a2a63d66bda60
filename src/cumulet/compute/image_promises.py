"""What an image asks of the hosts of its guests: each known promise is kept, or no host will have the server.

Names, former names and meanings are upstream's (Glance's "Useful image properties", Nova's `ImageMetaProps`). Which
device a guest sees (`hw_disk_bus`, `hw_vif_model`, `hw_video_model` and the like) is no promise: every guest has the
same devices (README.md, "not yet"). What upstream does not know means nothing, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cumulet.compute import promises
from cumulet.compute.model import Flavor
from cumulet.host import hypervisors
from cumulet.web.boolean_words import boolean

TRAIT = "trait:"
AS_A_FLAVOR: Mapping[str, str] = {
    f"hw_{name}": f"hw:{name}"
    for name in (
        *("boot_menu", "cpu_cores", "cpu_max_cores", "cpu_max_sockets", "cpu_max_threads", "cpu_policy"),
        *("cpu_sockets", "cpu_thread_policy", "cpu_threads", "ephemeral_encryption", "locked_memory"),
        *("maxphysaddr_bits", "maxphysaddr_mode", "mem_encryption", "mem_encryption_model", "mem_page_size"),
        *("numa_nodes", "pci_numa_affinity_policy", "pmu", "serial_port_count", "tpm_model", "tpm_version"),
        *("vif_multiqueue_enabled", "viommu_model", "virtio_packed_ring", "watchdog_action"),
    )
} | {"img_hide_hypervisor_id": "hide_hypervisor_id"}
"""Properties that promise what an extra spec of a flavor does, and that spec."""
_SAID = ("hw_numa_cpus.", "hw_numa_mem.")
"""Beginnings of the names of properties that say more of what `hw_numa_nodes` asks for."""
FORMER_NAMES: Mapping[str, str] = {
    "architecture": "hw_architecture",
    "hypervisor_type": "img_hv_type",
    "hypervisor_version_requires": "img_hv_requested_version",
    "ipxe_boot": "hw_ipxe_boot",
    "vm_mode": "hw_vm_mode",
}


def _no(value: str) -> bool:
    return boolean(value) is False


def _says(*words: str) -> Callable[[str], bool]:
    return lambda value: value.strip().lower() in words


KEPT: Mapping[str, Callable[[str], bool]] = {
    "hw_architecture": _says("x86_64", "amd64", "i386", "i486", "i586", "i686"),
    "hw_cpu_realtime_mask": _says(""),
    "hw_emulation_architecture": _says("x86_64"),
    "hw_firmware_stateless": _no,
    "hw_firmware_type": _says("bios"),
    "hw_ipxe_boot": _no,
    "hw_machine_type": _says("q35"),
    "hw_time_hpet": _no,
    "hw_vm_mode": _says("hvm"),
    "img_hv_requested_version": _says(""),
    "img_hv_type": _says(*hypervisors.TYPES),
    "os_secure_boot": _says("disabled", "optional"),
}
"""Properties of images alone, and with which values every guest keeps them."""


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
        return KEPT[name](value)
    if name in AS_A_FLAVOR:
        kept = promises.KEPT.get(AS_A_FLAVOR[name])
        return kept is not None and kept(value, flavor)
    return not name.startswith(_SAID)
