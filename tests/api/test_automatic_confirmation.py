"""A resize that nobody confirms or reverts is confirmed in time; where its disk would be the last one, it is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.compute.resize_outcome import AutomaticConfirmation
from cumulet.host.driver import GuestState
from cumulet.testing import Client, TestCloud

from .servers import create_pair, host_of, last_migration, other
from .test_evacuation import force_down
from .test_resize import resized, where


@pytest.fixture
def impatient() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(resize_confirm_seconds=60) as running:
        yield running


def look_later(cloud: TestCloud, seconds: float) -> None:
    """Look as the timer would. A timer that is at work while time is moved sleeps its whole time from then on."""
    cloud.clock.advance(seconds)
    cloud.reconcile()  # a host that was not heard for so long would be taken for silent
    cloud.await_(cloud.embedded.conductor.reconciler(AutomaticConfirmation).round())


def resized_server(admin: Client, member: Client) -> tuple[str, str]:
    """(a server that waits for its confirmation, the host that it came from)"""
    flavors = admin.compute("GET", "/flavors")["flavors"]
    small = next(flavor["id"] for flavor in flavors if flavor["name"] == "m1.small")
    server = create_pair(member)[0]
    source = host_of(admin, server)
    resized(member, server, small)
    return server, source


def test_a_resize_nobody_confirms_is_confirmed_in_time(impatient: TestCloud) -> None:
    admin, member = impatient.persona("admin"), impatient.persona("member")
    server, source = resized_server(admin, member)
    look_later(impatient, 30.0)
    assert member.server(server)["status"] == "VERIFY_RESIZE"
    look_later(impatient, 32.0)
    admin.wait_for_status(server, "ACTIVE")
    assert last_migration(admin, server)["status"] == "confirmed"
    assert where(impatient, server) == {other(source): GuestState.RUNNING}


@pytest.mark.parametrize("lost", ["its host", "its guest"])
def test_nobody_but_its_user_gives_up_the_last_disk_that_there_is(impatient: TestCloud, lost: str) -> None:
    admin, member = impatient.persona("admin"), impatient.persona("member")
    server, source = resized_server(admin, member)
    if lost == "its host":
        force_down(admin, other(source))
    else:
        assert impatient.embedded.world is not None
        impatient.await_(impatient.embedded.world.drivers[other(source)].destroy(server))
        impatient.reconcile()  # It is recorded before the time has passed, as a look every few seconds does.
    look_later(impatient, 62.0)
    impatient.idle()
    assert member.server(server)["status"] == "VERIFY_RESIZE"
    assert where(impatient, server)[source] is GuestState.STOPPED
    if lost == "its host":
        force_down(admin, other(source), down=False)
        look_later(impatient, 1.0)
        admin.wait_for_status(server, "ACTIVE")
    else:
        assert member.action(server, {"revertResize": None}).status == 202
        admin.wait_for_status(server, "ACTIVE")
        assert where(impatient, server) == {source: GuestState.RUNNING}
