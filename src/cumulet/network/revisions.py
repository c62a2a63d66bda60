"""Conditional requests: ``If-Match: revision_number=N`` changes a resource only if nobody else has meanwhile."""

from __future__ import annotations

import re

from cumulet.errors import PreconditionFailed
from cumulet.network import refusals
from cumulet.web.operation import Call

_WANTED = re.compile(r'"?revision_number=([^"]*)"?', re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


def require(call: Call[object, object]) -> None:
    """412 unless the target has the revision that the request names. Reading is never refused."""
    wanted = _WANTED.fullmatch((call.headers.get("If-Match") or "").strip())
    current = getattr(call.target, "revision", None)
    if wanted is None or current is None or call.method in ("GET", "HEAD"):
        return
    if _NUMBER.fullmatch(wanted[1]) is None:
        raise refusals.bad("if-match", "the format is revision_number=<number>.")
    if int(wanted[1]) != current:
        raise PreconditionFailed(
            f"Constrained to {wanted[1]}, but current revision is {current}", reason="RevisionNumberConstraintFailed"
        )
