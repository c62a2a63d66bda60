"""The servers whose guests may be told otherwise than their records say: written with each change, empty at rest.

`compute.telling` tells hosts of them. So what nothing changes costs nothing, on however many hosts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from cumulet.db.engine import Tx, metadata
from cumulet.db.transaction import announced

untold = sa.Table(
    "untold",
    metadata,
    sa.Column("server_id", sa.ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
TABLES = announced((untold,))
"""Other processes are told of each commit there."""
HEEDED = frozenset({"name", "hostname", "metadata", "flavor", "image_id", "key_name"})
"""Columns of `servers` that guests are told of. The password is noted by who writes it."""

_OF_SERVER = untold.c.server_id == sa.bindparam("of_server")
_LEAST = sa.bindparam("least", type_=sa.BigInteger)
_LATER = sa.case((untold.c.revision < _LEAST, _LEAST), else_=untold.c.revision + 1)
_AGAIN = sa.update(untold).where(_OF_SERVER).values(revision=_LATER)
_INSERT = sa.insert(untold)
_THAT_REVISION = (_OF_SERVER, untold.c.revision == sa.bindparam("of_revision"))
_DROP = sa.delete(untold).where(*_THAT_REVISION)
_RAISE = sa.update(untold).where(*_THAT_REVISION)


def note(tx: Tx, server_id: str, *, now_us: int) -> None:
    """The guest of this server is to be told anew. Each note has a later revision than the one before: hosts refuse
    earlier ones. Where the clock was set back, `raise_to` mends that."""
    if tx.changed(_AGAIN, {"of_server": server_id, "least": now_us}) == 0:
        tx.run(_INSERT, {"server_id": server_id, "revision": now_us})


def note_if_heeded(tx: Tx, server_id: str, changed: Collection[str], *, now_us: int) -> None:
    """After a change of these columns of a server's record."""
    if not HEEDED.isdisjoint(changed):
        note(tx, server_id, now_us=now_us)


def note_all(tx: Tx, server_ids: Sequence[str], *, now_us: int) -> None:
    for server_id in server_ids:
        note(tx, server_id, now_us=now_us)


def told(tx: Tx, server_id: str, revision: int) -> None:
    """The host was told this revision, so the note goes, unless there is a later one."""
    tx.run(_DROP, {"of_server": server_id, "of_revision": revision})


def raise_to(tx: Tx, server_id: str, revision: int, least: int) -> None:
    """The host takes none that is lower than `least`: our clock was set back since it was told."""
    tx.run(_RAISE, {"of_server": server_id, "of_revision": revision, "revision": least})
