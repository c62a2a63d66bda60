"""Where a prepared destination listens, and how the two ends of a move authenticate each other."""

from __future__ import annotations

from cumulet.host.record import Record


class Peer(Record, frozen=True):
    """What the control plane, which both ends trust, tells one end of a move about the other. It is not secret."""

    host: str
    move: str
    """The move's id. The names in the certificates contain it."""
    authority: str
    """PEM: the certificate of the authority that this end has made for the move. No other is trusted in the move."""


class Endpoint(Record, frozen=True):
    """Where a prepared destination listens, with TLS only, for the one peer of its preparation."""

    address: str
    port: int
    nbd_port: int | None
    peer: Peer
    """The destination, as the source must find it."""
