"""Tokens of console addresses say what they are for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Processes of the version before go on to write tokens, which are all of serial consoles, without a protocol."""
    op.add_column("console_tokens", sa.Column("protocol", sa.String(16), nullable=False, server_default="serial"))
