"""Clients on consoles during a run: they ask for addresses, use them at an API, perhaps twice, and leave."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, MutableMapping
from random import Random
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cumulet.compute.consoles import console_tokens, digest
from cumulet.compute.store import servers
from cumulet.db.engine import Tx

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud

SERIAL = {"remote_console": {"protocol": "serial", "type": "serial"}}
LONGEST_STAY_SECONDS = 5.0
_TOKEN = re.compile("token(?:=|%3D)(.+)$")
_PLACE = re.compile(rb"\[at (\S+) (\S+) (\d+)\]")
"""The first words of a simulated console (`FragileDriver.open_console`): host, server, accepted generation."""
_GIVEN = (
    sa.select(console_tokens.c.server_id, console_tokens.c.generation, servers.c.host)
    .join(servers, servers.c.id == console_tokens.c.server_id)
    .where(console_tokens.c.digest == sa.bindparam("of_digest"))
)
_LEFT = (
    sa.select(console_tokens.c.server_id)
    .join(servers, servers.c.id == console_tokens.c.server_id)
    .where(servers.c.deleted_at_us.is_not(None))
)


class Person:
    """A client that connects, types now and then, and leaves: the other end of a WebSocket."""

    def __init__(self, random: Random) -> None:
        self._stay = random.uniform(0.2, LONGEST_STAY_SECONDS)
        self._types = random.random() < 0.5
        self._connected = False
        self.heard = b""

    async def receive(self) -> MutableMapping[str, object]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await asyncio.sleep(self._stay / 2)
        if self._types:
            self._types = False
            return {"type": "websocket.receive", "bytes": b"hello\r"}
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, message: Mapping[str, object]) -> None:
        data = message.get("bytes")
        if isinstance(data, bytes):
            self.heard += data


class Consoles:
    """Checks what the clients receive."""

    def __init__(self, cloud: SimulatedCloud, counts: Counter[str]) -> None:
        self._cloud = cloud
        self._counts = counts

    async def use(self, url: str, random: Random) -> None:
        """Use an address: now or a little later, not at all, once, or twice at the same time."""
        found = _TOKEN.search(url)
        assert found is not None
        token = found[1]
        given = self._cloud.db.read(lambda tx: tx.first(_GIVEN, {"of_digest": digest(token)}))
        if given is None:
            return  # Its server was deleted a moment ago.
        people = [Person(random) for _ in range(random.choice((0, 1, 1, 2)))]
        pauses = [random.choice((0.0, random.uniform(0.0, 4.0))) for _ in people]
        await asyncio.gather(*(self._connect(token, *one) for one in zip(people, pauses, strict=True)))
        heard = [person.heard for person in people if person.heard]
        self._counts[f"consoles: {len(heard)} of {len(people)}"] += 1
        if len(heard) > 1:
            self._cloud.always.break_("wrong console", f"an address of {given.server_id[:8]} was good twice")
        for said in heard:
            self._judge(given, said)

    async def _connect(self, token: str, person: Person, pause: float) -> None:
        await asyncio.sleep(pause)
        await self._cloud.random.choice(self._cloud.apis).talk(token, person.receive, person.send)

    def _judge(self, given: sa.Row[str, int, str | None], said: bytes) -> None:
        server_id, generation, host = given
        place = _PLACE.search(said)
        if place is None:
            return  # The first words were left out.
        where, who, accepted = place[1].decode(), place[2].decode(), int(place[3])
        if (where, who) != (host, server_id) or accepted > generation:
            story = f"an address of {server_id[:8]} on {host}, generation {generation}, led to"
            self._cloud.always.break_("wrong console", f"{story} {who[:8]} on {where}, generation {accepted}")


def left_over(tx: Tx, cloud: SimulatedCloud) -> list[str]:
    """At rest, no API counts a session on a console, and no deleted server has an address."""
    found = [f"an address of {row.server_id[:8]}, which is deleted, is left over" for row in tx.all(_LEFT, {})]
    found += [f"{api.process.name} counts {api.on_consoles} on consoles" for api in cloud.apis if api.on_consoles]
    return found
