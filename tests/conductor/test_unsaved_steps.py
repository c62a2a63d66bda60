"""A final that is not saved runs together with the next one, and both are repeated if that fails."""

from __future__ import annotations

from itertools import pairwise

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.conductor.saga import is_host_step, operations
from cumulet.processes.parts import SAGAS
from tests.api.servers import create_pair

_REVISION = sa.select(operations.c.revision).where(operations.c.saga == "live-migration")


def test_the_guest_of_a_move_does_not_wait_until_a_step_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    with cumulet.testing.cloud() as cloud:
        steps: list[str] = []
        runner, before_step = cloud.embedded.runner, cloud.faults.before_step
        revisions: list[int] = []

        async def noted(saga: str, step: str, state: object) -> None:
            if saga == "live-migration":
                steps.append(step)
                revisions.append(runner.db.read(lambda tx: tx.scalar(_REVISION, {})) or 0)
            await before_step(saga, step, state)

        monkeypatch.setattr(runner, "_before_step", noted)
        cloud.faults.fail("live-migration", step="resume_guest")
        member, admin = cloud.persona("member"), cloud.persona("admin")
        server = create_pair(member)[0]
        assert admin.action(server, {"os-migrateLive": {"host": None, "block_migration": "auto"}}).status == 202
        cloud.idle()
        assert admin.server(server)["status"] == "ACTIVE"
    assert steps == [
        "start_destination",
        "copy_memory",
        *("switch_peers", "resume_guest") * 2,
        "discard_source",
    ]
    first, again = revisions[2:4], revisions[4:6]
    assert first[0] == first[1] < again[0] == again[1] < revisions[6]


@pytest.mark.parametrize("saga", SAGAS)
def test_what_is_not_saved_is_followed_by_a_step_on_a_host(saga: str) -> None:
    finals = SAGAS[saga].finals
    for final, following in pairwise(finals):
        assert final.saved or (is_host_step(final.do) and is_host_step(following.do))
    assert all(final.saved for final in finals[-1:])
