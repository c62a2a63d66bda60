"""What Identity brings to a process."""

from __future__ import annotations

from cumulet.identity.api import IDENTITY
from cumulet.identity.credential_store import rotate_keys
from cumulet.part import CatalogEntry, Part, declare_all

declare_all("cumulet.identity")

IDENTITY_PART = Part(
    service=IDENTITY,
    mend=rotate_keys,
    catalog=CatalogEntry(name="keystone", path="/identity", interfaces=("public", "internal", "admin")),
)
