"""The events of instance actions have the names, the order and the results of Nova 34's: tools wait for them."""

from __future__ import annotations

import pytest

from cumulet.compute import operations
from cumulet.compute.model import RESCUE_IMAGE
from cumulet.compute.store import get_server
from cumulet.db.engine import Tx
from cumulet.testing import Client, TestCloud
from tests.links import instead

from .servers import create_pair, host_of, last_migration, other
from .test_create_image import made
from .test_ends_of_moves import TakesNobody
from .test_evacuation import force_down


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member)[0]


Events = list[tuple[str, str]]
COLD = ["conductor_migrate_server", "cold_migrate", "compute_prep_resize", "compute_resize_instance"]
LIVE = ["conductor_live_migrate_instance", "compute_check_can_live_migrate_destination"]
LIVE += ["compute_check_can_live_migrate_source", "compute_live_migration", "compute_pre_live_migration"]


def succeeded(names: list[str]) -> Events:
    return [(name, "Success") for name in names]


def newest(admin: Client, server: str) -> tuple[str, Events]:
    """The newest action, and its events from the first to the last."""
    path = f"/servers/{server}/os-instance-actions"
    action = admin.compute("GET", path)["instanceActions"][0]
    events = admin.compute("GET", f"{path}/{action['request_id']}")["instanceAction"]["events"]
    return action["action"], [(event["event"], event["result"]) for event in reversed(events)]


def acted(client: Client, server: str, body: dict[str, object], status: str) -> None:
    assert client.action(server, body).status in (200, 202, 204)
    client.wait("its end", lambda: client.server(server)["OS-EXT-STS:task_state"] is None)
    client.wait_for_status(server, status)


def test_resize_and_its_outcomes(admin: Client, member: Client, server: str) -> None:
    for outcome in ("revertResize", "confirmResize"):
        acted(member, server, {"resize": {"flavorRef": _larger(member)}}, "VERIFY_RESIZE")
        assert newest(admin, server) == ("resize", succeeded([*COLD, "compute_finish_resize"]))
        acted(member, server, {outcome: None}, "ACTIVE")
        names = {
            "revertResize": ["compute_revert_resize", "compute_finish_revert_resize"],
            "confirmResize": ["compute_confirm_resize"],
        }[outcome]
        assert newest(admin, server) == (outcome, succeeded(names))


def _larger(member: Client) -> str:
    return str(next(one["id"] for one in member.compute("GET", "/flavors")["flavors"] if one["name"] == "m1.small"))


def test_moves(admin: Client, server: str) -> None:
    acted(admin, server, {"migrate": None}, "VERIFY_RESIZE")
    assert newest(admin, server) == ("migrate", succeeded([*COLD, "compute_finish_resize"]))
    acted(admin, server, {"confirmResize": None}, "ACTIVE")
    acted(admin, server, {"os-migrateLive": {"host": None, "block_migration": "auto"}}, "ACTIVE")
    done = [*LIVE, "compute_post_live_migration_at_destination"]
    assert newest(admin, server) == ("live-migration", succeeded(done))


def test_each_event_names_the_host_that_it_is_of(admin: Client, server: str) -> None:
    source = host_of(admin, server)
    acted(admin, server, {"os-migrateLive": {"host": other(source), "block_migration": "auto"}}, "ACTIVE")
    path = f"/servers/{server}/os-instance-actions"
    request_id = admin.compute("GET", path)["instanceActions"][0]["request_id"]
    events = admin.compute("GET", f"{path}/{request_id}")["instanceAction"]["events"]
    there = {event["event"] for event in events if event["host"] == other(source)}
    assert there == {LIVE[1], LIVE[4], "compute_post_live_migration_at_destination"}
    assert {event["host"] for event in events} == {source, other(source)}


def test_what_was_over_before_a_move_failed_has_succeeded(cloud: TestCloud, admin: Client, server: str) -> None:
    """The destination cannot make the guest ready."""
    with instead(cloud, other(host_of(admin, server)), TakesNobody):
        acted(admin, server, {"os-migrateLive": {"host": None, "block_migration": "auto"}}, "ACTIVE")
    assert last_migration(admin, server)["status"] == "error"
    failed = [(name, "Error") for name in LIVE[3:]]
    assert newest(admin, server) == ("live-migration", [*succeeded(LIVE[:3]), *failed])


def test_a_move_without_a_host_fails_with_its_first_events(admin: Client, server: str) -> None:
    force_down(admin, other(host_of(admin, server)))
    acted(admin, server, {"migrate": None}, "ACTIVE")
    assert newest(admin, server) == ("migrate", [(name, "Error") for name in COLD[:2]])


def test_rebuild_and_evacuation(admin: Client, member: Client, server: str) -> None:
    image = member.server(server)["image"]["id"]
    acted(member, server, {"rebuild": {"imageRef": image}}, "ACTIVE")
    made_anew = succeeded(["rebuild_server", "compute_rebuild_instance"])
    assert newest(admin, server) == ("rebuild", made_anew)
    force_down(admin, host_of(admin, server))
    acted(admin, server, {"evacuate": {}}, "SHUTOFF")
    assert newest(admin, server) == ("evacuate", made_anew)


def test_shelve_and_unshelve(admin: Client, member: Client, server: str) -> None:
    acted(member, server, {"shelve": None}, "SHELVED_OFFLOADED")
    assert newest(admin, server) == ("shelve", succeeded(["compute_shelve_instance"]))
    acted(member, server, {"unshelve": None}, "ACTIVE")
    names = ["get_image_info", "schedule_instances", "compute_unshelve_instance"]
    assert newest(admin, server) == ("unshelve", succeeded(names))


def test_an_unshelve_without_a_host(admin: Client, member: Client, server: str) -> None:
    acted(member, server, {"shelve": None}, "SHELVED_OFFLOADED")
    for host in ("host1", "host2"):
        force_down(admin, host)
    acted(member, server, {"unshelve": None}, "SHELVED_OFFLOADED")
    assert newest(admin, server) == ("unshelve", [("get_image_info", "Success"), ("schedule_instances", "Error")])


def test_a_server_is_made_or_finds_no_host(admin: Client, member: Client, server: str) -> None:
    assert newest(admin, server) == ("create", succeeded(["compute__do_build_and_run_instance"]))
    for host in ("host1", "host2"):
        force_down(admin, host)
    shown = member.server(server, version="2.46")
    wanted = {"name": "none", "imageRef": shown["image"]["id"], "flavorRef": shown["flavor"]["id"], "networks": "none"}
    lost = member.compute("POST", "/servers", {"server": wanted})["server"]["id"]
    member.wait_for_status(lost, "ERROR")
    assert newest(admin, lost) == ("create", [("conductor_schedule_and_build_instances", "Error")])


def test_what_is_over_at_once(admin: Client, member: Client, server: str) -> None:
    acted(member, server, {"lock": None}, "ACTIVE")
    assert newest(admin, server) == ("lock", succeeded(["api_lock"]))
    acted(member, server, {"unlock": None}, "ACTIVE")
    assert newest(admin, server) == ("unlock", succeeded(["api_unlock"]))
    acted(admin, server, {"os-resetState": {"state": "active"}}, "ACTIVE")
    assert newest(admin, server) == ("resetState", [])


@pytest.mark.parametrize("kind", ["createImage", "createBackup", "shelve"])
def test_the_task_states_of_a_snapshot_go_forward_only(
    monkeypatch: pytest.MonkeyPatch, member: Client, server: str, kind: str
) -> None:
    bodies: dict[str, dict[str, object]] = {
        "createImage": {"createImage": {"name": "image"}},
        "createBackup": {"createBackup": {"name": "image", "backup_type": "daily", "rotation": 1}},
        "shelve": {"shelve": None},
    }
    seen: list[object] = []
    settle = operations.settle

    def watched(tx: Tx, server_id: str, *, now_us: int, **changes: object) -> None:
        seen.append(changes["task_state"])
        settle(tx, server_id, now_us=now_us, **changes)

    monkeypatch.setattr(operations, "settle", watched)
    acted(member, server, bodies[kind], "SHELVED_OFFLOADED" if kind == "shelve" else "ACTIVE")
    states = {
        "createImage": ["image_snapshot", "image_pending_upload", "image_uploading"],
        "createBackup": ["image_pending_upload", "image_uploading"],
        "shelve": ["shelving_image_pending_upload", "shelving_image_uploading"],
    }[kind]
    assert seen == [*states, None]


def test_a_server_made_from_a_snapshot_is_rescued_with_what_that_goes_back_to(
    cloud: TestCloud, member: Client, server: str
) -> None:
    """Its own image may be what is broken, or be deleted. Images of the second one go back to that, too."""
    base = member.server(server)["image"]["id"]
    image_id = made(member, server)["id"]
    flavor = member.server(server, version="2.46")["flavor"]["id"]
    body = {"name": "two", "imageRef": image_id, "flavorRef": flavor, "networks": "none"}
    second = member.compute("POST", "/servers", {"server": body})["server"]["id"]
    member.wait_for_status(second, "ACTIVE")
    assert made(member, second)["base_image_ref"] == base
    assert _rescued_with(cloud, member, second) == base
    launched = member.server(second)["OS-SRV-USG:launched_at"]
    cloud.clock.advance(5.0)
    acted(member, second, {"unrescue": None}, "ACTIVE")
    assert member.server(second)["OS-SRV-USG:launched_at"] == launched, "only the rescue launches it anew"
    acted(member, second, {"rebuild": {"imageRef": image_id}}, "ACTIVE")
    assert _rescued_with(cloud, member, second) == image_id
    acted(member, second, {"unrescue": None}, "ACTIVE")
    assert member.request("DELETE", f"/image/v2/images/{image_id}").status == 204
    assert member.action(second, {"rescue": None}).status == 400


def _rescued_with(cloud: TestCloud, member: Client, server: str) -> str:
    acted(member, server, {"rescue": None}, "RESCUE")
    return cloud.embedded.db.read(lambda tx: get_server(tx, server)).system_metadata[RESCUE_IMAGE]
