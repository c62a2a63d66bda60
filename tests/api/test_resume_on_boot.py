"""What ran when the cloud or its machine was stopped runs again when it is back, or its record says so."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import cumulet.testing
from cumulet.compute.host_watch import HostWatch
from cumulet.compute.resume_on_boot import ResumeOnBoot
from cumulet.compute.store import get_server
from cumulet.host.driver import GuestReport, GuestState
from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.test_compute_servers import create


def host_of(cloud: TestCloud, server_id: str) -> str:
    host: str = cloud.persona("admin").server(server_id)["OS-EXT-SRV-ATTR:host"]
    return host


def power_cut(cloud: TestCloud, server_id: str) -> None:
    """The server's guest does not run, and the records do not say so: as after `cumulet up` was stopped."""
    assert cloud.embedded.world is not None
    cloud.await_(cloud.embedded.world.drivers[host_of(cloud, server_id)].stop(server_id, grace_seconds=0))


def nobody_looks(cloud: TestCloud) -> None:
    """Nobody looks from now until the cloud ends. A slow end would leave time to record that a guest does not run."""
    cloud.await_(cloud.embedded.conductor.reconciler(HostWatch).stop())


def actions(client: Client, server_id: str) -> JsonObject:
    listed = client.compute("GET", f"/servers/{server_id}/os-instance-actions")["instanceActions"]
    found = {}
    for one in listed:
        path = f"/servers/{server_id}/os-instance-actions/{one['request_id']}"
        found[one["action"]] = client.compute("GET", path)["instanceAction"]
    return found


@pytest.mark.parametrize("resume", [True, False])
def test_servers_that_ran_run_again_or_are_shut_off_and_their_actions_say_so(tmp_path: Path, resume: bool) -> None:
    with cumulet.testing.cloud(hosts=2, state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        ran, off, paused = create(admin), create(admin), create(admin)
        admin.action(off["id"], {"os-stop": None})
        admin.action(paused["id"], {"pause": None})
        admin.wait_for_status(off["id"], "SHUTOFF")
        admin.wait_for_status(paused["id"], "PAUSED")
        nobody_looks(cloud)
        power_cut(cloud, ran["id"])
    with cumulet.testing.cloud(hosts=2, state=tmp_path, resume_guests_state_on_host_boot=resume) as cloud:
        admin = cloud.persona("admin")
        admin.wait_for_status(ran["id"], "ACTIVE" if resume else "SHUTOFF")
        assert admin.server(off["id"])["status"] == "SHUTOFF"
        assert admin.server(paused["id"])["status"] == "PAUSED"
        seen = cloud.guests(host_of(cloud, ran["id"]))[ran["id"]]
        assert seen is (GuestState.RUNNING if resume else GuestState.STOPPED)
        action = actions(admin, ran["id"])["start" if resume else "stop"]
        assert action["user_id"] is None
        [event] = action["events"]
        assert event["result"] == "Success"
        assert event["event"] == f"compute_{'start' if resume else 'stop'}_instance"
        assert set(actions(admin, off["id"])) == {"create", "stop"}
        assert admin.compute("GET", "/cumulet/findings")["findings"] == [], "a stop alone is no finding"


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(("action", "status"), [("rescue", "RESCUE"), ("migrate", "VERIFY_RESIZE")])
def test_what_waits_for_its_user_s_word_runs_again_or_not_and_waits_on(
    tmp_path: Path, action: str, status: str, resume: bool
) -> None:
    with cumulet.testing.cloud(hosts=2, state=tmp_path) as cloud:
        admin = cloud.persona("admin")
        server_id = create(admin)["id"]
        assert admin.action(server_id, {action: None}).status in (200, 202)
        admin.wait_for_status(server_id, status)
        nobody_looks(cloud)
        power_cut(cloud, server_id)
    with cumulet.testing.cloud(hosts=2, state=tmp_path, resume_guests_state_on_host_boot=resume) as cloud:
        admin = cloud.persona("admin")
        admin.wait("its action", lambda: ("start" if resume else "stop") in actions(admin, server_id))
        cloud.idle()
        server = admin.server(server_id)
        assert (server["status"], server["OS-EXT-STS:power_state"]) == (status, 1 if resume else 4)
        seen = cloud.guests(host_of(cloud, server_id))[server_id]
        assert seen is (GuestState.RUNNING if resume else GuestState.STOPPED)
        word = {"rescue": "unrescue", "migrate": "confirmResize"}[action]
        assert admin.action(server_id, {word: None}).status in (202, 204)
        admin.wait_for_status(server_id, "ACTIVE" if resume or action == "rescue" else "SHUTOFF")


def test_what_has_changed_since_its_host_was_asked_is_left_alone(cloud: TestCloud, admin: Client) -> None:
    """The host's answer may be older: the server may have been started meanwhile."""
    server_id = create(admin)["id"]
    embedded, host = cloud.embedded, host_of(cloud, server_id)
    boot = ResumeOnBoot(
        clock=cloud.clock,
        settings=msgspec.structs.replace(embedded.settings, resume_guests_state_on_host_boot=False),
        wake=embedded.runner,
    )
    revision = embedded.db.read(lambda tx: get_server(tx, server_id).revision)
    says = [GuestReport(server_id=server_id, generation=1, state=GuestState.STOPPED)]
    for known, status in ((revision - 1, "ACTIVE"), (revision, "SHUTOFF")):
        before = {server_id: known}
        embedded.db.write(lambda tx, before=before: boot.settle(tx, host, says, before=before))  # type: ignore[misc]
        assert admin.server(server_id)["status"] == status


def test_a_guest_that_ends_by_itself_is_not_started_again(cloud: TestCloud, admin: Client) -> None:
    server = create(admin)
    power_cut(cloud, server["id"])
    cloud.reconcile()
    cloud.reconcile()
    assert admin.server(server["id"])["status"] == "SHUTOFF"
    assert "start" not in actions(admin, server["id"])
