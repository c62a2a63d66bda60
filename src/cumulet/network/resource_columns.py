"""What every resource of Network has: columns, and fields of its record."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import sqlalchemy as sa

LONGEST_PROJECT_ID = 64
"""Characters: PostgreSQL takes no more in this column."""


def resource_columns(*, but: Collection[str] = ()) -> tuple[sa.Column[Any], ...]:
    """What every API resource has. `but`: columns that this kind has not, or has otherwise."""
    found: tuple[sa.Column[Any], ...] = (
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(LONGEST_PROJECT_ID), nullable=False, index=True),
        sa.Column("name", sa.String(255), nullable=False, default=""),
        sa.Column("description", sa.String(255), nullable=False, default=""),
        sa.Column("revision", sa.Integer, nullable=False, default=0),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    )
    return tuple(column for column in found if column.name not in but)


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What every API resource has."""

    id: str
    project_id: str
    description: str
    revision: int
    created_at_us: int
    updated_at_us: int
