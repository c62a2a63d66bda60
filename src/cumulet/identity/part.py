"""What Identity brings to a process."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.conductor.conductor import Surroundings
from cumulet.identity.api import IDENTITY
from cumulet.identity.expired import Expired
from cumulet.identity.key_rotation import rotate_keys
from cumulet.part import CatalogEntry, Part, declare_all
from cumulet.periodic import Reconciler

declare_all("cumulet.identity")


def _reconcilers(around: Surroundings) -> Sequence[Reconciler]:
    return (Expired(db=around.db, clock=around.clock),)


IDENTITY_PART = Part(
    service=IDENTITY,
    mend=rotate_keys,
    reconcilers=_reconcilers,
    catalog=CatalogEntry(name="keystone", path="/identity", interfaces=("public", "internal", "admin")),
)
