"""How an evacuation ends: by what the lost host still says, by where else the server is, and by what can be started."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from cumulet.compute.store import servers, settle_server
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.link import Link
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead

from .servers import AUTO, create_pair, host_of, last_migration, other
from .test_evacuation import BEFORE_2_95, action_of, evacuate, force_down
from .test_resize import larger, resized

__all__ = ["larger"]


@pytest.fixture
def server(member: Client) -> str:
    return create_pair(member)[0]


def ended(admin: Client, server: str) -> tuple[str, str | None]:
    """Status and reason of its last move, which has ended."""
    admin.wait("the end", lambda: last_migration(admin, server)["status"] in ("done", "finished", "completed", "error"))
    record = admin.compute("GET", f"/cumulet/migrations/{last_migration(admin, server)['uuid']}")["migration"]
    return record["status"], record["reason"]


def refusing(kind: type[m.Message[object]], seen: GuestState | None = None) -> Callable[[Link], Way]:
    """A way to a host that cannot do this. `seen`: what it says of its guests then."""

    class Refusing(Way):
        async def send(self, message: m.Message[object]) -> object:
            if isinstance(message, kind):
                raise m.VerbFailed("its hypervisor does not answer")
            if seen is not None and isinstance(message, m.Observe):
                return seen
            return await super().send(message)

    return Refusing


@pytest.mark.parametrize("seen", GuestState)
def test_a_guest_that_its_host_cannot_stop_starts_elsewhere_only_if_it_does_not_run(
    cloud: TestCloud, admin: Client, server: str, seen: GuestState
) -> None:
    source = host_of(admin, server)
    force_down(admin, source)
    runs = seen in (GuestState.RUNNING, GuestState.PAUSED)
    with instead(cloud, source, refusing(m.Stop, seen)):
        evacuate(admin, server)
        assert ended(admin, server) == (("error", "SOURCE_STILL_RUNS") if runs else ("done", None))
    assert host_of(admin, server) == (source if runs else other(source))


def test_a_resized_server_is_not_evacuated_to_where_its_other_disk_is_kept(
    admin: Client, member: Client, server: str, larger: str
) -> None:
    kept = host_of(admin, server)
    resized(member, server, larger)
    assert admin.action(server, {"os-resetState": {"state": "active"}}).status == 202
    force_down(admin, other(kept))
    evacuate(admin, server)
    assert ended(admin, server)[0] == "error"
    assert f"{kept}: SAME_HOST" in str(action_of(admin, server, "evacuate")["events"])
    assert host_of(admin, server) == other(kept)


def test_what_cannot_be_started_has_moved_and_is_stopped(cloud: TestCloud, admin: Client, server: str) -> None:
    source = host_of(admin, server)
    force_down(admin, source)
    with instead(cloud, other(source), refusing(m.Start)):
        evacuate(admin, server, version=BEFORE_2_95)
        assert ended(admin, server) == ("done", None)
    found = admin.server(server)
    assert (found["OS-EXT-SRV-ATTR:host"], found["status"]) == (other(source), "SHUTOFF")


@pytest.mark.parametrize(
    "body",
    [{"os-migrateLive": {"host": None, **AUTO}}, {"migrate": None}, {"evacuate": {}}],
    ids=["live", "cold", "evacuation"],
)
def test_the_record_names_who_has_asked_for_it_and_not_whose_server_it_is(
    admin: Client, member: Client, server: str, body: dict[str, object]
) -> None:
    if "evacuate" in body:
        force_down(admin, host_of(admin, server))
    assert admin.action(server, body).status in (200, 202)
    assert ended(admin, server)[0] != "error"
    record = last_migration(admin, server)
    assert (record["user_id"], record["project_id"]) == (admin.user_id, admin.project_id)
    assert record["user_id"] != member.user_id


def test_what_was_wrong_with_it_before_is_not_said_of_it_any_more(cloud: TestCloud, admin: Client, server: str) -> None:
    def fault(tx: Tx) -> str | None:
        text: str | None = tx.scalar(sa.select(servers.c.fault_message).where(servers.c.id == server))
        return text

    cloud.embedded.db.write(lambda tx: settle_server(tx, server, now_us=1, fault_message="There was no host."))
    assert cloud.embedded.db.read(fault) == "There was no host."
    force_down(admin, host_of(admin, server))
    evacuate(admin, server)
    assert ended(admin, server) == ("done", None)
    assert cloud.embedded.db.read(fault) is None
