"""Extra specs that promise something are kept, or the boot ends with the reason; unknown ones mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.compute import extra_spec_rules, promises
from cumulet.compute.model import Flavor
from cumulet.testing import Client, JsonObject

from .servers import AUTO, host_of
from .test_compute_servers import ask_for
from .test_placement import VERSION
from .test_places import reasons
from .test_resize import held

REFUSED = {
    "hw:cpu_policy": ("dedicated", "mixed"),
    "hw:numa_nodes": ("1", "2"),
    "hw:mem_page_size": ("large", "2MB", "1048576"),
    "hw:cpu_threads": ("2",),
    "hw:cpu_sockets": ("2",),
    "hw:cpu_max_cores": ("1",),
    "hw:mem_encryption": ("true",),
    "hw:tpm_version": ("2.0",),
    "hw:watchdog_action": ("reset",),
    "hw:maxphysaddr_mode": ("emulate",),
    "hw_rng:allowed": ("false",),
    "hw_rng:rate_bytes": ("10",),
    "os:secure_boot": ("required",),
    "pci_passthrough:alias": ("gpu:1",),
    "accel:device_profile": ("fpga",),
    "quota:cpu_shares": ("512",),
    "quota:vif_inbound_average": ("10",),
    "capabilities:hypervisor_type": ("QEMU",),
    "hypervisor_type": ("xen",),
    "free_ram_mb": (">= 999999999",),
    "vcpus_total": (">= 9999",),
    "resources:VGPU": ("many",),
}
KEPT = {
    "hw:cpu_policy": "shared",
    "hw:cpu_cores": "2",
    "hw:cpu_sockets": "1",
    "hw:mem_page_size": "small",
    "hw:serial_port_count": "1",
    "hw_rng:allowed": "True",
    "hw:boot_menu": "false",
    "hw:cpu_max_cores": "4",
    "os:secure_boot": "disabled",
    "colour": "blue",
    "ours:colour": "blue",
    "hw:colour": "blue",
    "group_policy": "isolate",
}


def described(**specs: str) -> Flavor:
    return Flavor(
        flavor_id="f", name="f", vcpus=2, memory_mib=256, disk_gib=1, ephemeral_gib=1, swap_mib=1, rxtx_factor=1.0,
        is_public=True, disabled=False, description=None, extra_specs=specs,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_is_not_kept_is_named(name: str, value: str) -> None:
    assert promises.of(described(**{name: value})).unkept == name


@pytest.mark.parametrize("name", KEPT)
def test_what_every_guest_is_anyway_is_kept_and_what_nobody_knows_means_nothing(name: str) -> None:
    assert promises.of(described(**{name: KEPT[name]})).unkept is None


@pytest.mark.parametrize("name", [name.replace("*", "x") for name in extra_spec_rules._RULES])
def test_every_spec_that_upstream_knows_is_decided_about(name: str) -> None:
    """A known name is kept for some value, met by a host's aggregate, or never kept: it is not passed over."""
    promised = promises.of(described(**{name: "no such value"}))
    passed_over = promised.unkept is None and not promised.aggregates
    assert not passed_over or name in ("group_policy", "hw_video:ram_max_mb")


def test_amounts_are_overridden_and_groups_are_one_providers() -> None:
    flavor = described(
        **{"resources:VCPU": "0", "resources1:CUSTOM_A": "2", "resources2:CUSTOM_A": "3", "trait1:CUSTOM_T": "required"}
    )
    promised = promises.of(flavor)
    assert promised.resources == {"VCPU": 0, "MEMORY_MB": 256, "DISK_GB": 3, "CUSTOM_A": 5}
    assert promised.required == {"CUSTOM_T"}
    isolated = described(**flavor.extra_specs, group_policy="isolate")
    assert promises.of(isolated).unkept == "group_policy"


# -- as stories


@pytest.fixture
def promising(admin: Client) -> Any:
    """Make a flavor with these specs, as one could before values were checked."""

    def make(**specs: str) -> str:
        wanted = {"flavor": {"name": "promising", "id": "promising", "vcpus": 1, "ram": 256, "disk": 1}}
        assert admin.compute("POST", "/flavors", wanted).status == 200
        answer = admin.compute("POST", "/flavors/promising/os-extra_specs", {"extra_specs": specs}, version="2.85")
        assert answer.status == 200, answer.text
        return "promising"

    return make


def provider(admin: Client, host: str) -> JsonObject:
    found = admin.request("GET", f"/placement/resource_providers?name={host}")["resource_providers"]
    one: dict[str, object] = found[0]
    return one


def give_trait(admin: Client, host: str, *traits: str) -> None:
    for trait in traits:
        assert admin.request("PUT", f"/placement/traits/{trait}", headers=VERSION).status in (201, 204)
    one = provider(admin, host)
    body = {"resource_provider_generation": one["generation"], "traits": list(traits)}
    assert (
        admin.request("PUT", f"/placement/resource_providers/{one['uuid']}/traits", body, headers=VERSION).status == 200
    )


@pytest.mark.parametrize(
    ("name", "value"), [("hw:cpu_policy", "dedicated"), ("hw:numa_nodes", "2"), ("hw:mem_page_size", "large")]
)
def test_a_server_of_a_flavor_that_is_not_kept_is_not_active(
    admin: Client, promising: Any, name: str, value: str
) -> None:
    server = ask_for(admin, flavorRef=promising(**{name: value}))["server"]["id"]
    details = admin.wait_for_status(server, "ERROR")["fault"]["details"]
    assert details == f"NO_VALID_HOST: host1: EXTRA_SPEC_NOT_KEPT ({name}); host2: EXTRA_SPEC_NOT_KEPT ({name})"


def test_nor_does_a_server_become_one_by_resize(admin: Client, promising: Any) -> None:
    server = ask_for(admin)["server"]["id"]
    admin.wait_for_status(server, "ACTIVE")
    flavor = promising(**{"hw:cpu_policy": "dedicated"})
    assert admin.action(server, {"resize": {"flavorRef": flavor}}).status == 202
    assert "EXTRA_SPEC_NOT_KEPT (hw:cpu_policy)" in reasons(admin, server, "resize")
    assert admin.server(server)["status"] == "ACTIVE"


def test_traits_choose_the_host_in_boots_and_moves(admin: Client, promising: Any) -> None:
    flavor = promising(**{"trait:CUSTOM_FAST": "required", "trait:CUSTOM_OLD": "forbidden"})
    server = ask_for(admin, flavorRef=flavor)["server"]["id"]
    details = admin.wait_for_status(server, "ERROR")["fault"]["details"]
    assert details == "NO_VALID_HOST: host1: TRAIT_MISSING (CUSTOM_FAST); host2: TRAIT_MISSING (CUSTOM_FAST)"
    give_trait(admin, "host1", "CUSTOM_FAST", "CUSTOM_OLD")
    give_trait(admin, "host2", "CUSTOM_FAST")
    server = ask_for(admin, flavorRef=flavor)["server"]["id"]
    admin.wait_for_status(server, "ACTIVE")
    assert host_of(admin, server) == "host2"
    assert admin.action(server, {"os-migrateLive": {"host": "host1", **AUTO}}).status == 202
    assert "host1: TRAIT_FORBIDDEN (CUSTOM_OLD)" in reasons(admin, server, "live-migration")


def test_custom_resources_are_claimed(admin: Client, promising: Any) -> None:
    flavor = promising(**{"resources:CUSTOM_LICENCE": "2", "resources:DISK_GB": "0"})
    server = ask_for(admin, flavorRef=flavor)["server"]["id"]
    assert (
        "host1: INSUFFICIENT_RESOURCES (CUSTOM_LICENCE)" in admin.wait_for_status(server, "ERROR")["fault"]["details"]
    )
    assert admin.request("PUT", "/placement/resource_classes/CUSTOM_LICENCE", headers=VERSION).status in (201, 204)
    one = provider(admin, "host2")
    body = {"resource_class": "CUSTOM_LICENCE", "total": 3}
    path = f"/placement/resource_providers/{one['uuid']}/inventories"
    assert admin.request("POST", path, body, headers=VERSION).status == 201
    server = ask_for(admin, flavorRef=flavor)["server"]["id"]
    admin.wait_for_status(server, "ACTIVE")
    assert held(admin, server) == {"host2": {"VCPU": 1, "MEMORY_MB": 256, "CUSTOM_LICENCE": 2}}
    second = ask_for(admin, flavorRef=flavor)["server"]["id"]
    assert "host2: INSUFFICIENT_RESOURCES" in admin.wait_for_status(second, "ERROR")["fault"]["details"]


def test_aggregates_choose_the_host(admin: Client, promising: Any) -> None:
    made = admin.compute("POST", "/os-aggregates", {"aggregate": {"name": "fast", "availability_zone": None}})
    number = made["aggregate"]["id"]
    for action in ({"add_host": {"host": "host2"}}, {"set_metadata": {"metadata": {"disk": "ssd,nvme"}}}):
        assert admin.compute("POST", f"/os-aggregates/{number}/action", action).status == 200
    server = ask_for(admin, flavorRef=promising(**{"aggregate_instance_extra_specs:disk": "ssd"}))["server"]["id"]
    admin.wait_for_status(server, "ACTIVE")
    assert host_of(admin, server) == "host2"
    assert admin.action(server, {"migrate": None}).status == 202
    assert "host1: AGGREGATE_DIFFERENT (disk)" in reasons(admin, server, "migrate")
