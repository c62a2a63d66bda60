"""What a message between control plane and host is made of."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A message: encoded as JSON between processes, handed over as it is inside one.

    A field that is added later has a default that means what was true before it, and defaults are not sent. So an
    agent of the version before understands each message that does not use the new field, and refuses those that do.
    A record is made of what was there before it, so it is part of no circle, and the garbage collector, which would
    look at the thousands of a wiring again and again, passes it by.
    """


NOT_UNDERSTOOD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes from elsewhere: no JSON or of another shape, no UTF-8 in a text, nested too deeply."""
