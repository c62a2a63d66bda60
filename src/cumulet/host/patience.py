"""How long work on much data may take: a host gives up then. Who told it to waits longer, as long as the host is there.

So an image of any size can be booted, and work that hangs ends.
"""

from __future__ import annotations

from cumulet.host.driver import Guest

WORK_SECONDS = 600.0
"""For any such work, whatever its size."""
LEAST_BYTES_PER_SECOND = 8 << 20
"""What a host that works fetches, reads or writes at least."""
LONGEST_WORK_SECONDS = 12 * 3600.0


def seconds_for(size: int) -> float:
    """For work on `size` bytes."""
    return min(WORK_SECONDS + size / LEAST_BYTES_PER_SECOND, LONGEST_WORK_SECONDS)


def seconds_to_make(guest: Guest) -> float:
    """To fetch its image, and to make a disk from that."""
    image = guest.image
    return seconds_for(0 if image is None else image.size_bytes + image.virtual_size_bytes)
