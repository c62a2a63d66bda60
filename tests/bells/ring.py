"""Ringing a bell: an operation of the API, a long operation, and a verb for its host."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from cumulet.conductor import saga
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, nothing
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.testing import JsonObject
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Empty
from tests.bells.service import BELLS, bells

HANG = rule("bells:hang", "role:member")
RING = rule("bells:ring", "role:member")


class Ring(m.Question[int], frozen=True, tag="ring"):
    """Answers how many guests have heard it."""

    async def do(self, host: m.OnHost) -> int:
        return len(await host.guests())


class Ringing(msgspec.Struct, frozen=True, kw_only=True):
    """State of the saga."""

    bell_id: str
    host: str
    heard_by: int | None = None


async def ring(context: Context, state: Ringing) -> Ringing:
    """Idempotent: a bell that is rung twice for one request is no harm."""
    return msgspec.structs.replace(state, heard_by=await context.hosts.send(state.host, Ring()))


def count(tx: Tx, context: Context, state: Ringing) -> Ringing:
    tx.execute(sa.update(bells).where(bells.c.id == state.bell_id).values(rung=bells.c.rung + 1))
    return state


def unwound(tx: Tx, context: Context, state: Ringing, failure: Failure) -> None:
    """Nothing was recorded, so nothing is to be taken back."""


RINGING = Saga(
    name="ringing",
    kind="bell",
    state=Ringing,
    steps=(Step(ring, undo=nothing),),
    finals=(Final(count),),
    unwound=unwound,
)


@BELLS.operation("POST", "/hosts/{host}/bells", rules=(Rule(HANG),), body=Empty, success=201)
def hang(call: Call[None, Empty]) -> JsonObject:
    """Hang a bell on a host."""
    bell = {"id": call.cloud.clock.uuid(), "host": call.path["host"], "rung": 0}
    call.tx.execute(sa.insert(bells), bell)
    return bell


@BELLS.operation("POST", "/bells/{bell_id}/ring", rules=(Rule(RING),), body=Empty, success=202)
def ring_bell(call: Call[None, Empty]) -> None:
    """Ring a bell."""
    bell = call.tx.first(sa.select(bells).where(bells.c.id == call.path["bell_id"]))
    assert bell is not None
    saga.begin(
        call.tx,
        call.cloud.wake,
        RINGING,
        operation_id=call.cloud.clock.uuid(),
        subject=bell.id,
        state=Ringing(bell_id=bell.id, host=bell.host),
        now_us=call.now_us,
    )


@BELLS.operation("GET", "/bells/{bell_id}", rules=(Rule(RING),))
def show(call: Call[None, None]) -> JsonObject:
    """Show how often a bell was rung."""
    bell = call.tx.first(sa.select(bells).where(bells.c.id == call.path["bell_id"]))
    assert bell is not None
    return {"id": bell.id, "rung": bell.rung}
