"""Where a prepared destination is found, and how the two ends of a move know each other."""

from __future__ import annotations

from cumulet.host.record import Record


class Peer(Record, frozen=True):
    """What one end of a move is told of the other by the control plane, which both trust. Nothing in it is secret."""

    host: str
    move: str
    """The move's id: the names in the certificates are made of it."""
    authority: str
    """PEM: the certificate of the authority that the end has made for this move, and no other is trusted in it."""


class Endpoint(Record, frozen=True):
    """Where a prepared destination listens: only for the peer named when it was prepared, only with TLS."""

    address: str
    port: int
    nbd_port: int | None
    peer: Peer
    """Whom the source must find there."""
