"""What a message between control plane and host is made of."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A message: encoded as JSON between processes, handed over as it is inside one.

    A field that comes later has a default that means what was before it, and a default is not sent: so an agent of the
    version before understands all that it is asked, but for what only later ones can do, which it refuses.
    """
