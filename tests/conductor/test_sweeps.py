"""The conductor's sweep comes again, whatever became of the last one."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.conductor.runner import Runner
from cumulet.conductor.saga import IS_RUNNING, operations
from cumulet.host import messages as m
from tests.api.servers import image_and_flavor
from tests.links import Way, instead


def test_a_sweep_that_fails_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with cumulet.testing.cloud() as cloud:
        sweeps: list[int] = []
        swept = Runner.sweep

        async def sweep(runner: Runner) -> None:
            sweeps.append(len(sweeps))
            if len(sweeps) == 1:
                raise ValueError("a row that this version cannot read")
            await swept(runner)

        monkeypatch.setattr(Runner, "sweep", sweep)
        admin = cloud.persona("admin")
        cloud.clock.advance(cloud.embedded.settings.lease_seconds)
        admin.wait("a sweep that fails", lambda: sweeps)
        cloud.clock.advance(cloud.embedded.settings.lease_seconds)
        admin.wait("another", lambda: len(sweeps) >= 2)


class HangsOnce(Way):
    hangs = 0

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Create) and not self.hangs:
            self.hangs += 1
            await asyncio.Event().wait()
        return await super().send(message)


def test_who_was_overtaken_while_a_host_said_nothing_takes_over_from_the_next() -> None:
    """It waited for that host's answer, for as long as it may take, while nobody carried the operation."""
    with cumulet.testing.cloud(hosts=1) as cloud, instead(cloud, "host1", HangsOnce) as way:
        admin, db = cloud.persona("admin"), cloud.embedded.db
        wanted = {"name": "one", "networks": "none", **image_and_flavor(admin)}
        server_id = admin.compute("POST", "/servers", {"server": wanted})["server"]["id"]
        admin.wait("the question", lambda: way.hangs)
        taken = {"lease_beat": operations.c.lease_beat + 1, "revision": operations.c.revision + 1}
        by_another = sa.update(operations).where(IS_RUNNING).values(lease_owner="one that dies", **taken)
        db.write(lambda tx: tx.execute(by_another))

        def runs() -> bool:
            cloud.clock.advance(cloud.embedded.settings.lease_seconds / 4)
            return bool(admin.server(server_id)["status"] == "ACTIVE")

        admin.wait("the server", runs)
        assert way.hangs == 1
