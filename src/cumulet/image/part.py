"""What Image brings to a process."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.clock import Clock
from cumulet.conductor.conductor import Surroundings
from cumulet.db.engine import Database
from cumulet.image import builtin, conversion, left_data, metadef_catalog, tiny
from cumulet.image.importing import IMAGE_IMPORT
from cumulet.image.left_data import LeftData
from cumulet.image.service import IMAGE
from cumulet.part import CatalogEntry, FirstStart, Part, declare_all
from cumulet.periodic import Reconciler
from cumulet.settings import Settings

declare_all("cumulet.image")


def _mend(db: Database, settings: Settings, clock: Clock) -> None:
    if db.embedded:
        left_data.clear_alone(db, settings.state_dir, clock.now_us())


def _reconcilers(around: Surroundings) -> Sequence[Reconciler]:
    return (LeftData(db=around.db, clock=around.clock, settings=around.settings),)


def _seed(start: FirstStart) -> None:
    """Metadata definitions, and the public image `cumulet-tiny`: where nothing boots, a placeholder of its name."""
    metadef_catalog.load(start.db, start.clock)
    if start.boots and tiny.available() is not None:
        return
    source = tiny.build() if start.boots else None
    builtin.add_builtin_image(
        start.db, start.clock, start.settings.state_dir, name="cumulet-tiny", owner=None, source=source
    )


IMAGE_PART = Part(
    service=IMAGE,
    catalog=CatalogEntry(name="glance", path="/image"),
    sagas=(IMAGE_IMPORT,),
    reconcilers=_reconcilers,
    require=conversion.require,
    mend=_mend,
    seed=_seed,
)
