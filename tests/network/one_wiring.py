"""The wiring of one host, as the product reads it for many."""

from __future__ import annotations

from cumulet.db.engine import Tx
from cumulet.host.wiring import Wiring
from cumulet.network.router_wiring import RouterHosts
from cumulet.network.wiring import AddressesOf, with_groups, without_groups


def wiring(tx: Tx, host: str, addresses_of: AddressesOf, router_hosts: RouterHosts = tuple) -> Wiring:
    return with_groups(tx, without_groups(tx, [host], addresses_of, router_hosts))[host]
