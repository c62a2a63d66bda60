"""What the saga of a live migration remembers: its steps read it, and so does `post_copy.py`."""

from __future__ import annotations

from cumulet.compute.moves import Moving
from cumulet.host.driver import GuestState, MigrationProgress
from cumulet.host.endpoint import Endpoint


class LiveMigration(Moving, frozen=True, kw_only=True):
    """State of the saga, saved after every step."""

    endpoint: Endpoint | None = None
    progress: MigrationProgress | None = None
    source_seen: GuestState | None = None
    """The guest's state at the source at the end of an unwinding, if it did not run there."""
    post_copy: bool = False
    """Both hosts can do post-copy: if completion is forced, memory may follow after the commit."""
    rest_follows: bool = False
    """Post-copy is used: at the commit a part of the memory is still at the source."""
    memory_lost: str | None = None
    """Why the guest was booted from its disk, if it was."""
