"""What a host's metadata service tells a guest that has changed since its description was frozen, and what it hears."""

from __future__ import annotations

from typing import Protocol

from cumulet.host.record import Record

LIVE_METADATA = "live-metadata"
"""Of `HostFacts.features`: its metadata service can be told what has changed, and takes a password."""
META_DATA = "meta_data.json"
EC2 = "ec2/meta-data.json"
"""The document of which EC2's tree of `meta-data` is made; no path of OpenStack's."""
PASSWORD = "password"  # noqa: S105 - the name of a document
MOST_PASSWORD_CHARACTERS = 1020
"""As Nova's: four values of 255 (nova/api/metadata/password.py)."""


class Told(Record, frozen=True):
    """Documents by the names that the metadata service has for them; the others stay as they were frozen.

    `taken`: the id of the last posted password that is on record, be it cleared since.
    """

    revision: int
    documents: dict[str, bytes]
    taken: str = ""

    def __repr__(self) -> str:
        return f"Told(revision={self.revision})"


class Posted(Record, frozen=True):
    """A password that a guest has encrypted and posted. `id` is new with each."""

    id: str
    content: str

    def __repr__(self) -> str:
        return f"Posted(id={self.id!r})"


class Heard(Record, frozen=True):
    """The answer of a host that is told. `revision`: the one it was told, or, if that is not later than another that it
    knows, the first that would be: then nothing has changed. 0: it has no such guest. `posted`: what waits to be
    recorded."""

    revision: int
    posted: Posted | None = None


class Telling(Protocol):
    """What a guest is told of its server by the metadata service of its host."""

    async def tell(self, server_id: str, told: Told) -> Heard:
        """Tell it from now on. Kept with the guest for as long as it is on this host."""
        ...


def is_late(known: Told | None, told: Told) -> bool:
    """Whether something else was told with this revision or a later one."""
    return known is not None and known != told and known.revision >= told.revision


def without(posted: Posted | None, told: Told) -> Posted | None:
    """What waits to be recorded after a host was told."""
    return None if posted is None or posted.id == told.taken else posted
