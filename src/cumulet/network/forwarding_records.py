"""Port forwardings of floating IPs, as records."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.network.resource_columns import Resource, resource_columns

port_forwardings = sa.Table(
    "port_forwardings",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("floating_ip_id", sa.ForeignKey("floating_ips.id"), nullable=False, index=True),
    sa.Column("protocol", sa.String(8), nullable=False),
    sa.Column("internal_port_id", sa.ForeignKey("ports.id"), nullable=False, index=True),
    sa.Column("internal_ip_address", sa.String(64), nullable=False),
    sa.Column("internal_first", sa.Integer, nullable=False),
    sa.Column("internal_last", sa.Integer, nullable=False),
    sa.Column("external_first", sa.Integer, nullable=False),
    sa.Column("external_last", sa.Integer, nullable=False),
)
"""A floating IP with port forwardings has a `router_id` and no `port_id`."""


class PortForwarding(Resource, frozen=True, kw_only=True):
    floating_ip_id: str
    protocol: str
    internal_port_id: str
    internal_ip_address: str
    internal_first: int
    internal_last: int
    external_first: int
    external_last: int


def forwarding_view(forwarding: PortForwarding) -> dict[str, object]:
    """A forwarding, as its floating IP shows it."""
    return {
        "id": forwarding.id,
        "protocol": forwarding.protocol,
        "internal_port_id": forwarding.internal_port_id,
        "internal_ip_address": forwarding.internal_ip_address,
    } | ports_view(forwarding)


def ports_view(forwarding: PortForwarding) -> dict[str, object]:
    """``external_port`` and ``internal_port``. As upstream, a range of several ports is not shown here."""
    view: dict[str, object] = {}
    for name, first, last in (
        ("external_port", forwarding.external_first, forwarding.external_last),
        ("internal_port", forwarding.internal_first, forwarding.internal_last),
    ):
        if first == last:
            view[name] = first
    return view
