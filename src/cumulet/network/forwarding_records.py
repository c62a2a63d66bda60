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


_NAMES = ("id", "protocol", "internal_port_id", "internal_ip_address")
_SIDES = ("external_first", "external_last", "internal_first", "internal_last")
SHOWN = tuple(port_forwardings.c[name] for name in (*_NAMES, *_SIDES))
"""The columns of `forwarding_view`. A floating IP may have many forwardings, and is shown with all of them."""


def forwarding_view(
    forwarding_id: object, protocol: object, port_id: object, address: object, *ports: object
) -> dict[str, object]:
    """A forwarding, as its floating IP shows it."""
    view = {"id": forwarding_id, "protocol": protocol, "internal_port_id": port_id, "internal_ip_address": address}
    return view | ports_view(*ports)


def ports_view(
    external_first: object, external_last: object, internal_first: object, internal_last: object
) -> dict[str, object]:
    """``external_port`` and ``internal_port``. As upstream, a range of several ports is not shown here."""
    view: dict[str, object] = {}
    if external_first == external_last:
        view["external_port"] = external_first
    if internal_first == internal_last:
        view["internal_port"] = internal_first
    return view
