"""Each coded reason against a host by itself: the host differs in one thing from a host that is suitable."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from cumulet.compute.scheduler import APART, HostView, Need, Reason, Unfit, explain, pick
from cumulet.placement.allocations import DISK_GB, MEMORY_MB, VCPU
from cumulet.placement.providers import Inventory
from cumulet.testing import JsonObject

HOST = HostView(
    name="host1", zone="nova", up=True, disabled=False, free_vcpus=4.0, free_memory_mib=4096.0, free_disk_gib=40.0,
    driver="qemu", cpu_models=frozenset({"EPYC"}), machine_types=frozenset({"q35"}), features=frozenset({"networks"}),
    address="192.0.2.1",
)  # fmt: skip
NEED = Need(
    vcpus=4, memory_mib=4096, disk_gib=40, named="host1", zone="nova", not_on=frozenset({"host9"}), driver="qemu",
    affinity=frozenset({"host1"}), anti_affinity=frozenset({"host9"}), cpu_model="EPYC", machine_type="q35",
    networks=True, tried={"host9": "it failed"}, unfit={"host9": Unfit(Reason.TRAIT_MISSING, "CUSTOM_X")},
    comes_from="192.0.2.9",
)  # fmt: skip
"""All that can be asked for, and just what the host has."""


def units(resource_class: str, **rules: int) -> JsonObject:
    inventory = {"total": 10_000, "reserved": 0, "min_unit": 1, "max_unit": 10_000, "step_size": 1, **rules}
    return {"inventories": {resource_class: Inventory(**inventory, allocation_ratio=1.0)}}


CASES: list[tuple[Reason, Mapping[str, object], Mapping[str, object], str]] = [
    (Reason.SAME_HOST, {}, {"not_on": frozenset({"host1"})}, ""),
    (Reason.NOT_THE_NAMED_HOST, {"name": "host2"}, {"affinity": frozenset({"host2"})}, ""),
    (Reason.HOST_DOWN, {"up": False}, {}, ""),
    (Reason.HOST_RETURNING, {"returning": True}, {}, ""),
    (Reason.HOST_DISABLED, {"disabled": True}, {}, ""),
    (Reason.ZONE_DIFFERENT, {"zone": "west"}, {}, ""),
    (Reason.TRIED_BEFORE, {}, {"tried": {"host1": "no disk"}}, "no disk"),
    *(
        (reason, {}, {"unkept": Unfit(reason, "the thing")}, "the thing")
        for reason in (Reason.EXTRA_SPEC_NOT_KEPT, Reason.IMAGE_PROPERTY_NOT_KEPT, Reason.VNIC_TYPE_NOT_KEPT)
    ),
    *(
        (reason, {}, {"unfit": {"host1": Unfit(reason, "the thing")}}, "the thing")
        for reason in (
            Reason.INSUFFICIENT_RESOURCES,
            Reason.TRAIT_MISSING,
            Reason.TRAIT_FORBIDDEN,
            Reason.AGGREGATE_DIFFERENT,
        )
    ),
    (Reason.DRIVER_DIFFERENT, {"driver": "simulated"}, {}, ""),
    (Reason.HOSTS_APART, {"address": "198.18.0.2"}, {}, APART),
    (Reason.HOSTS_APART, {"address": "127.0.0.1"}, {}, APART),
    (Reason.HOSTS_APART, {}, {"comes_from": "198.18.0.1"}, APART),
    (Reason.CPU_INCOMPATIBLE, {"cpu_models": frozenset({"Skylake"})}, {}, ""),
    (Reason.MACHINE_TYPE_MISSING, {"machine_types": frozenset({"pc"})}, {}, ""),
    (Reason.NETWORK_NOT_OFFERED, {"features": frozenset({"post-copy"})}, {}, ""),
    (Reason.SUBPORTS_NOT_CARRIED, {}, {"trunks": True}, ""),
    (Reason.QOS_NOT_KEPT, {}, {"qos": frozenset({"dscp-marks"})}, ""),
    (Reason.GUEST_AGENT_NOT_OFFERED, {}, {"guest_agent": True}, ""),
    (Reason.UNEVEN_MEMORY_NOT_OFFERED, {}, {"uneven_memory": True}, ""),
    (Reason.INSUFFICIENT_VCPU, {"free_vcpus": 3.5}, {}, ""),
    (Reason.INSUFFICIENT_VCPU, units(VCPU, max_unit=3), {}, ""),
    (Reason.INSUFFICIENT_MEMORY, {"free_memory_mib": 4095.0}, {}, ""),
    (Reason.INSUFFICIENT_MEMORY, units(MEMORY_MB, step_size=1000), {}, ""),
    (Reason.INSUFFICIENT_DISK, {"free_disk_gib": 39.0}, {}, ""),
    (Reason.INSUFFICIENT_DISK, units(DISK_GB, min_unit=41), {}, ""),
    (Reason.AFFINITY, {}, {"affinity": frozenset({"host2"})}, ""),
    (Reason.ANTI_AFFINITY, {}, {"anti_affinity": frozenset({"host1"})}, ""),
]


def test_a_host_that_has_all_that_is_asked_for_is_taken() -> None:
    assert pick([HOST], NEED).host == "host1"


@pytest.mark.parametrize(("reason", "host", "need", "detail"), CASES)
def test_one_thing_that_is_wrong_is_the_reason(
    reason: Reason, host: Mapping[str, object], need: Mapping[str, object], detail: str
) -> None:
    view = msgspec.structs.replace(HOST, **host)
    choice = pick([view], msgspec.structs.replace(NEED, **need))
    assert (choice.host, choice.rejected.get(view.name)) == (None, reason)
    assert f"{view.name}: {reason}" + (f" ({detail})" if detail else "") in explain(choice)


def test_what_is_not_asked_for_is_not_lacking() -> None:
    """A host is suitable even if less than nothing is left there of what is not asked for."""
    full = msgspec.structs.replace(HOST, free_vcpus=-1.0, free_memory_mib=-1.0, free_disk_gib=-1.0, **units(VCPU))
    assert pick([full], msgspec.structs.replace(NEED, vcpus=0, memory_mib=0, disk_gib=0)).host == "host1"
    for asked in ({"vcpus": 1}, {"memory_mib": 1}, {"disk_gib": 1}):
        need = msgspec.structs.replace(NEED, **{"vcpus": 0, "memory_mib": 0, "disk_gib": 0, **asked})
        assert pick([full], need).host is None


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("198.18.0.1", "198.18.3.7"),
        ("127.0.0.1", "127.0.0.1"),
        ("192.0.2.1", "2001:db8::1"),
        ("192.0.2.1", "rack1.example"),
    ],
)
def test_hosts_of_one_machine_reach_each_other_and_so_do_those_of_a_network(source: str, destination: str) -> None:
    view, need = msgspec.structs.replace(HOST, address=destination), msgspec.structs.replace(NEED, comes_from=source)
    assert pick([view], need).host == "host1"


def test_a_named_host_that_is_not_there_is_unknown() -> None:
    choice = pick([], NEED)
    assert (choice.host, choice.rejected) == (None, {"host1": Reason.HOST_UNKNOWN})


def test_every_reason_is_given_by_a_case() -> None:
    assert {reason for reason, *_ in CASES} | {Reason.HOST_UNKNOWN} == set(Reason)


def test_the_host_liked_most_is_taken_then_the_one_with_most_room() -> None:
    """Memory before cores before names."""

    def host(name: str, memory: float, vcpus: float) -> HostView:
        return msgspec.structs.replace(HOST, name=name, free_memory_mib=memory, free_vcpus=vcpus)

    hosts = [host("b", 4096, 4), host("c", 4096, 5), host("a", 4096, 4), host("d", 5000, 4), host("liked", 4096, 4)]
    need = msgspec.structs.replace(NEED, named=None, affinity=None, liked={"liked": 1, "d": -1})
    chosen = []
    while (choice := pick(hosts, need)).host is not None:
        chosen.append(choice.host)
        hosts = [view for view in hosts if view.name != choice.host]
    assert chosen == ["liked", "c", "a", "b", "d"]
