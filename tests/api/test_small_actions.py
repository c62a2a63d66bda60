"""What a server is asked for now and then: its administrator's password, a deleted one back, the log of audits."""

from __future__ import annotations

import pytest

from cumulet.testing import Client, TestCloud

from .servers import create_pair, host_of


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member)[0]


def test_a_password_is_not_changed_where_no_agent_is(member: Client, server: str) -> None:
    before = member.server(server)
    answer = member.action(server, {"changePassword": {"adminPass": "secret"}})
    assert (answer.status, answer["conflictingRequest"]["message"]) == (409, "QEMU guest agent is not enabled")
    assert member.server(server) == before
    assert member.action(server, {"os-stop": None}).status == 202
    member.wait_for_status(server, "SHUTOFF")
    answer = member.action(server, {"changePassword": {"adminPass": "secret"}})
    assert (answer.status, "while it is in vm_state stopped" in answer.text) == (409, True)


def test_nothing_is_restored_and_network_info_is_in_force(admin: Client, member: Client, server: str) -> None:
    answer = member.action(server, {"restore": None})
    assert (answer.status, "Cannot 'restore' instance" in answer.text) == (409, True)
    assert admin.action(server, {"injectNetworkInfo": None}).status == 202
    assert member.action(server, {"injectNetworkInfo": None}).status == 403


def test_no_host_has_run_an_audit(cloud: TestCloud, admin: Client) -> None:
    log = admin.compute("GET", "/os-instance_usage_audit_log")["instance_usage_audit_logs"]
    assert (log["hosts_not_run"], log["num_hosts"], log["log"]) == (sorted(cloud.hosts), len(cloud.hosts), {})
    shown = admin.compute("GET", "/os-instance_usage_audit_log/2026-01-31 10:20:30.5")["instance_usage_audit_log"]
    assert (shown["period_beginning"], shown["period_ending"]) == ("2025-12-01 00:00:00", "2026-01-01 00:00:00")
    march = admin.compute("GET", "/os-instance_usage_audit_log/2026-03-31 10:20:30")["instance_usage_audit_log"]
    assert march["period_beginning"] == "2026-02-01 00:00:00"
    for text in ("yesterday", "2026-02-30 00:00:00", "2026-01-01T00:00:00", "0000-01-01 00:00:00"):
        answer = admin.compute("GET", f"/os-instance_usage_audit_log/{text}")
        assert answer.status == 400, text
        assert "Invalid timestamp for date" in answer.text


def test_a_guest_is_sent_an_interrupt(cloud: TestCloud, admin: Client, member: Client, server: str) -> None:
    assert cloud.embedded.world is not None
    driver = cloud.embedded.world.drivers[host_of(admin, server)]
    assert member.action(server, {"trigger_crash_dump": None}, version="2.17").status == 202
    member.wait("the interrupt", lambda: driver._guests[server].nmis == 1)
    assert member.action(server, {"trigger_crash_dump": {}}).status == 400
    assert member.action(server, {"trigger_crash_dump": None}, version="2.16").status == 404
    member.wait("it to be over", lambda: _last_action(member, server)["finish"])
    assert member.action(server, {"os-stop": None}).status == 202
    member.wait_for_status(server, "SHUTOFF")
    answer = member.action(server, {"trigger_crash_dump": None})
    assert (answer.status, "while it is in vm_state stopped" in answer.text) == (409, True)


def _last_action(client: Client, server: str) -> dict[str, object]:
    actions = client.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"]
    path = f"/servers/{server}/os-instance-actions/{actions[0]['request_id']}"
    events = client.compute("GET", path)["instanceAction"]["events"]
    return {"finish": all(event["finish_time"] for event in events)}
