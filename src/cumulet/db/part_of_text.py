"""A condition on a part of a text, as long as a caller likes."""

from __future__ import annotations

import sqlalchemy as sa

LONGEST_PART = 1024
"""Characters: no text that is looked for by a part is longer. SQLite takes 50,000 bytes, and fails for more."""


def has_part(column: sa.ColumnElement[str], part: str) -> sa.ColumnElement[bool]:
    """Whether `part` occurs in the column's text."""
    return sa.false() if len(part) > LONGEST_PART else column.contains(part, autoescape=True)
