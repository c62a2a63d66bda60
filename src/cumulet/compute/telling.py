"""Tells hosts what their metadata services say of a guest when its records have changed since it was described.

Each change leaves a note in its own transaction (`compute.untold`). The reconciler here reads the notes, tells each
host what is on record then, and takes the note away. A note outlives whatever fails: a host that is down is told when
it is back, and a guest on which an operation is at work is told once more at its end, because the operation may make it
anew of what was read before the change. A host answers with a password that its guest has posted: that is recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import guest_metadata, server_password, untold
from cumulet.compute import hosts as host_records
from cumulet.compute.store import get_server, hosts, servers
from cumulet.compute.teller import Teller
from cumulet.conductor import saga
from cumulet.db.engine import Database, Tx
from cumulet.db.transaction import Watch
from cumulet.fleet.hosts import Hosts
from cumulet.host import messages as m
from cumulet.host.devices import USUAL
from cumulet.host.driver import Guest
from cumulet.host.nics import placed
from cumulet.host.telling import LIVE_METADATA, Heard, Told
from cumulet.host.telling_messages import TellMetadata
from cumulet.settings import Settings

log = logging.getLogger(__name__)

SECONDS_BETWEEN = 1.0
"""How soon a note is seen whose notice was lost, and how soon a guest that an operation is making is looked for."""
SECONDS_UNTIL_RETRY = 5.0
"""How soon a host that could not be told is told again."""
SECONDS_BETWEEN_TWO = 1.0
"""How soon a guest that was told is told again: whoever changes a server all the time keeps no host busy."""
AT_ONCE = 32
"""So many hosts are told at one time."""

_NOTES = (
    sa.select(untold.untold.c.server_id, untold.untold.c.revision, servers.c.host)
    .join(servers, servers.c.id == untold.untold.c.server_id)
    .outerjoin(hosts, hosts.c.name == servers.c.host)
    .where(sa.or_(servers.c.host.is_(None), servers.c.deleted_at_us.is_not(None), hosts.c.up))
    .order_by(untold.untold.c.revision, untold.untold.c.server_id)
)
_NOTE = sa.select(untold.untold.c.revision).where(untold.untold.c.server_id == sa.bindparam("of_server"))


class Note(msgspec.Struct, frozen=True):
    """A server whose guest is to be told. A host that is down is left out; `host` None: nobody is to be told."""

    server_id: str
    revision: int
    host: str | None
    busy: bool
    """Whether an operation is at work on it."""


class Telling(msgspec.Struct, frozen=True):
    """What a host is to be told; `message` None: it cannot be, or need not."""

    note: Note
    message: TellMetadata | None


def notes(tx: Tx) -> list[Note]:
    """Those of guests whose hosts answer, the oldest first."""
    rows = tx.all(_NOTES, {})
    at_work = saga.subjects_of_running(tx) if rows else set()
    return [Note(row.server_id, row.revision, row.host, row.server_id in at_work) for row in rows]


def described(tx: Tx, settings: Settings, server_id: str) -> Telling | None:
    """What to tell, as the records are in this transaction. None: the note is gone."""
    row = tx.first(_NOTE, {"of_server": server_id})
    if row is None:
        return None
    server = get_server(tx, server_id, deleted=True)
    note = Note(server_id, row.revision, server.host, saga.running_operation(tx, server_id) is not None)
    if server.host is None or server.deleted_at_us is not None:
        return Telling(note, None)
    if not host_records.offers(tx, server.host, LIVE_METADATA):
        return Telling(note, None)  # When it does, all of its servers are noted (`hosts.register`).
    guest = msgspec.convert(server.guest, Guest, strict=False) if server.guest is not None else None
    nics, devices = (placed(guest), guest.devices) if guest is not None else ((), USUAL)
    facts = guest_metadata.facts_of(tx, settings, server, nics, devices, host=server.host)
    documents = guest_metadata.live(facts, server_password.on_record(server))
    told = Told(revision=row.revision, documents=documents, taken=server_password.taken(server))
    return Telling(note, TellMetadata(server_id=server_id, generation=server.generation, told=told))


class Tellings(Teller):
    """Tells when a note is written, and on a timer. Where there is none, that costs a look at an empty table."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings, hosts: Hosts) -> None:
        super().__init__(name="tellings", clock=clock, seconds=SECONDS_BETWEEN, db=db)
        self._settings = settings
        self._hosts = hosts
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._told: dict[str, Note] = {}
        """By server id, while an operation is at work on it: what its host was told already."""
        self._not_before: dict[str, float] = {}
        """By server id: when its host is told again, which could not be told, or was told just now; monotonic."""

    def _watch_commits(self, hear: Callable[[], None]) -> Sequence[Watch]:
        return [self._db.watch(untold.TABLES, hear)]

    async def round(self) -> None:
        """Begin to tell whom nobody tells yet. A slow host delays no other, and no further round."""
        found = {note.server_id: note for note in await self._db.look_up(notes)}
        now = self._clock.monotonic()
        for gone in self._told.keys() - found:
            del self._told[gone]
        self._not_before = {server_id: at for server_id, at in self._not_before.items() if at > now}
        for server_id, note in found.items():
            if server_id in self._telling or server_id in self._not_before:
                continue
            if note.busy and self._told.get(server_id) == note:
                continue  # It is told once more when the operation has ended.
            self._begin(server_id, self._tell(server_id))

    async def _tell(self, server_id: str) -> None:
        async with self._at_once:
            told = await self._db.read_async(lambda tx: described(tx, self._settings, server_id))
            if told is None:
                return
            note = told.note
            if told.message is None:
                await self._db.write_async(lambda tx: untold.told(tx, server_id, note.revision))
                return
            assert note.host is not None
            self._not_before[server_id] = self._clock.monotonic() + SECONDS_BETWEEN_TWO
            try:
                heard = await self._hosts.send(note.host, told.message)
            except m.HostError as error:
                log.debug("%s cannot be told of server %s, will retry: %s", note.host, server_id, error)
                self._failed(server_id)
                return
            if heard.revision == 0 and note.busy:
                return  # Its guest is not made yet.
            if await self._db.write_async(lambda tx: self._record(tx, note, heard)):
                self._told[server_id] = note

    def _record(self, tx: Tx, note: Note, heard: Heard) -> bool:
        """What the host has answered; whether it was told all, though the note has to stay."""
        if heard.posted is not None:
            server_password.record_posted(tx, note.server_id, note.host, heard.posted, now_us=self._clock.now_us())
        if heard.revision > note.revision:
            untold.raise_to(tx, note.server_id, note.revision, heard.revision)
            return False
        if not note.busy:
            untold.told(tx, note.server_id, note.revision)
        return note.busy

    def _failed(self, key: str) -> None:
        self._not_before[key] = self._clock.monotonic() + SECONDS_UNTIL_RETRY
