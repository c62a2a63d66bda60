"""Which extra specs mean something (from 2.86 on their values are checked): the names and values upstream knows."""

from __future__ import annotations

import re
from typing import Final

from cumulet.errors import BadRequest
from cumulet.web.boolean_words import boolean

_CPU_SET = r"\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*"

# A line is: name, then what a value is - `text`, `bool`, `int` (with its bounds), `=` and the words there are, `~` and
# a pattern. A name that ends in `*` stands for all that begin so.
_TABLE: Final = rf"""
accel:device_profile text
aggregate_instance_extra_specs:* text
capabilities:aggregates text
capabilities:cell_uuid text
capabilities:cpu_allocation_ratio text
capabilities:cpu_info* text
capabilities:current_workload text
capabilities:disk_allocation_ratio text
capabilities:disk_available_least text
capabilities:disk_mb_used text
capabilities:failed_builds text
capabilities:free_disk_gb text
capabilities:free_disk_mb text
capabilities:free_ram_mb text
capabilities:host text
capabilities:host_ip text
capabilities:hypervisor_hostname text
capabilities:hypervisor_type text
capabilities:hypervisor_version text
capabilities:id text
capabilities:instances* text
capabilities:limits* text
capabilities:local_gb text
capabilities:local_gb_used text
capabilities:mapped text
capabilities:memory_mb text
capabilities:memory_mb_used text
capabilities:metrics* text
capabilities:nodename* text
capabilities:num_instances text
capabilities:num_io_ops text
capabilities:numa_topology* text
capabilities:pci_device_pools* text
capabilities:pci_stats* text
capabilities:ram_allocation_ratio text
capabilities:running_vms text
capabilities:service_id text
capabilities:stats* text
capabilities:supported_hv_specs* text
capabilities:supported_instances* text
capabilities:total_usable_disk_gb text
capabilities:total_usable_ram_mb text
capabilities:updated text
capabilities:uuid text
capabilities:vcpus text
capabilities:vcpus_total text
capabilities:vcpus_used text
group_policy = isolate none
hide_hypervisor_id bool
hw:boot_menu bool
hw:cpu_cores int 1
hw:cpu_dedicated_mask ~ {_CPU_SET}
hw:cpu_max_cores int 1
hw:cpu_max_sockets int 1
hw:cpu_max_threads int 1
hw:cpu_policy = dedicated shared mixed
hw:cpu_realtime bool
hw:cpu_realtime_mask ~ {_CPU_SET}
hw:cpu_sockets int 1
hw:cpu_thread_policy = prefer isolate require
hw:cpu_threads int 1
hw:emulator_threads_policy = isolate share
hw:ephemeral_encryption bool
hw:ephemeral_encryption_format = plain luks luksv2
hw:hide_hypervisor_id bool
hw:locked_memory bool
hw:mem_encryption bool
hw:mem_encryption_model = amd-sev amd-sev-es amd-sev-snp intel-tdx
hw:mem_page_size ~ large|small|any|\d+([kKMGT]i?)?(b|bit|B)?
hw:numa_cpus.* ~ {_CPU_SET}
hw:numa_mem.* int 1
hw:numa_nodes int 1
hw:pci_numa_affinity_policy = required preferred legacy socket
hw:pmem ~ [a-zA-Z0-9_]+(,[a-zA-Z0-9_]+)*,?
hw:pmu bool
hw:redirected_usb_ports int 0 15
hw:serial_port_count int 0
hw:sound_model = sb16 es1370 pcspk ac97 ich6 ich9 usb virtio
hw:tpm_model = tpm-tis tpm-crb
hw:tpm_secret_security = user host deployment
hw:tpm_version = 1.2 2.0
hw:usb_model = none nec-xhci qemu-xhci
hw:vif_multiqueue_enabled bool
hw:viommu_model = intel smmuv3 virtio auto
hw:virtio_packed_ring bool
hw:watchdog_action = none pause poweroff reset disabled
hw_rng:allowed bool
hw_rng:rate_bytes int 0
hw_rng:rate_period int 0
hw_video:ram_max_mb int 0
os:secure_boot = disabled required
pci_passthrough:alias ~ [^:]+:\d+(\s*,\s*[^:]+:\d+)*
quota:cpu_limit int 0
quota:cpu_period int 0
quota:cpu_quota int
quota:cpu_reservation int
quota:cpu_shares int 0
quota:cpu_shares_level = custom high normal low
quota:cpu_shares_share int 0
quota:disk_io_limit int 0
quota:disk_io_reservation int
quota:disk_io_shares_level = custom high normal low
quota:disk_io_shares_share int 0
quota:disk_read_bytes_sec int 0
quota:disk_read_iops_sec int 0
quota:disk_total_bytes_sec int 0
quota:disk_total_iops_sec int 0
quota:disk_write_bytes_sec int 0
quota:disk_write_iops_sec int 0
quota:memory_limit int 0
quota:memory_reservation int
quota:memory_shares_level = custom high normal low
quota:memory_shares_share int 0
quota:vif_inbound_average int 0
quota:vif_inbound_burst int 0
quota:vif_inbound_peak int 0
quota:vif_limit int 0
quota:vif_outbound_average int 0
quota:vif_outbound_burst int 0
quota:vif_outbound_peak int 0
quota:vif_reservation int
quota:vif_shares_level = custom high normal low
quota:vif_shares_share int 0
vmware:hw_version text
vmware:storage_policy text
"""

_RULES: Final = dict(line.split(" ", 1) for line in _TABLE.strip().splitlines())
_PREFIXES: Final = {name[:-1]: rule for name, rule in _RULES.items() if name.endswith("*")}
_NAMESPACES: Final = frozenset(name.split(":")[0] for name in _RULES if ":" in name)
_RESOURCES: Final = re.compile(r"resources[a-zA-Z0-9_-]{0,64}:[A-Z0-9_]+\Z")
_TRAITS: Final = re.compile(r"trait[a-zA-Z0-9_-]{0,64}:[A-Z0-9_]+\Z")


def require_meaningful(name: str, value: str) -> None:
    """400 for a value that its spec cannot have, and for an unknown spec in a namespace that is upstream's own."""
    rule = _rule_of(name)
    if rule is not None:
        reason = _complaint(rule, value)
        if reason is not None:
            raise BadRequest(f"Validation failed; '{value}' is not {reason}.")
    elif ":" in name and _is_known(name.split(":", 1)[0]):
        raise BadRequest(f"Validation failed; extra spec '{name}' does not appear to be a valid extra spec.")


def is_known(name: str) -> bool:
    """Whether upstream gives it a meaning."""
    return _rule_of(name) is not None


def _is_known(namespace: str) -> bool:
    return namespace in _NAMESPACES or bool(re.fullmatch(r"(resources|trait)[a-zA-Z0-9_-]{0,64}", namespace))


def _rule_of(name: str) -> str | None:
    if name in _RULES:
        return _RULES[name]
    if _RESOURCES.match(name):
        return "int"
    if _TRAITS.match(name):
        return "= required forbidden"
    return next(
        (rule for prefix, rule in _PREFIXES.items() if name.startswith(prefix) and len(name) > len(prefix)), None
    )


def _complaint(rule: str, value: str) -> str | None:
    """What is wrong with a value, or None."""
    kind, _, rest = rule.partition(" ")
    if kind == "bool":
        return "a valid boolean-like value" if boolean(value) is None else None
    if kind == "=":
        return None if value in rest.split() else f"one of: {', '.join(rest.split())}"
    if kind == "~":
        return None if re.fullmatch(rest, value) else f"of the format '{rest}'"
    if kind == "int":
        return _integer_complaint([int(bound) for bound in rest.split()], value)
    return None


def _integer_complaint(bounds: list[int], value: str) -> str | None:
    text = value.strip()
    if not re.fullmatch(r"[+-]?\d{1,20}", text):
        return "a valid integer value"
    number = int(text)
    if bounds and number < bounds[0]:
        return f"at least the min value of '{bounds[0]}'"
    if len(bounds) > 1 and number > bounds[1]:
        return f"at most the max value of '{bounds[1]}'"
    return None
