"""Connections of a host's guests to its metadata service: bounded, and whoever has many of them keeps nobody else out.

A newcomer always gets a place. Where there is none, one of the project that has most gives way, so a project's guests
and ports, however many, deny the service to no other project's. Where a port has its full share, one of its own does.
"""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from cumulet.host.telling import META_DATA

MOST_VISITORS = 256
"""Connections to the metadata service at one time; a port has at most `MOST_VISITORS_OF_A_PORT`."""
MOST_VISITORS_OF_A_PORT = 8
VISIT_SECONDS = 10.0
"""How long a connection may take, from its beginning to its end."""


class Visitor:
    """One connection to the metadata service. `whose`: the project of its guest, or its network."""

    def __init__(self, connection: socket.socket, number: int, whose: str) -> None:
        self.connection = connection
        self.number = number
        self.whose = whose
        self.received = b""
        self.reply = b""
        self.visit: int | None = None
        """While the agent is asked about its password: `Post.visit`."""
        self.until = time.monotonic() + VISIT_SECONDS

    @property
    def has_asked(self) -> bool:
        return bool(self.reply) or self.visit is not None


class Visitors:
    """All of a host. Those who came first come first."""

    def __init__(self) -> None:
        self._all: dict[Visitor, None] = {}

    def __iter__(self) -> Iterator[Visitor]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, visitor: Visitor) -> bool:
        return visitor in self._all

    def add(self, visitor: Visitor) -> None:
        self._all[visitor] = None

    def remove(self, visitor: Visitor) -> None:
        self._all.pop(visitor, None)

    def in_the_way(self, number: int) -> Visitor | None:
        """Who has to leave before one from the port of this number comes in. None: there is room."""
        beside = [visitor for visitor in self._all if visitor.number == number]
        if len(beside) >= MOST_VISITORS_OF_A_PORT:
            return _first(beside)
        if len(self._all) < MOST_VISITORS:
            return None
        counts = Counter(visitor.whose for visitor in self._all)
        most = max(counts, key=lambda whose: counts[whose])
        return _first(visitor for visitor in self._all if visitor.whose == most)


def _first(visitors: Iterable[Visitor]) -> Visitor:
    """Of those the one who has been here for longest without a whole request; if all have asked, for longest."""
    return min(visitors, key=lambda visitor: visitor.has_asked)


def number_of(connection: socket.socket) -> int:
    """The port that a connection came from: the rules have set its mark to the port's number."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)


def project_in(documents: Mapping[str, bytes]) -> str | None:
    """The project of the guest that is told this. None: it does not say, whatever else it is."""
    try:
        said = json.loads(documents.get(META_DATA, b"{}"))
    except ValueError:
        return None
    project = said.get("project_id") if isinstance(said, dict) else None
    return project if isinstance(project, str) else None
