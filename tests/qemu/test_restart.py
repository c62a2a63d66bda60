"""A cloud that is stopped and started again: its real guests went on, or run again."""

from __future__ import annotations

from pathlib import Path

import pytest

import cumulet.testing
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import GuestState, Image
from tests.api.test_compute_servers import create
from tests.api.test_resume_on_boot import actions, host_of

pytestmark = pytest.mark.qemu


def process_of(state: Path, host: str, server_id: str) -> bytes:
    return (state / "hosts" / host / "qemu" / "guests" / server_id / "process.json").read_bytes()


def test_guests_go_on_over_an_upgrade_or_run_again_after_a_stop(facts: QemuFacts, image: Image, tmp_path: Path) -> None:
    with cumulet.testing.cloud(hosts=1, driver="qemu", state=tmp_path, leave_guests=True) as cloud:
        server = create(cloud.persona("admin"))["id"]
        host = host_of(cloud, server)
        first = process_of(tmp_path, host, server)
    with cumulet.testing.cloud(hosts=1, driver="qemu", state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        assert admin.server(server)["status"] == "ACTIVE"
        assert cloud.guests(host) == {server: GuestState.RUNNING}
        assert process_of(tmp_path, host, server) == first, "the same process all along"
        assert set(actions(admin, server)) == {"create"}
    with cumulet.testing.cloud(hosts=1, driver="qemu", state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        admin.wait_for_status(server, "ACTIVE", seconds=60)
        assert cloud.guests(host) == {server: GuestState.RUNNING}
        assert process_of(tmp_path, host, server) != first
        assert set(actions(admin, server)) == {"create", "start"}
        assert admin.compute("GET", "/cumulet/findings")["findings"] == []
        admin.compute("DELETE", f"/servers/{server}")
        cloud.idle()
