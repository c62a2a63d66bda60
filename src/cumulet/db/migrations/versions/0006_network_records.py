"""Routers say whether they are highly available; a port's address may have one floating IP of each external network."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No router was; what was unique stays unique."""
    with op.batch_alter_table("routers") as batch:
        batch.add_column(sa.Column("ha", sa.Boolean, nullable=False, server_default=sa.false()))
    with op.batch_alter_table("routers") as batch:
        batch.alter_column("ha", server_default=None)
    with op.batch_alter_table("floating_ips") as batch:
        batch.drop_constraint("uq_floating_ips_port_id", type_="unique")
        batch.create_unique_constraint(
            "uq_floating_ips_port_id", ["port_id", "fixed_ip_address", "floating_network_id"]
        )
