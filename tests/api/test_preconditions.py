"""What must hold before a server may move, and what an administrator reads when no host will have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.compute import preconditions
from cumulet.compute.model import Server
from cumulet.compute.preconditions import PRECONDITIONS, Verb
from cumulet.compute.store import hosts
from cumulet.db.engine import Tx
from cumulet.settings import Settings
from cumulet.testing import Answer, Client, TestCloud
from tests.links import silent

from .servers import AUTO, create_pair, host_of, last_migration, other
from .test_compute_servers import ask_for
from .test_evacuation import action_of, force_down
from .test_resize import larger, resized, where

__all__ = ["larger"]

ASK: dict[Verb, Callable[[Client, str], Answer]] = {
    Verb.LIVE: lambda admin, server: admin.action(
        server, {"os-migrateLive": {"host": None, "disk_over_commit": False, "block_migration": True}}, version="2.1"
    ),
    Verb.COLD: lambda admin, server: admin.action(server, {"migrate": None}),
    Verb.RESIZE: lambda admin, server: admin.action(server, {"resize": {"flavorRef": "larger"}}),
    Verb.EVACUATE: lambda admin, server: admin.action(server, {"evacuate": {}}),
    Verb.CONFIRM: lambda admin, server: admin.action(server, {"confirmResize": None}),
    Verb.REVERT: lambda admin, server: admin.action(server, {"revertResize": None}),
}


def applies(name: str) -> list[Verb]:
    """The verbs to which it applies."""
    (one,) = (one for one in PRECONDITIONS if one.name == name)
    return [verb for verb in Verb if verb not in one.spared]


@pytest.fixture
def server(member: Client) -> str:
    return create_pair(member)[0]


def reason(answer: Answer) -> str:
    assert answer.status in (400, 409), answer.text
    return str(answer.headers["x-cumulet-reason"])


@pytest.mark.parametrize("verb", [verb for verb in applies("its host is up") if verb is not Verb.REVERT])
def test_no_server_moves_off_a_host_that_is_forced_down(
    cloud: TestCloud, admin: Client, server: str, larger: str, verb: Verb
) -> None:
    before = host_of(admin, server)
    force_down(admin, before)
    answer = ASK[verb](admin, server)
    assert reason(answer) == "HOST_DOWN"
    assert answer.headers["x-cumulet-details"] == f"{before}: HOST_DOWN"
    says = f"Compute service of {before} is unavailable" if verb is Verb.LIVE else "Service is unavailable"
    message = f"{says} at this time."
    status, kind = (400, "badRequest") if verb is Verb.LIVE else (409, "conflictingRequest")
    assert (answer.status, answer[kind]["message"]) == (status, message)
    cloud.idle()
    assert (host_of(admin, server), set(where(cloud, server)) >= {before}) == (before, True)


def test_no_server_returns_from_a_host_that_is_only_silent(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    """Its guest may still run there."""
    resized(member, server, larger)
    with silent(cloud, host_of(admin, server)):
        cloud.clock.advance(2 * cloud.embedded.settings.host_silent_seconds)
        cloud.reconcile()
        assert reason(ASK[Verb.REVERT](admin, server)) == "HOST_DOWN"
    cloud.reconcile()


def test_from_2_34_on_a_live_migration_off_such_a_host_ends_in_its_record(admin: Client, server: str) -> None:
    source = host_of(admin, server)
    force_down(admin, source)
    assert admin.action(server, {"os-migrateLive": {"host": other(source), **AUTO}}).status == 202
    admin.wait("its end", lambda: last_migration(admin, server)["status"] == "error")
    assert host_of(admin, server) == source
    record = admin.compute("GET", f"/cumulet/migrations/{last_migration(admin, server)['uuid']}")["migration"]
    assert (record["reason"], record["details"]) == ("HOST_DOWN", f"{source}: HOST_DOWN")


@pytest.mark.parametrize("verb", [Verb.COLD, Verb.RESIZE])
def test_a_host_that_goes_down_before_the_move_begins_stops_it(
    admin: Client, server: str, larger: str, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, required = host_of(admin, server), preconditions.require

    def require(tx: Tx, of: Server, asked: Verb, settings: Settings) -> None:
        required(tx, of, asked, settings)
        assert of.host is not None
        tx.run(sa.update(hosts).where(hosts.c.name == of.host).values(forced_down=True), {})
        tx.touch(of.host)

    monkeypatch.setattr(preconditions, "require", require)
    assert ASK[verb](admin, server).status == 202
    admin.wait("its end", lambda: last_migration(admin, server)["status"] == "error")
    record = admin.compute("GET", f"/cumulet/migrations/{last_migration(admin, server)['uuid']}")["migration"]
    assert (record["reason"], record["details"]) == ("HOST_DOWN", f"{source}: HOST_DOWN")
    assert host_of(admin, server) == source


@pytest.mark.parametrize("verb", applies("the host it came from is up"))
def test_what_a_server_came_from_has_to_be_up(
    admin: Client, member: Client, server: str, larger: str, verb: Verb
) -> None:
    source = host_of(admin, server)
    resized(member, server, larger)
    force_down(admin, source)
    assert reason(ASK[verb](admin, server)) == "HOST_DOWN"


@pytest.mark.parametrize("verb", applies("it is not resized"))
def test_a_server_whose_state_was_reset_while_it_was_resized_does_not_move(
    admin: Client, member: Client, server: str, larger: str, verb: Verb
) -> None:
    resized(member, server, larger)
    assert admin.action(server, {"os-resetState": {"state": "active"}}).status == 202
    assert reason(ASK[verb](admin, server)) == "STILL_RESIZED"


@pytest.mark.parametrize("verb", applies("its host's guests cannot run"))
def test_a_host_that_is_up_is_not_evacuated(admin: Client, server: str, verb: Verb) -> None:
    assert reason(ASK[verb](admin, server)) == "HOST_UP"


@pytest.mark.parametrize("verb", applies("it is on a host"))
def test_a_server_on_no_host_does_not_move(admin: Client, larger: str, verb: Verb) -> None:
    huge = {"flavor": {"name": "huge", "id": "huge", "vcpus": 1, "ram": 256, "disk": 2**20}}
    assert admin.compute("POST", "/flavors", huge).status == 200
    nowhere = ask_for(admin, flavorRef="huge")["server"]["id"]
    admin.wait_for_status(nowhere, "ERROR")
    assert ASK[verb](admin, nowhere).status in (400, 409)


@pytest.mark.parametrize("one", PRECONDITIONS, ids=lambda one: one.name)
def test_who_is_spared_one_is_told_why(one: Any) -> None:
    assert all(why for why in one.spared.values())
    assert set(one.spared) < set(Verb), "a precondition of nobody is none"


# -- no valid host: administrators read why, host by host, on every path


def details(admin: Client, server: str, action: str) -> str:
    events = action_of(admin, server, action)["events"]
    return str(next((event["details"] for event in events if event["result"] == "Error"), ""))


MOVES: dict[str, dict[str, object]] = {
    "live-migration": {"os-migrateLive": {"host": None, **AUTO}},
    "migrate": {"migrate": None},
    "resize": {"resize": {"flavorRef": "larger"}},
    "evacuate": {"evacuate": {}},
}


def disable(admin: Client, host: str) -> None:
    services = admin.compute("GET", "/os-services?binary=nova-compute")["services"]
    service = next(service for service in services if service["host"] == host)
    assert admin.compute("PUT", f"/os-services/{service['id']}", {"status": "disabled"}).status == 200


@pytest.mark.parametrize("action", MOVES)
def test_a_move_for_which_there_is_no_host_says_why_for_each(
    admin: Client, server: str, larger: str, action: str
) -> None:
    source = host_of(admin, server)
    disable(admin, other(source))
    if action == "evacuate":
        force_down(admin, source)
    assert admin.action(server, MOVES[action]).status in (200, 202)
    why = "; ".join(sorted((f"{source}: SAME_HOST", f"{other(source)}: HOST_DISABLED")))
    assert admin.wait("the reason", lambda: details(admin, server, action)) == f"NO_VALID_HOST: {why}"
    record = admin.compute("GET", f"/cumulet/migrations/{last_migration(admin, server)['uuid']}")["migration"]
    assert (record["status"], record["reason"], record["details"]) == ("error", "NO_VALID_HOST", why)


def test_until_2_33_the_answer_itself_says_why(admin: Client, manager: Client, server: str) -> None:
    disable(admin, other(host_of(admin, server)))
    answer = ASK[Verb.LIVE](admin, server)
    assert reason(answer) == "NO_VALID_HOST"
    assert "HOST_DISABLED" in answer.headers["x-cumulet-details"]
    refused = ASK[Verb.LIVE](manager, server)
    assert refused.status == 400
    source = host_of(admin, server)
    force_down(admin, source)
    down = ASK[Verb.LIVE](manager, server)
    assert (down.status, "unavailable" in down.text, source in down.text) == (400, True, False)
    assert not [name for name in down.headers if name.startswith("x-cumulet")], "no host's name leaves us"
    assert not [name for name in refused.headers if name.startswith("x-cumulet")], "no host's name leaves us"


def test_a_boot_says_what_became_of_each_host_it_has_tried(cloud: TestCloud, admin: Client) -> None:
    cloud.faults.fail("boot", step="create_guest", times=2)
    server = ask_for(admin)["server"]["id"]
    fault = admin.wait_for_status(server, "ERROR")["fault"]["details"]
    assert fault.startswith("NO_VALID_HOST: host1: TRIED_BEFORE (")
    assert "; host2: TRIED_BEFORE (" in fault
    assert details(admin, server, "create") == fault
    assert admin.compute("GET", "/cumulet/migrations/none").status == 404
