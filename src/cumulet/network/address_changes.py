"""How a change of a port's addresses is done, by Neutron's rules: which stay, which are added, which go."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.network import addresses, port_life, refusals
from cumulet.network.addresses import FixedIp
from cumulet.network.device_owners import ROUTER_INTERFACE
from cumulet.network.forwarding_records import port_forwardings
from cumulet.network.store import Port, Router, floating_ips, get


def change(tx: Tx, port: Port, mac: str, wanted: Sequence[FixedIp] | None, dropped: frozenset[str]) -> bool:
    """Give the port the wanted addresses (None: those it has), with this MAC address. True if its addresses change.

    A wanted address that the port has stays. An address in an automatically addressed subnet stays also where it is not
    wanted, until its subnet is in `dropped`; it follows the MAC address.
    """
    held = addresses.of_port(tx, port.id)
    subnets = addresses.usable_subnets(tx, port.network_id, port.device_owner)
    by_itself = port.device_owner != ROUTER_INTERFACE
    automatic = {subnet.id for subnet in subnets if by_itself and addresses.is_auto_addressed(subnet)}
    if wanted is None:
        wanted = held
    kept: list[FixedIp] = []
    missing: list[FixedIp] = []
    for want in sorted(wanted, key=lambda want: want.address is None):
        match = next((h for h in held if h not in kept and _satisfies(h, want)), None)
        if match is not None:
            kept.append(match)
        elif want.address is not None or want.subnet_id not in automatic:
            missing.append(want)
    kept += [h for h in held if h not in kept and h.subnet_id in automatic]
    gone = [h for h in held if h not in kept or h.subnet_id in dropped or _is_of_old_mac(h, automatic, port, mac)]
    kept = [h for h in kept if h not in gone]
    missing = [want for want in missing if want.subnet_id not in dropped]
    _refuse_what_is_in_use(tx, port, gone, missing)
    addresses.give_back(tx, port.id, [h.address for h in gone if h.address is not None])
    if gone:
        forwards = port_forwardings.c.internal_ip_address.in_([h.address for h in gone])
        port_life.stop_forwarding(tx, sa.and_(port_forwardings.c.internal_port_id == port.id, forwards))
    added = addresses.claim_more(
        tx,
        port_id=port.id,
        network_id=port.network_id,
        mac=mac,
        device_owner=port.device_owner,
        wanted=missing,
        present=kept,
        without=dropped,
    )
    return bool(gone or added)


def _satisfies(held: FixedIp, want: FixedIp) -> bool:
    return want.address in (None, held.address) and want.subnet_id in (None, held.subnet_id)


def _is_of_old_mac(held: FixedIp, automatic: set[str], port: Port, mac: str) -> bool:
    return mac != port.mac_address and held.subnet_id in automatic


def _refuse_what_is_in_use(tx: Tx, port: Port, gone: Sequence[FixedIp], added: Sequence[FixedIp]) -> None:
    leading = sa.select(floating_ips.c.id).where(
        floating_ips.c.port_id == port.id, floating_ips.c.fixed_ip_address.in_([h.address for h in gone])
    )
    if gone and tx.first(leading) is not None:
        raise refusals.bad(
            "port",
            f"Cannot update the fixed_ips of the port {port.id}, because its original fixed_ip has been associated "
            "to a floating ip.",
        )
    if port.device_owner == ROUTER_INTERFACE and get(tx, Router, port.device_id) is not None:
        changed = [fixed.address for fixed in (*gone, *added)]
        if any(address is None or addresses.parse(address).version == 4 for address in changed):
            raise refusals.bad("ports", f"IP updates for port {port.id} are not allowed.")
