"""What Bells brings to a process."""

from __future__ import annotations

from cumulet.clock import Clock
from cumulet.db.engine import Database, metadata
from cumulet.part import CatalogEntry, Part
from cumulet.settings import Settings
from tests.bells.ring import RINGING
from tests.bells.service import BELLS, bells


def _mend(db: Database, settings: Settings, clock: Clock) -> None:
    """A service outside Cumulet's own migrations makes its table itself."""
    metadata.create_all(db.engine, tables=[bells])


BELLS_PART = Part(service=BELLS, catalog=CatalogEntry(name="bells", path="/bells/v1"), sagas=(RINGING,), mend=_mend)
