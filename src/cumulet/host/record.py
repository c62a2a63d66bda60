"""What a message between control plane and host is made of."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message: encoded as JSON between processes, handed over as it is inside one."""
