"""QoS policies and their rules, as records."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.db.partial_index import unique_where
from cumulet.network.resource_columns import Resource, resource_columns

qos_policies = sa.Table(
    "qos_policies",
    metadata,
    *resource_columns(),
    sa.Column("is_default", sa.Boolean, nullable=False),
)
unique_where(qos_policies, "ix_qos_policies_default", "project_id", where="is_default")

bandwidth_limits = sa.Table(
    "qos_bandwidth_limits",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("policy_id", sa.ForeignKey("qos_policies.id"), nullable=False),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("max_kbps", sa.Integer, nullable=False),
    sa.Column("max_burst_kbps", sa.Integer, nullable=False),
    sa.UniqueConstraint("policy_id", "direction"),
)
"""Of each direction one. `project_id` is that of the policy."""

dscp_marks = sa.Table(
    "qos_dscp_marks",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("policy_id", sa.ForeignKey("qos_policies.id"), nullable=False, unique=True),
    sa.Column("dscp_mark", sa.Integer, nullable=False),
)
"""Of a policy one. `project_id` is that of the policy."""


minimum_bandwidths = sa.Table(
    "qos_minimum_bandwidths",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("policy_id", sa.ForeignKey("qos_policies.id"), nullable=False),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("min_kbps", sa.Integer, nullable=False),
    sa.UniqueConstraint("policy_id", "direction"),
)

minimum_packet_rates = sa.Table(
    "qos_minimum_packet_rates",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("policy_id", sa.ForeignKey("qos_policies.id"), nullable=False),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("min_kpps", sa.Integer, nullable=False),
    sa.UniqueConstraint("policy_id", "direction"),
)


class QosPolicy(Resource, frozen=True, kw_only=True):
    name: str
    is_default: bool


class QosRule(Resource, frozen=True, kw_only=True):
    policy_id: str


class BandwidthLimit(QosRule, frozen=True, kw_only=True):
    direction: str
    max_kbps: int
    """In thousands of bits a second. 0: no limit."""
    max_burst_kbps: int
    """In thousands of bits. 0: as the host sees fit."""


class DscpMark(QosRule, frozen=True, kw_only=True):
    dscp_mark: int
    """The six bits that packets of a guest leave with (RFC 2474)."""


class MinimumBandwidth(QosRule, frozen=True, kw_only=True):
    direction: str
    min_kbps: int
    """In thousands of bits a second."""


class MinimumPacketRate(QosRule, frozen=True, kw_only=True):
    direction: str
    """``any``: both together."""
    min_kpps: int
    """In thousands of packets a second."""


QOS_TABLES: Mapping[type[Resource], sa.Table] = {
    QosPolicy: qos_policies,
    BandwidthLimit: bandwidth_limits,
    DscpMark: dscp_marks,
    MinimumBandwidth: minimum_bandwidths,
    MinimumPacketRate: minimum_packet_rates,
}
