"""Why long operations are given up, and records that refuse to be changed, where no story comes upon it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute.store import change_owner, get_server, migrations, settle_server, update_server
from cumulet.conductor import saga
from cumulet.conductor.carried import LeaseLost
from cumulet.db.engine import Tx
from cumulet.errors import Conflict, NotFound
from cumulet.fleet.hosts import Hosts
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.link import Link
from cumulet.host.wiring import InForce
from cumulet.image import store
from cumulet.testing import Client, TestCloud
from tests.api.servers import create_pair, host_of, image_and_flavor, other
from tests.api.test_evacuation import force_down
from tests.links import Way, instead


def bent(answers: Callable[[m.Message[object]], object]) -> Callable[[Link], Way]:
    """A way on which some messages are answered otherwise; where `answers` says nothing, by the host."""

    class Bent(Way):
        async def send(self, message: m.Message[object]) -> object:
            answer = answers(message)
            return await super().send(message) if answer is None else answer

    return Bent


def lost(message: m.Message[object]) -> Any:
    return GuestState.ABSENT if isinstance(message, m.Observe) else None


def cannot_stop(message: m.Message[object]) -> Any:
    if isinstance(message, m.Stop):
        raise m.VerbFailed("its hypervisor does not answer")


def wires_nothing(message: m.Message[object]) -> Any:
    return InForce(revision=message.wiring.revision) if isinstance(message, m.ApplyWiring) else None


@pytest.fixture(scope="module")
def cloud() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(hosts=2) as made:
        made.keep("admin", "member")
        yield made


@pytest.fixture(autouse=True)
def _as_new(cloud: TestCloud) -> Iterator[None]:
    yield
    cloud.reset()


@pytest.fixture
def server(cloud: TestCloud) -> str:
    made = create_pair(cloud.persona("member"), networks="auto")[0]
    cloud.idle()
    return made


def reason(cloud: TestCloud, server_id: str) -> tuple[str, str]:
    """Status and coded reason of the server's last move."""
    statement = sa.select(migrations).where(migrations.c.server_id == server_id).order_by(migrations.c.id.desc())
    row = cloud.embedded.db.read(lambda tx: tx.first(statement))
    assert row is not None
    return row.status, row.reason


def test_what_still_runs_on_its_host_is_not_evacuated(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    force_down(admin, source)
    with instead(cloud, source, bent(cannot_stop)):
        assert admin.action(server, {"evacuate": {}}).status == 200
        cloud.idle()
    assert reason(cloud, server) == ("error", "SOURCE_STILL_RUNS")
    assert host_of(admin, server) == source


def test_what_is_to_be_made_from_an_image_that_is_gone_is_not_evacuated(
    cloud: TestCloud, admin: Client, server: str
) -> None:
    source, image = host_of(admin, server), admin.server(server)["image"]["id"]
    assert admin.request("DELETE", f"/image/v2/images/{image}").status == 204
    force_down(admin, source)
    assert admin.action(server, {"evacuate": {}}).status == 200
    cloud.idle()
    assert reason(cloud, server) == ("error", "IMAGE_GONE")
    assert host_of(admin, server) == source


def test_what_is_to_be_rescued_with_an_image_that_is_gone_runs_on(cloud: TestCloud, admin: Client, server: str) -> None:
    """It goes while the guest is being stopped."""
    image = admin.server(server)["image"]["id"]

    class Deleting(Way):
        async def send(self, message: m.Message[object]) -> object:
            if isinstance(message, m.Stop):
                await cloud.embedded.db.write_async(lambda tx: store.delete(tx, image, 1))
            return await super().send(message)

    with instead(cloud, host_of(admin, server), Deleting):
        assert admin.action(server, {"rescue": None}).status == 200
        cloud.idle()
    assert admin.server(server)["status"] == "ACTIVE"
    assert cloud.guests(host_of(admin, server))[server] is GuestState.RUNNING
    actions = admin.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"]
    (request,) = [action["request_id"] for action in actions if action["action"] == "rescue"]
    (event,) = admin.compute("GET", f"/servers/{server}/os-instance-actions/{request}")["instanceAction"]["events"]
    assert event["details"].startswith("IMAGE_GONE: ")


def test_a_destination_that_lost_its_guest_is_given_up(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    with instead(cloud, other(source), bent(lost)):
        assert admin.action(server, {"migrate": None}, version="2.55").status == 202
        cloud.idle()
    assert reason(cloud, server) == ("error", "DESTINATION_LOST")
    assert (host_of(admin, server), admin.server(server)["status"]) == (source, "ACTIVE")
    assert cloud.guests(other(source)) == {} or server not in cloud.guests(other(source))


def test_what_a_host_has_lost_is_not_reverted_to(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    assert admin.action(server, {"migrate": None}, version="2.55").status == 202
    admin.wait_for_status(server, "VERIFY_RESIZE")
    with instead(cloud, source, bent(lost)):
        assert admin.action(server, {"revertResize": None}).status == 202
        cloud.idle()
    assert (host_of(admin, server), admin.server(server)["status"]) == (other(source), "VERIFY_RESIZE")
    actions = admin.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"]
    (request,) = [action["request_id"] for action in actions if action["action"] == "revertResize"]
    (event,) = admin.compute("GET", f"/servers/{server}/os-instance-actions/{request}")["instanceAction"]["events"]
    assert event["details"].startswith("SOURCE_LOST: ")


def test_a_host_that_has_no_rules_for_a_port_gets_no_guest(cloud: TestCloud, admin: Client) -> None:
    with contextlib.ExitStack() as stack:
        for host in cloud.hosts:
            stack.enter_context(instead(cloud, host, bent(wires_nothing)))
        wanted = {"name": "s", "networks": "auto", **image_and_flavor(admin)}
        server_id = admin.compute("POST", "/servers", {"server": wanted})["server"]["id"]
        admin.wait_for_status(server_id, "ERROR")
    assert "NOT_WIRED" in admin.server(server_id)["fault"]["details"]
    assert all(server_id not in cloud.guests(host) for host in cloud.hosts)


# -- records


def unchanged(cloud: TestCloud, server_id: str, refused: type[Exception], change: Callable[[Tx], object]) -> Exception:
    """`change` is refused, and the server is as before."""
    before = cloud.embedded.db.read(lambda tx: get_server(tx, server_id))
    with pytest.raises(refused) as caught:
        cloud.embedded.db.write(change)
    assert cloud.embedded.db.read(lambda tx: get_server(tx, server_id)) == before
    return caught.value


@pytest.mark.parametrize(("host_is", "behind"), [(True, 1), (False, 0)])
def test_who_is_wrong_of_a_server_does_not_become_its_owner(
    cloud: TestCloud, server: str, host_is: bool, behind: int
) -> None:
    """Of its host, or of its generation."""
    now = cloud.embedded.db.read(lambda tx: get_server(tx, server))
    assert now.host is not None
    old = now.host if host_is else other(now.host)
    error = unchanged(
        cloud,
        server,
        Conflict,
        lambda tx: change_owner(tx, server, old=old, new="host9", generation=now.generation - behind, now_us=1),
    )
    assert getattr(error, "reason", None) == "OWNER_CHANGED"


def test_of_two_changes_of_what_both_have_read_one_wins(cloud: TestCloud, server: str) -> None:
    read = cloud.embedded.db.read(lambda tx: get_server(tx, server))
    cloud.embedded.db.write(lambda tx: update_server(tx, read, now_us=1, name="first"))
    error = unchanged(cloud, server, Conflict, lambda tx: update_server(tx, read, now_us=1, name="second"))
    assert getattr(error, "reason", None) == "CHANGED_MEANWHILE"


def test_a_server_that_is_not_is_not_settled(cloud: TestCloud, server: str) -> None:
    unchanged(cloud, server, NotFound, lambda tx: settle_server(tx, "nobody", now_us=1, task_state=None))


def test_no_second_operation_runs_on_a_server_however_it_is_begun(cloud: TestCloud, server: str) -> None:
    """The API has looked before; this is what decides."""
    deletion = cloud.embedded.runner.sagas["deletion"]

    def begin_two(tx: Tx) -> None:
        for name in ("one", "two"):
            state = deletion.state(server_id=server, operation_id=name, action_id=1)
            saga.begin(tx, cloud.embedded.runner, deletion, operation_id=name, subject=server, state=state, now_us=1)

    assert getattr(unchanged(cloud, server, Conflict, begin_two), "reason", None) == "OPERATION_RUNNING"


def test_who_does_not_hold_an_operation_writes_nothing_for_it(cloud: TestCloud, server: str) -> None:
    written: list[str] = []
    runner = cloud.embedded.runner
    unchanged(
        cloud, server, LeaseLost, lambda tx: runner.record_held(tx, "nobody's", lambda _: written.append("something"))
    )
    assert written == []


def test_a_host_without_a_link_is_not_reached() -> None:
    with pytest.raises(m.HostUnreachable, match="host1 is not connected"):
        asyncio.run(Hosts().send("host1", m.AskFacts()))
