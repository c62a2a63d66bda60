"""The story of `tests/api/test_live_migration.py` on the other driver: two real guests, one of them moved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import cumulet.testing
from cumulet.cli.doctor import doctor
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import GuestState, Image
from cumulet.host.machine import capacity, part
from tests.api.servers import create_pair, host_of, last_migration, leftovers, other
from tests.drivers.test_config_drive import read_back

pytestmark = pytest.mark.qemu


def test_live_migrate_one_multi_created_instance(facts: QemuFacts, image: Image) -> None:
    with cumulet.testing.cloud(hosts=2, driver="qemu") as cloud:
        admin, member, reader = (cloud.persona(name) for name in ("admin", "member", "reader"))
        moved, stays = create_pair(member, networks="none")
        source, bystander = host_of(admin, moved), host_of(admin, stays)
        for server_id, host in ((moved, source), (stays, bystander)):
            guest = cloud.embedded.settings.state_dir / "hosts" / host / "qemu" / "guests" / server_id
            drive = read_back((guest / "vm" / "config.iso").read_bytes(), joliet=True)
            told = json.loads(drive["openstack/latest/meta_data.json"])
            assert (told["uuid"], told["name"]) == (server_id, member.server(server_id)["name"])
            assert told["admin_pass"]
        post = {"os-migrateLive": {"block_migration": "auto", "host": other(source)}}

        assert reader.action(moved, post).status == 403
        assert member.action(moved, post).status == 403
        assert host_of(admin, moved) == source

        assert admin.action(moved, post).status == 202
        admin.wait("the move", lambda: last_migration(admin, moved)["status"] == "completed", seconds=120)
        assert host_of(admin, moved) == other(source)
        assert host_of(admin, stays) == bystander
        assert leftovers(cloud, admin, moved)["guests"] == {other(source): GuestState.RUNNING}
        assert leftovers(cloud, admin, moved)["allocated"] == [other(source)]


def test_placement_and_doctor_count_this_machine_once(facts: QemuFacts) -> None:
    said = CliRunner().invoke(doctor).output
    with cumulet.testing.cloud(hosts=2, driver="qemu") as cloud:
        admin = cloud.persona("admin")
        providers = admin.request("GET", "/placement/resource_providers")["resource_providers"]
        offered = []
        for provider in providers:
            path = f"/placement/resource_providers/{provider['uuid']}/inventories"
            inventories = admin.request("GET", path)["inventories"]
            offered.append({name: one["total"] for name, one in inventories.items()})
    each = part(capacity(Path("/tmp")), 2)
    assert [one["MEMORY_MB"] for one in offered] == [each.memory_mib, each.memory_mib]
    assert [one["VCPU"] for one in offered] == [each.vcpus, each.vcpus]
    assert f"each of 2 hosts offers {each.vcpus}, {each.memory_mib} MiB, " in said
