"""Connections and the memory for requests without a token: both are bounded, in all and for each address.

Connections that ask for nothing never keep a newcomer out. When there are too many, one idle connection is dropped: of
the newcomer's address if that has its full share, else of the address that has most. Of that address's connections it
is one of the larger group: of those that never asked for anything, or of those that were answered. So a client whose
address has many answered connections is not cut off in its handshake, and a flood of silent ones drops its own. Where
none is idle, it is the one that has waited for its client for longest: for a body, or until it takes more of an answer.
Whoever takes some goes to the end of this row. Used on the event loop only.
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable

import msgspec

log = logging.getLogger(__name__)

UNKNOWN_BYTES_OF_ONE = 4 << 20
"""Bytes of heads and bodies held in memory for requests without a token, from one address."""
UNKNOWN_BYTES = 32 << 20
"""The same for all addresses together."""
DESCRIPTORS = 65_536
"""What the process's limit of open files is raised to, where the system allows it."""
DESCRIPTORS_KEPT_BACK = 256
"""Files kept for the database, agents, images and logs: connections may not use these."""


CONNECTION = "cumulet.connection"
"""The key of a request's scope under which its `Link` is."""


class Connection(msgspec.Struct, eq=False):
    """One connection, from the moment it is accepted."""

    share: _Share
    drop: Callable[[], object]
    """Ends it at once."""
    held: int = 0
    """Bytes in memory while it has shown no token."""
    known: bool = False
    """Whether its present request came with a live token."""
    whole: bool = False
    """Whether all of the request that it began last has come."""
    lane: str | None = None
    """The lane of the caller whose live token it showed last. The next request waits in this lane (`web.turns`)."""
    place: dict[Connection, None] | None = None
    """The group of its address that it is in; None: it has ended."""


class _Share(msgspec.Struct, eq=False):
    """The connections of one address. Each group is in order: the one that has been in it longest comes first."""

    peer: str
    silent: dict[Connection, None] = msgspec.field(default_factory=dict)
    """They have sent no whole request yet, and no token."""
    resting: dict[Connection, None] = msgspec.field(default_factory=dict)
    """They were answered, and may ask again."""
    waiting: dict[Connection, None] = msgspec.field(default_factory=dict)
    """They wait for their clients: they showed a live token, and their body is not whole; or their answer is not taken.
    """
    served: dict[Connection, None] = msgspec.field(default_factory=dict)
    held: int = 0

    def __len__(self) -> int:
        return len(self.silent) + len(self.resting) + len(self.waiting) + len(self.served)

    def idle(self) -> Connection | None:
        """The oldest of the larger group of idle connections."""
        larger = self.resting if len(self.resting) > len(self.silent) else self.silent
        return next(iter(larger), None)

    def late(self) -> Connection | None:
        """The one that has waited for its client for longest."""
        return next(iter(self.waiting), None)

    def unfinished(self) -> Connection | None:
        """The oldest one whose request is not whole; where there is none, the oldest that rests."""
        return next(iter(self.silent), None) or next(iter(self.resting), None)


class Connections:
    """All connections of one listener."""

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self._most = min(most, _descriptors_to_use())
        self._most_of_one = most_of_one
        self._shares: dict[str, _Share] = {}
        self._count = 0
        self._held = 0

    def admit(self, peer: str, drop: Callable[[], object]) -> Connection | None:
        """Take in a new connection. None: there is no room, and no other connection that may be dropped."""
        share = self._shares.get(peer) or _Share(peer)
        if len(share) >= self._most_of_one and not self._drop(
            share.idle() or share.late(), "connections of one address"
        ):
            return None
        if self._count >= self._most and not self._drop(
            self._largest(len, _Share.idle) or self._largest(len, _Share.late), "connections"
        ):
            return None
        connection = Connection(share, drop)
        self._shares[peer] = share
        share.silent[connection] = None
        connection.place = share.silent
        self._count += 1
        return connection

    def hold(self, connection: Connection, size: int) -> None:
        """Count `size` more bytes of a connection without a token. Connections are dropped if these are too many."""
        share = connection.share
        if connection.known or share.peer not in self._shares:
            return
        connection.held += size
        share.held += size
        self._held += size
        while share.held > UNKNOWN_BYTES_OF_ONE and self._drop(share.unfinished(), "bytes of one address"):
            pass
        while self._held > UNKNOWN_BYTES and self._drop(self._largest(lambda s: s.held, _Share.unfinished), "bytes"):
            pass

    def serve(self, connection: Connection, *, known: bool) -> None:
        """Its request is whole. It is not dropped until `rest`. `known`: it came with a live token."""
        connection.whole = True
        if known:
            self.know(connection)
        self._put(connection, connection.share.served)

    def know(self, connection: Connection, *, streams: bool = False) -> None:
        """Its request came with a live token. `streams`: its body has bounds of its own, and it is not dropped."""
        connection.known = True
        self._let_go(connection)
        share = connection.share
        self._put(connection, share.served if streams or connection.whole else share.waiting)

    def pause(self, connection: Connection) -> None:
        """Its client takes no more of the answer for now."""
        if connection.place is connection.share.served:
            self._put(connection, connection.share.waiting)

    def go_on(self, connection: Connection) -> None:
        """It does again."""
        if connection.place is connection.share.waiting and connection.whole:
            self._put(connection, connection.share.served)

    def crowded(self, connection: Connection) -> bool:
        """Whether it has shown no token, and as much is held as may be: it should take in no further request."""
        held = connection.share.held
        return not connection.known and (held >= UNKNOWN_BYTES_OF_ONE or self._held >= UNKNOWN_BYTES)

    def answered(self, connection: Connection) -> None:
        """One of its requests was answered, and others wait: who showed a token for it did not for these."""
        connection.known = False

    def rest(self, connection: Connection) -> None:
        """Its request was answered."""
        connection.known = False
        self._let_go(connection)
        self._put(connection, connection.share.resting)

    def gone(self, connection: Connection) -> None:
        """The connection has ended. A second call does nothing."""
        share = connection.share
        if connection.place is not None:
            del connection.place[connection]
            connection.place = None
            connection.drop = _gone  # It may refer to the connection: no circle is left to the garbage collector.
            self._let_go(connection)
            self._count -= 1
            if not len(share):
                self._shares.pop(share.peer, None)

    def _put(self, connection: Connection, where: dict[Connection, None]) -> None:
        if connection.place is not None and connection.place is not where:
            del connection.place[connection]
            where[connection] = None
            connection.place = where

    def _let_go(self, connection: Connection) -> None:
        if connection.held:
            connection.share.held -= connection.held
            self._held -= connection.held
            connection.held = 0

    def _largest(
        self, size: Callable[[_Share], int], which: Callable[[_Share], Connection | None]
    ) -> Connection | None:
        some = (share for share in self._shares.values() if which(share) is not None)
        share = max(some, key=size, default=None)
        return None if share is None else which(share)

    def _drop(self, connection: Connection | None, why: str) -> bool:
        if connection is None:
            return False
        peer = connection.share.peer
        what = "waited for its client" if connection.place is connection.share.waiting else "asked for nothing"
        log.warning("dropped a connection that %s: too many %s", what, why, extra={"client": peer})
        drop = connection.drop
        self.gone(connection)
        drop()
        return True


def _gone() -> None:
    pass


class Link:
    """A request's access to its connection."""

    __slots__ = ("_admitted", "_connection")

    def __init__(self, admitted: Connections, connection: Connection) -> None:
        self._admitted = admitted
        self._connection = connection

    @property
    def lane(self) -> str | None:
        """The lane of the caller that showed a live token on it last."""
        return self._connection.lane

    def known(self, lane: str) -> None:
        """The request came with a live token of a caller with this lane."""
        self._connection.lane = lane
        self._admitted.know(self._connection)

    def stream(self, streams: bool) -> None:
        """The body of its request, which came with a live token, is now read as a stream, or no longer."""
        self._admitted.know(self._connection, streams=streams)


def _descriptors_to_use() -> int:
    """How many connections the limit of open files allows, once raised. Each may also have a file open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(1, (soft - DESCRIPTORS_KEPT_BACK) // 2) if soft != resource.RLIM_INFINITY else DESCRIPTORS
