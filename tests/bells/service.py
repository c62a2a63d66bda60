"""A service of somebody else's: bells hang on hosts, and can be rung."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.web.operation import Microversion, Service

BELLS = Service(name="bells", type="bell", prefix="/bells/v1", versions=(Microversion(1, 0), Microversion(1, 0)))

bells = sa.Table(
    "bells",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("rung", sa.Integer, nullable=False),
)
