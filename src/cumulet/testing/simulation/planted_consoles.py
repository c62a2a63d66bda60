"""Planted mistakes about consoles: which guest an address leads to, how often it is good, what is left over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from unittest import mock

import sqlalchemy as sa

from cumulet.agent.agent import Agent
from cumulet.compute import console_door, consoles
from cumulet.compute.console_door import Relay
from cumulet.compute.consoles import Ticket, console_tokens
from cumulet.compute.store import get_server
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.looking import Look


@contextlib.contextmanager
def a_console_of_whoever_is_there() -> Iterator[None]:
    """An address leads to the server's guest, even if that has changed since."""

    def redeem(tx: Tx, token: str, now_us: int, protocol: str) -> Ticket | None:
        row = tx.first(consoles._valid(token, now_us))
        if row is None or not tx.changed(consoles._USE, {"of_digest": row.digest}):
            return None
        return Ticket(server=get_server(tx, row.server_id, deleted=True), user_id=row.user_id)

    async def as_it_was(self: Relay) -> bool:
        return True

    with mock.patch.object(console_door, "redeem", redeem), mock.patch.object(Relay, "_is_as_it_was", as_it_was):
        yield


def an_address_that_is_good_twice() -> AbstractContextManager[object]:
    """An address stays good after its first use."""
    keep = sa.update(console_tokens).where(console_tokens.c.digest == sa.bindparam("of_digest"))
    return mock.patch.object(consoles, "_USE", keep.values(user_id=console_tokens.c.user_id))


def keeping_the_addresses_of_deleted_servers() -> AbstractContextManager[object]:
    """Addresses of a deleted server are left over."""
    return mock.patch.object(consoles, "forget", return_value=None)


def seeing_what_is_not_over() -> AbstractContextManager[object]:
    """An agent answers a look without accepting its generation, so a late command may still be done after it."""
    admit = Agent._admit

    def admit_but_looks(agent: Agent, told: m.Command[object]) -> None:
        if not isinstance(told, Look):
            admit(agent, told)

    return mock.patch.object(Agent, "_admit", admit_but_looks)


PLANTS = (
    a_console_of_whoever_is_there,
    an_address_that_is_good_twice,
    keeping_the_addresses_of_deleted_servers,
    seeing_what_is_not_over,
)
