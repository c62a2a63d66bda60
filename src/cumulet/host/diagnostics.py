"""What a guest has used since its process began, as its host counts it: the answer to `messages.Diagnostics`."""

from __future__ import annotations

from cumulet.host.record import Record


class DiskCounters(Record, frozen=True):
    """`errors`: requests that failed."""

    read_bytes: int
    read_requests: int
    write_bytes: int
    write_requests: int
    errors: int


class GuestCounters(Record, frozen=True):
    """Empty, or None: this host does not count it."""

    cpu_times_ns: tuple[int, ...] = ()
    """Of each virtual processor, how long it ran."""
    disks: tuple[DiskCounters, ...] = ()
    """In the order in which the guest finds them."""
    resident_kib: int | None = None
    """What its process holds of the host's memory."""
