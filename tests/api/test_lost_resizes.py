"""A resized server whose new host is lost goes back to the disk that its old host has kept."""

from __future__ import annotations

import pytest

from cumulet.host.driver import GuestState
from cumulet.testing import Client, TestCloud
from tests.links import silent

from .servers import create_pair, host_of, last_migration, leftovers, other
from .test_evacuation import action_of, force_down
from .test_resize import is_back, larger, resized, where

__all__ = ["larger"]


@pytest.fixture
def server(member: Client, larger: str) -> str:
    made = create_pair(member, networks="auto")[0]
    resized(member, made, larger)
    return made


def test_one_whose_new_host_is_dead_is_reverted(cloud: TestCloud, admin: Client, member: Client, server: str) -> None:
    there = host_of(admin, server)
    with silent(cloud, there):
        force_down(admin, there)
        assert member.action(server, {"revertResize": None}).status == 202
        admin.wait_for_status(server, "ACTIVE")
        assert (host_of(admin, server), last_migration(admin, server)["status"]) == (other(there), "reverted")
    assert where(cloud, server) == dict.fromkeys(cloud.hosts, GuestState.RUNNING), "as a lying administrator left it"
    force_down(admin, there, down=False)
    cloud.reconcile()
    is_back(cloud, admin, server, other(there), GuestState.RUNNING)


def test_one_whose_new_host_answers_after_all_is_stopped_there_first(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    there = host_of(admin, server)
    force_down(admin, there)
    assert member.action(server, {"revertResize": None}).status == 202
    admin.wait_for_status(server, "ACTIVE")
    is_back(cloud, admin, server, other(there), GuestState.RUNNING)


def test_nothing_is_given_up_for_a_host_that_is_only_silent(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    """It goes silent once the revert has begun: its guest may run on."""
    there = host_of(admin, server)
    with silent(cloud, there):
        assert member.action(server, {"revertResize": None}).status == 202
        admin.wait("its end", lambda: action_of(admin, server, "revertResize")["message"] == "Error")
    assert admin.server(server)["status"] == "VERIFY_RESIZE"
    assert leftovers(cloud, admin, server)["guests"] == {there: GuestState.RUNNING, other(there): GuestState.STOPPED}
