"""Metering labels and their rules, as records."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.network.resource_columns import Resource, resource_columns

metering_labels = sa.Table(
    "metering_labels",
    metadata,
    *resource_columns(),
    sa.Column("shared", sa.Boolean, nullable=False),
)

metering_label_rules = sa.Table(
    "metering_label_rules",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("metering_label_id", sa.ForeignKey("metering_labels.id"), nullable=False, index=True),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("excluded", sa.Boolean, nullable=False),
    sa.Column("remote_ip_prefix", sa.String(64)),
    sa.Column("source_ip_prefix", sa.String(64)),
    sa.Column("destination_ip_prefix", sa.String(64)),
)
"""`project_id` is the label's."""


class MeteringLabel(Resource, frozen=True, kw_only=True):
    name: str
    shared: bool
    """It counts what the routers of all projects pass. Otherwise it counts only those of its own project."""


class MeteringRule(Resource, frozen=True, kw_only=True):
    metering_label_id: str
    direction: str
    excluded: bool
    remote_ip_prefix: str | None
    """The addresses inside: sources of what goes out, destinations of what comes in. Upstream's older attribute."""
    source_ip_prefix: str | None
    destination_ip_prefix: str | None
