"""What `network_data.json` of a server says, from the records."""

from __future__ import annotations

from cumulet.db.engine import Tx
from cumulet.host.network_data import ToldPort
from cumulet.host.network_data import network_data as told_of
from cumulet.network.for_compute import ports_of
from cumulet.network.store import Subnet, find, subnets
from cumulet.network.wiring import told_subnet


def network_data(tx: Tx, server_id: str) -> dict[str, object]:
    """As `cumulet.host.network_data.network_data`."""
    ports = ports_of(tx, [server_id]).get(server_id, [])
    wanted = {address.subnet_id for port in ports for address in port.addresses}
    found = find(tx, Subnet, subnets.c.id.in_(sorted(wanted))) if wanted else []
    known = {subnet.id: told_subnet(subnet, None) for subnet in found}
    return told_of(
        [
            ToldPort(
                id=port.id,
                network_id=port.network_id,
                mac=port.mac,
                mtu=port.mtu,
                addresses=tuple((address.address, known[address.subnet_id]) for address in port.addresses),
            )
            for port in ports
        ]
    )
