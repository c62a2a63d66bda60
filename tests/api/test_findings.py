"""What reconcilers find and do about it is kept, and administrators see it; other findings are in their stories."""

from __future__ import annotations

import pytest

import cumulet.testing
from cumulet.clock import Clock
from cumulet.compute.heard import Heard, Recorded
from cumulet.compute.host_recorder import HostRecorder, Said
from cumulet.conductor.runner import Runner
from cumulet.processes.parts import SAGAS
from cumulet.testing import Client, JsonObject, TestCloud
from cumulet.testing.clock import AdvanceableClock
from tests.links import silent

from .servers import AUTO, running_migration, slow_server


def found(admin: Client, name: str) -> list[JsonObject]:
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
        assert (one["done"], one["times"]) == (done, 1), "it is still down: nothing new"
        assert not found(admin, "lease-run-out" if name == "host-silent" else "host-silent")


def test_a_host_of_which_nothing_can_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is up, and yet nothing that it says is heard."""

    async def refused(_recorder: HostRecorder, said: Said) -> Recorded:
        raise ValueError(said.facts.name)

    with cumulet.testing.cloud(host_silent_seconds=1.0) as cloud:
        admin = cloud.persona("admin")
        with monkeypatch.context() as patched:
            patched.setattr(HostRecorder, "record", refused)
            patched.setattr(Heard, "is_news", lambda *_others: True)
            admin.wait("both hosts to be told of", lambda: len(found(admin, "round-failed")) == 2)
        noted = sorted((one["host"], one["reconciler"], one["done"]) for one in found(admin, "round-failed"))
        assert noted == [(host, "hosts", "failed, will retry: ValueError") for host in ("host1", "host2")]


class WrongClock(AdvanceableClock):
    """The wall clock of a machine that is wrong by so much; seconds pass as elsewhere."""

    def __init__(self, right: Clock, seconds: float) -> None:
        super().__init__()
        self._right = right
        self._wrong_us = int(seconds * 1_000_000)

    def now_us(self) -> int:
        return self._right.now_us() + self._wrong_us

    def monotonic(self) -> float:
        return self._right.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._right.sleep(seconds)


def second_conductor(cloud: TestCloud, wrong_seconds: float) -> Runner:
    """A conductor as another process has it, beside the one that carries operations here."""
    running = cloud.embedded
    return Runner(
        db=running.db,
        clock=WrongClock(running.clock, wrong_seconds),
        settings=running.settings,
        hosts=running.hosts,
        sagas=SAGAS,
        name="the-second",
        alone=False,
    )


@pytest.mark.parametrize("wrong_seconds", [0.0, 3600.0, -3600.0], ids=["right", "ahead", "behind"])
def test_an_operation_whose_conductor_died_and_who_took_it_over(wrong_seconds: float) -> None:
    """Wall clocks play no part: one that is an hour ahead takes nothing that is held, one behind takes what is free."""
    with cumulet.testing.cloud() as cloud:
        admin, member = cloud.persona("admin"), cloud.persona("member")
        server = slow_server(admin, member)
        assert admin.action(server, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
        running_migration(admin, server)
        second = second_conductor(cloud, wrong_seconds)
        cloud.await_(second.start())
        cloud.await_(second.sweep())
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
