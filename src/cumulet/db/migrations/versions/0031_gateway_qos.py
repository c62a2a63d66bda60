"""The QoS policy of a router's gateway."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One column."""
    with op.batch_alter_table("routers") as batch:
        batch.add_column(sa.Column("qos_policy_id", sa.String(36)))
        batch.create_foreign_key("fk_routers_qos_policy_id_qos_policies", "qos_policies", ["qos_policy_id"], ["id"])
    op.create_index("ix_routers_qos_policy_id", "routers", ["qos_policy_id"])
