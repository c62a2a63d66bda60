"""What a flavor's extra specs promise: each known one is kept, or no host will have the server.

Nova finds no valid host for what no host can do, and so do we; the coded reason names the spec. A spec that upstream
does not know means nothing, as there. Names and meanings are upstream's (`compute.extra_spec_rules`, Nova's "Extra
Specs" reference); of granular groups (`resources1:`, `trait1:`) there is one provider a host, which has to meet all.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec
import sqlalchemy as sa

from cumulet.compute import extra_spec_rules
from cumulet.compute.model import Flavor
from cumulet.compute.scheduler import Reason, Unfit
from cumulet.compute.store import aggregate_hosts, aggregates, hosts
from cumulet.db.engine import Row, Tx
from cumulet.errors import BadRequest
from cumulet.host.devices import ALL_FEATURES
from cumulet.placement import allocations as placement
from cumulet.placement.providers import inventory_of
from cumulet.placement.store import allocations, inventories, resource_providers
from cumulet.web.boolean_words import boolean

_RESOURCE = re.compile(r"resources([a-zA-Z0-9_-]{0,64}):([A-Z0-9_]+)\Z")
_TRAIT = re.compile(r"trait[a-zA-Z0-9_-]{0,64}:([A-Z0-9_]+)\Z")
_AGGREGATE = "aggregate_instance_extra_specs:"
_AMOUNT = re.compile(r"\d{1,18}\Z")

Kept = Callable[[str, Flavor], bool]


def no(value: str, flavor: Flavor) -> bool:
    """`Kept` of what must be a word for false."""
    return boolean(value) is False


def says(*words: str) -> Kept:
    """`Kept` of what must be one of these words."""
    return lambda value, flavor: value.strip().lower() in words


def _at_least_its_vcpus(value: str, flavor: Flavor) -> bool:
    return bool(_AMOUNT.match(value)) and int(value) >= flavor.vcpus


def _at_least_one(value: str, flavor: Flavor) -> bool:
    return bool(_AMOUNT.match(value)) and int(value) >= 1


def _its_vcpus(value: str, flavor: Flavor) -> bool:
    return value == str(flavor.vcpus)


def _always(value: str, flavor: Flavor) -> bool:
    return True


KEPT: Mapping[str, Kept] = {
    # A guest has one socket with a core for each vCPU, small pages, one serial port, a random number generator.
    "hw:cpu_policy": says("shared"),
    "hw:cpu_sockets": says("1"),
    "hw:cpu_cores": _its_vcpus,
    "hw:cpu_threads": says("1"),
    "hw:cpu_max_sockets": _at_least_one,
    "hw:cpu_max_cores": _at_least_its_vcpus,
    "hw:cpu_max_threads": _at_least_one,
    "hw:emulator_threads_policy": says("share"),
    "hw:mem_page_size": says("small", "any"),
    "hw:serial_port_count": says("1"),
    "hw:watchdog_action": says("disabled"),
    "hw:usb_model": says("none"),
    "hw_rng:allowed": lambda value, flavor: boolean(value) is True,
    "hw_video:ram_max_mb": _always,  # The most that an image may ask for.
    "os:secure_boot": says("disabled"),
    **dict.fromkeys(
        (
            "hide_hypervisor_id",
            "hw:boot_menu",
            "hw:cpu_realtime",
            "hw:ephemeral_encryption",
            "hw:hide_hypervisor_id",
            "hw:locked_memory",
            "hw:mem_encryption",
            "hw:vif_multiqueue_enabled",
            "hw:virtio_packed_ring",
        ),
        no,
    ),
}
"""The known specs that every guest keeps, and with which values. Other known specs are not kept with any value."""


_HOST_STATE = """
aggregates cell_uuid cpu_allocation_ratio cpu_info disk_allocation_ratio disk_mb_used failed_builds free_disk_mb
free_ram_mb host host_ip hypervisor_hostname hypervisor_type hypervisor_version instances limits metrics nodename
num_instances num_io_ops numa_topology pci_stats ram_allocation_ratio service stats supported_instances
total_usable_disk_gb total_usable_ram_mb updated uuid vcpus_total vcpus_used
"""
"""Names without a namespace that Nova's ComputeCapabilitiesFilter takes for ``capabilities:`` of the same name: the
attributes of its `HostState`."""
UNCHECKED = frozenset({"hw:maxphysaddr_bits", "hw:maxphysaddr_mode", *_HOST_STATE.split()})
"""What upstream knows, although its API does not check the values. No guest keeps them."""


class Promises(msgspec.Struct, frozen=True, kw_only=True):
    """`resources`: all that a server claims of its host. `unkept`: the first spec that no host keeps."""

    resources: Mapping[str, int]
    required: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    aggregates: Mapping[str, str] = msgspec.field(default_factory=dict)
    unkept: str | None = None
    further_disks: bool = False
    """Ephemeral or swap disks beside the first one."""
    devices: Mapping[str, str] = msgspec.field(default_factory=dict)
    """By feature of a host: the property of an image that asks for it."""


FURTHER_DISKS = "further-disks"
"""The feature of hosts that make them."""


def of(flavor: Flavor) -> Promises:
    """What a flavor promises, its amounts included."""
    amounts = {
        placement.VCPU: flavor.vcpus,
        placement.MEMORY_MB: flavor.memory_mib,
        placement.DISK_GB: flavor.disk_gib + flavor.ephemeral_gib + -(-flavor.swap_mib // 1024),
    }
    if not flavor.extra_specs:
        return Promises(resources=amounts, further_disks=bool(flavor.ephemeral_gib or flavor.swap_mib))
    asked: dict[str, int] = defaultdict(int)
    traits: dict[str, set[str]] = {"required": set(), "forbidden": set()}
    zones: dict[str, str] = {}
    unkept: list[str] = []
    for name, value in sorted(flavor.extra_specs.items()):
        if resource := _RESOURCE.match(name):
            if _AMOUNT.match(value):
                asked[resource[2]] += int(value)
            else:
                unkept.append(name)
        elif trait := _TRAIT.match(name):
            traits.get(value, set()).add(trait[1])
        elif name.startswith(_AGGREGATE):
            zones[name.removeprefix(_AGGREGATE)] = value
        elif not is_kept(name, value, flavor):
            unkept.append(name)
    return Promises(
        resources=amounts | asked,
        required=frozenset(traits["required"]),
        forbidden=frozenset(traits["forbidden"]),
        aggregates=zones,
        unkept=unkept[0] if unkept else None,
        further_disks=bool(flavor.ephemeral_gib or flavor.swap_mib),
    )


def is_kept(name: str, value: str, flavor: Flavor) -> bool:
    """Whether every host keeps what an extra spec other than an amount, a trait or an aggregate's promises."""
    if name == "group_policy":
        groups = {found[1] for spec in flavor.extra_specs if (found := _RESOURCE.match(spec))} - {""}
        return value != "isolate" or len(groups) < 2
    if not extra_spec_rules.is_known(name) and name not in UNCHECKED:
        return True
    kept = KEPT.get(name)
    return kept is not None and kept(value, flavor)


def unfit_hosts(tx: Tx, promises: Promises, consumer: str) -> dict[str, Unfit]:
    """Hosts that lack something that is promised besides vCPUs, memory and disk. Of each, one thing that it lacks."""
    found: dict[str, Unfit] = {}
    of_all = (
        *(_room(tx, promises, consumer), _traits(tx, promises), _aggregates(tx, promises)),
        *(_disks(tx, promises), _devices(tx, promises)),
    )
    for host, unfit in itertools.chain(*of_all):
        found.setdefault(host, unfit)
    return found


def _room(tx: Tx, promises: Promises, consumer: str) -> Iterator[tuple[str, Unfit]]:
    common = (placement.VCPU, placement.MEMORY_MB, placement.DISK_GB)
    wanted = {name: amount for name, amount in promises.resources.items() if name not in common and amount}
    if not wanted:
        return
    used = (
        sa.select(sa.func.coalesce(sa.func.sum(allocations.c.used), 0))
        .where(
            allocations.c.provider_id == inventories.c.provider_id,
            allocations.c.resource_class == inventories.c.resource_class,
            allocations.c.consumer_uuid != consumer,
        )
        .scalar_subquery()
    )
    rows = tx.all(
        sa.select(resource_providers.c.name, inventories, used.label("used"))
        .outerjoin(
            inventories,
            (inventories.c.provider_id == resource_providers.c.id) & inventories.c.resource_class.in_(list(wanted)),
        )
        .order_by(resource_providers.c.id)
    )
    had: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        enough = had[row.name]
        if row.resource_class is not None and inventory_of(row).fits(wanted[row.resource_class], int(row.used)):
            enough.add(row.resource_class)
    for host, enough in had.items():
        for name in wanted:
            if name not in enough:
                yield host, Unfit(Reason.INSUFFICIENT_RESOURCES, name)


def require_kept_by(tx: Tx, promises: Promises, host: str, consumer: str) -> None:
    """BadRequest if the host that a server stays on lacks something that an image asks for."""
    lacks = unfit_hosts(tx, promises, consumer).get(host)
    if lacks is not None and lacks.reason is Reason.IMAGE_PROPERTY_NOT_KEPT:
        raise BadRequest(f"The image's property {lacks.detail} asks for what the server's host does not offer.")
    if lacks is not None:
        raise BadRequest(f"The image requires the trait {lacks.detail}, which the server's host has not.")


_FACTS = sa.select(hosts.c.name, hosts.c.facts)
_TRAITS = sa.select(resource_providers.c.name, resource_providers.c.traits)


def _disks(tx: Tx, promises: Promises) -> Iterator[tuple[str, Unfit]]:
    if promises.further_disks:
        for row in tx.all(_FACTS, {}):
            if FURTHER_DISKS not in _features(row):
                yield row.name, Unfit(Reason.EXTRA_SPEC_NOT_KEPT, "ephemeral and swap disks")


def _devices(tx: Tx, promises: Promises) -> Iterator[tuple[str, Unfit]]:
    for row in tx.all(_FACTS, {}) if promises.devices else ():
        offered = _features(row)
        if missing := [name for feature, name in promises.devices.items() if feature not in offered]:
            yield row.name, Unfit(Reason.IMAGE_PROPERTY_NOT_KEPT, min(missing))


def _features(row: Row) -> Collection[str]:
    """Of `_FACTS`: what a host offers."""
    found: Collection[str] = (row.facts or {}).get("features", ())
    return found


def _traits(tx: Tx, promises: Promises) -> Iterator[tuple[str, Unfit]]:
    if not promises.required and not promises.forbidden:
        return
    # Devices are offered under the names of traits. Only who asks for one has the facts of all hosts read.
    of_devices = not (promises.required | promises.forbidden).isdisjoint(ALL_FEATURES)
    offered = {row.name: _features(row) for row in tx.all(_FACTS, {})} if of_devices else {}
    for row in tx.all(_TRAITS, {}):
        there = {*row.traits, *offered.get(row.name, ())}
        if missing := promises.required - there:
            yield row.name, Unfit(Reason.TRAIT_MISSING, min(missing))
        elif present := promises.forbidden & there:
            yield row.name, Unfit(Reason.TRAIT_FORBIDDEN, min(present))


def _aggregates(tx: Tx, promises: Promises) -> Iterator[tuple[str, Unfit]]:
    """As Nova's AggregateInstanceExtraSpecsFilter, for values that are equal: one of those that an aggregate lists."""
    if not promises.aggregates:
        return
    said: dict[str, dict[str, set[str]]] = {
        row.name: defaultdict(set) for row in tx.all(sa.select(resource_providers.c.name))
    }
    joined = sa.select(aggregate_hosts.c.host, aggregates.c.metadata).join(
        aggregates, aggregates.c.id == aggregate_hosts.c.aggregate_id
    )
    for row in tx.all(joined):
        for name, values in row.metadata.items():
            said.setdefault(row.host, defaultdict(set))[name] |= {one.strip() for one in values.split(",")}
    for host, metadata in said.items():
        for name, value in promises.aggregates.items():
            if value not in metadata.get(name, ()):
                yield host, Unfit(Reason.AGGREGATE_DIFFERENT, name)
