"""What ports show of the trunks they are in, and what they may not do meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network import trunk_ports
from cumulet.network.many import find_many
from cumulet.network.resource import View
from cumulet.network.store import Port, find_by
from cumulet.network.trunk_records import VLAN, Subport, Trunk


def view(subport: Subport) -> View:
    return {
        "port_id": subport.port_id,
        "segmentation_type": VLAN,
        "segmentation_id": subport.segmentation_id,
    }


def of(tx: Tx, trunk_id: str) -> list[Subport]:
    """The subports of a trunk, in the order of their tags."""
    return sorted(find_by(tx, Subport, trunk_id=trunk_id), key=lambda one: one.segmentation_id)


def of_trunks(tx: Tx, trunk_ids: Sequence[str]) -> dict[str, list[Subport]]:
    """The subports of many trunks."""
    found: dict[str, list[Subport]] = {}
    for subport in sorted(find_many(tx, Subport, "trunk_id", trunk_ids), key=lambda one: one.segmentation_id):
        found.setdefault(subport.trunk_id, []).append(subport)
    return found


def refuse_subport(tx: Tx, port: Port) -> None:
    """409 for what a port cannot have or lose while it is in a trunk."""
    for subport in find_by(tx, Subport, port_id=port.id):
        raise Conflict(
            f"Port {port.id} is currently a subport for trunk {subport.trunk_id}.", reason="PortInUseAsSubPort"
        )


def refuse_end(tx: Tx, port: Port) -> None:
    """409 for the deletion of a port that is in a trunk."""
    refuse_subport(tx, port)
    trunk_id = trunk_ports.trunk_of_parent(tx, port.id)
    if trunk_id is not None:
        raise Conflict(
            f"Port {port.id} is currently a parent port for trunk {trunk_id}.", reason="PortInUseAsTrunkParent"
        )


def details(tx: Tx, records: Sequence[Port]) -> dict[str, View]:
    """`trunk_details` of those of these ports that are parents, by port."""
    found = {trunk.id: trunk for trunk in find_many(tx, Trunk, "port_id", {port.id for port in records})}
    members = of_trunks(tx, list(found))
    ids = {one.port_id for of_one in members.values() for one in of_one}
    macs = {port.id: port.mac_address for port in find_many(tx, Port, "id", ids)}
    return {
        trunk.port_id: {
            "trunk_id": trunk.id,
            "sub_ports": [view(one) | {"mac_address": macs[one.port_id]} for one in members.get(trunk.id, ())],
        }
        for trunk in found.values()
    }


def refuse_rebinding(tx: Tx, port: Port) -> None:
    """409 for a change of a subport's binding: it is where its parent is."""
    for carrier in trunk_ports.carriers(tx, [port.id]).values():
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. It is a subport, and bound "
            f"with port {carrier.parent_id}.",
            reason="PortInUse",
        )
