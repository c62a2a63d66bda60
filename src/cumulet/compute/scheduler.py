"""The choice of a host: pure functions from the hosts' views, with a coded reason for each host passed over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from cumulet.compute import guest_agent
from cumulet.host import reach, uneven_memory
from cumulet.host.wiring import TRUNKS
from cumulet.placement.allocations import DISK_GB, MEMORY_MB, VCPU
from cumulet.placement.providers import Inventory

APART = "hosts that `cumulet up --hosts` makes and hosts that have joined do not reach each other"


class Reason(StrEnum):
    """Why a host was not chosen. Administrators see these; tenants never do."""

    HOST_UNKNOWN = "HOST_UNKNOWN"
    SAME_HOST = "SAME_HOST"
    HOST_DOWN = "HOST_DOWN"
    HOST_RETURNING = "HOST_RETURNING"
    HOST_DISABLED = "HOST_DISABLED"
    NOT_THE_NAMED_HOST = "NOT_THE_NAMED_HOST"
    ZONE_DIFFERENT = "ZONE_DIFFERENT"
    INSUFFICIENT_VCPU = "INSUFFICIENT_VCPU"
    INSUFFICIENT_MEMORY = "INSUFFICIENT_MEMORY"
    INSUFFICIENT_DISK = "INSUFFICIENT_DISK"
    DRIVER_DIFFERENT = "DRIVER_DIFFERENT"
    HOSTS_APART = "HOSTS_APART"
    CPU_INCOMPATIBLE = "CPU_INCOMPATIBLE"
    MACHINE_TYPE_MISSING = "MACHINE_TYPE_MISSING"
    AFFINITY = "AFFINITY"
    ANTI_AFFINITY = "ANTI_AFFINITY"
    NETWORK_NOT_OFFERED = "NETWORK_NOT_OFFERED"
    QOS_NOT_KEPT = "QOS_NOT_KEPT"
    SUBPORTS_NOT_CARRIED = "SUBPORTS_NOT_CARRIED"
    GUEST_AGENT_NOT_OFFERED = "GUEST_AGENT_NOT_OFFERED"
    UNEVEN_MEMORY_NOT_OFFERED = "UNEVEN_MEMORY_NOT_OFFERED"
    TRIED_BEFORE = "TRIED_BEFORE"
    EXTRA_SPEC_NOT_KEPT = "EXTRA_SPEC_NOT_KEPT"
    IMAGE_PROPERTY_NOT_KEPT = "IMAGE_PROPERTY_NOT_KEPT"
    VNIC_TYPE_NOT_KEPT = "VNIC_TYPE_NOT_KEPT"
    INSUFFICIENT_RESOURCES = "INSUFFICIENT_RESOURCES"
    TRAIT_MISSING = "TRAIT_MISSING"
    TRAIT_FORBIDDEN = "TRAIT_FORBIDDEN"
    AGGREGATE_DIFFERENT = "AGGREGATE_DIFFERENT"


class Unfit(NamedTuple):
    """Why a host does not fit, and the name of what it lacks: a spec, a property, a resource class, a trait."""

    reason: Reason
    detail: str


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """A host as the scheduler sees it. Free amounts count overcommit: vcpus in cores, memory in MiB, disk in GiB."""

    name: str
    zone: str
    up: bool
    """It answers, and no administrator calls it down."""
    disabled: bool
    free_vcpus: float
    free_memory_mib: float
    free_disk_gib: float
    driver: str
    cpu_models: frozenset[str]
    machine_types: frozenset[str]
    features: frozenset[str] = frozenset()
    answers: bool = True
    returning: bool = False
    """It answers again, and has not yet removed the guests that it lost while it was down: they take its memory."""
    may_have_routers: bool = True
    """It counts only if the host offers networks."""
    address: str = ""
    inventories: Mapping[str, Inventory] = {}
    """By resource class: the inventory, which bounds what one server may have."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """A server to place. `named`: only this host is considered; every check applies to it all the same."""

    vcpus: int
    memory_mib: int
    disk_gib: int
    named: str | None = None
    zone: str | None = None
    not_on: frozenset[str] = frozenset()
    """Hosts that it must not be placed on, because it is there already."""
    affinity: frozenset[str] | None = None
    anti_affinity: frozenset[str] = frozenset()
    liked: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By host: of hosts that fit, those with a higher number are preferred; others have 0."""
    driver: str | None = None
    comes_from: str | None = None
    """The address of the host from which it comes."""
    cpu_model: str | None = None
    machine_type: str | None = None
    networks: bool = False
    qos: frozenset[str] = frozenset()
    """What a host must offer to keep the QoS policies of its ports."""
    trunks: bool = False
    """Whether its ports carry subports of trunks."""
    guest_agent: bool = False
    """Its guest has a channel to QEMU's guest agent, and moves with it."""
    uneven_memory: bool = False
    """As in `host.driver.Guest`: its guest was made with it, and moves with it."""
    tried: Mapping[str, str] = msgspec.field(default_factory=dict)
    """By host that has failed to boot it: the reason."""
    unkept: Unfit | None = None
    """What its flavor or its image promises and no host keeps."""
    unfit: Mapping[str, Unfit] = msgspec.field(default_factory=dict)
    """Hosts that lack something else that its flavor or its image promises."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """`host` None: no valid host; `rejected` has every host passed over with its first reason."""

    host: str | None
    rejected: dict[str, Reason]
    details: dict[str, str] = msgspec.field(default_factory=dict)
    """For some of these hosts, the name of what they lack."""


def reject(host: HostView, need: Need) -> Reason | None:
    """The first reason against `host`, or None. The most useful reasons for an administrator come first."""
    if host.name in need.not_on:
        return Reason.SAME_HOST
    if need.named is not None and host.name != need.named:
        return Reason.NOT_THE_NAMED_HOST
    if not host.up:
        return Reason.HOST_DOWN
    if host.returning:
        return Reason.HOST_RETURNING
    if host.disabled:
        return Reason.HOST_DISABLED
    if need.zone is not None and host.zone != need.zone:
        return Reason.ZONE_DIFFERENT
    if host.name in need.tried:
        return Reason.TRIED_BEFORE
    if need.unkept is not None:
        return need.unkept.reason
    if host.name in need.unfit:
        return need.unfit[host.name].reason
    return _reject_by_kind(host, need) or _reject_by_room(host, need) or _reject_by_group(host, need)


def _reject_by_kind(host: HostView, need: Need) -> Reason | None:
    if need.driver is not None and host.driver != need.driver:
        return Reason.DRIVER_DIFFERENT
    if need.comes_from is not None and reach.of(need.comes_from) is not reach.of(host.address):
        return Reason.HOSTS_APART
    if need.cpu_model is not None and need.cpu_model not in host.cpu_models:
        return Reason.CPU_INCOMPATIBLE
    if need.machine_type is not None and need.machine_type not in host.machine_types:
        return Reason.MACHINE_TYPE_MISSING
    if need.networks and "networks" not in host.features:
        return Reason.NETWORK_NOT_OFFERED
    if not need.qos <= host.features:
        return Reason.QOS_NOT_KEPT
    if need.trunks and TRUNKS not in host.features:
        return Reason.SUBPORTS_NOT_CARRIED
    if need.guest_agent and guest_agent.FEATURE not in host.features:
        return Reason.GUEST_AGENT_NOT_OFFERED
    if need.uneven_memory and uneven_memory.FEATURE not in host.features:
        return Reason.UNEVEN_MEMORY_NOT_OFFERED
    return None


def _reject_by_room(host: HostView, need: Need) -> Reason | None:
    if _lacks(host, VCPU, host.free_vcpus, need.vcpus):
        return Reason.INSUFFICIENT_VCPU
    if _lacks(host, MEMORY_MB, host.free_memory_mib, need.memory_mib):
        return Reason.INSUFFICIENT_MEMORY
    if _lacks(host, DISK_GB, host.free_disk_gib, need.disk_gib):
        return Reason.INSUFFICIENT_DISK
    return None


def _lacks(host: HostView, resource_class: str, free: float, amount: int) -> bool:
    """Whether the claim would find too little of it (`placement.allocations.claim`)."""
    if amount == 0:
        return False
    inventory = host.inventories.get(resource_class)
    return free < amount or (inventory is not None and not inventory.allows(amount))


def _reject_by_group(host: HostView, need: Need) -> Reason | None:
    if need.affinity is not None and host.name not in need.affinity:
        return Reason.AFFINITY
    if host.name in need.anti_affinity:
        return Reason.ANTI_AFFINITY
    return None


def pick(hosts: Iterable[HostView], need: Need) -> Choice:
    """Filter, then weigh: liked most, most free memory, most free cores, then by name (to be repeatable)."""
    rejected: dict[str, Reason] = {}
    fit: list[HostView] = []
    for host in hosts:
        reason = reject(host, need)
        if reason is not None:
            rejected[host.name] = reason
        else:
            fit.append(host)
    best = min(
        fit,
        key=lambda host: (-need.liked.get(host.name, 0), -host.free_memory_mib, -host.free_vcpus, host.name),
        default=None,
    )
    if best is None and need.named is not None and need.named not in rejected:
        rejected[need.named] = Reason.HOST_UNKNOWN
    details = {name: detail for name, reason in rejected.items() if (detail := _detail(name, need, reason))}
    return Choice(host=best.name if best is not None else None, rejected=rejected, details=details)


def _detail(name: str, need: Need, reason: Reason) -> str | None:
    if reason is Reason.TRIED_BEFORE:
        return need.tried[name]
    if need.unkept is not None and reason is need.unkept.reason:
        return need.unkept.detail
    if reason is Reason.HOSTS_APART:
        return APART
    unfit = need.unfit.get(name)
    return unfit.detail if unfit is not None and unfit.reason is reason else None


def explain(choice: Choice) -> str:
    """``host1: HOST_DISABLED; host2: TRAIT_MISSING (CUSTOM_FAST)``: for administrators, records and logs."""
    words = [
        f"{name}: {reason}" + (f" ({choice.details[name]})" if name in choice.details else "")
        for name, reason in choice.rejected.items()
    ]
    return "; ".join(sorted(words)) or "there are no hosts"
