"""What reconcilers find and do about it is kept, and administrators see it; other findings are in their stories."""

from __future__ import annotations

from typing import Any

import pytest

import cumulet.testing
from cumulet.compute.sagas import SAGAS
from cumulet.conductor.runner import Runner
from cumulet.testing import Client, TestCloud
from tests.links import silent

from .test_live_migration import AUTO, running_migration, slow_server


def found(admin: Client, name: str) -> list[dict[str, Any]]:
    everything = admin.compute("GET", "/cumulet/findings")["findings"]
    return [one for one in everything if one["finding"] == name]


@pytest.mark.parametrize(
    ("fenced", "name", "done"),
    [
        (False, "host-silent", "marked down; its servers may run, so nothing else"),
        (True, "lease-run-out", "marked down; its servers may start elsewhere"),
    ],
)
def test_a_host_that_does_not_answer(fenced: bool, name: str, done: str) -> None:
    with cumulet.testing.cloud(fence_silent_hosts=fenced) as cloud:
        admin = cloud.persona("admin")
        with silent(cloud, "host2"):
            cloud.clock.advance(60.0)
            cloud.reconcile()
            cloud.reconcile()
            (one,) = found(admin, name)
        assert (one["reconciler"], one["host"], one["server_id"]) == ("hosts", "host2", None)
        assert (one["done"], one["times"]) == (done, 1), "that it is still down is no news"
        assert not found(admin, "lease-run-out" if name == "host-silent" else "host-silent")


def second_conductor(cloud: TestCloud) -> Runner:
    """As of another process, beside the one that carries operations here."""
    running = cloud.embedded
    return Runner(
        db=running.db, clock=running.clock, settings=running.settings, hosts=running.hosts, sagas=SAGAS,
        name="the-second", alone=False,
    )  # fmt: skip


def test_an_operation_whose_conductor_died_and_who_took_it_over() -> None:
    with cumulet.testing.cloud() as cloud:
        admin, member = cloud.persona("admin"), cloud.persona("member")
        server = slow_server(admin, member)
        assert admin.action(server, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
        running_migration(admin, server)
        second = second_conductor(cloud)
        cloud.await_(second.start())
        assert not found(admin, "live-migration-without-conductor"), "somebody holds it"
        cloud.kill_conductor()
        cloud.clock.advance(2 * cloud.embedded.settings.lease_seconds)
        try:
            cloud.await_(second.sweep())
            (one,) = admin.wait("the finding", lambda: found(admin, "live-migration-without-conductor"))
        finally:
            cloud.await_(second.stop())
    assert (one["reconciler"], one["server_id"], one["host"]) == ("operations", server, None)
    assert one["done"] == f"taken over from {cloud.embedded.runner.name} at step 5"
