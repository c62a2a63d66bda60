"""What an image's upload may still bring is part of its project's quota."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column; uploads under way end with the process, so there is nothing to fill in."""
    op.add_column("images", sa.Column("upload_bytes", sa.BigInteger))
