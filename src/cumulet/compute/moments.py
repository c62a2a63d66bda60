"""Times in queries: changes since a moment, and before one."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.clock import us_of
from cumulet.errors import BadRequest


def changed_between(
    updated_us: sa.ColumnElement[int], since: str | None, before: str | None
) -> list[sa.ColumnElement[bool]]:
    """Conditions for `changes-since` and `changes-before`, each if it is given; both moments are included.

    BadRequest for what is no time, and where `before` is earlier than `since`.
    """
    since_us = None if since is None else moment_us(since)
    before_us = None if before is None else moment_us(before)
    if since_us is not None and before_us is not None and before_us < since_us:
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
    conditions: list[sa.ColumnElement[bool]] = []
    if since_us is not None:
        conditions.append(updated_us >= since_us)
    if before_us is not None:
        # Times are shown without fractions: a row is found by the second that it shows.
        conditions.append(updated_us < (before_us // 1_000_000 + 1) * 1_000_000)
    return conditions


def moment_us(text: str) -> int:
    """Microseconds of an ISO 8601 time, UTC if it names no zone. BadRequest for what is none."""
    try:
        return us_of(text)
    except ValueError:
        raise BadRequest(f"Invalid time: {text}") from None
