"""What becomes of a packet from one port to another, hop by hop, by the same rules that hosts enforce.

Each hop is a host's decision: the sender's says whether the packet may leave, the receiver's whether it may come in. It
is about the first packet of a connection, between two ports of one network; routers are not followed.
"""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.db.engine import Tx
from cumulet.host.record import Record
from cumulet.host.verdict import ICMP, ICMP6, TCP, UDP, Packet, Verdict, decide
from cumulet.network import addresses, bindings
from cumulet.network.store import Port, find_by
from cumulet.network.wiring import wiring

PROTOCOLS = {"icmp": ICMP, "tcp": TCP, "udp": UDP}
CLIENT_PORT = 40_000
ECHO_REQUEST = {4: 8, 6: 128}


class Hop(Record, frozen=True):
    """What is decided at one place. `host` is empty where no host was asked."""

    host: str
    port_id: str
    verdict: Verdict


class Path(Record, frozen=True):
    """True where the packet arrives. `reason` and `rule` are of its last hop: the one that stopped it, or let it in."""

    hops: tuple[Hop, ...]

    def __bool__(self) -> bool:
        return self.hops[-1].verdict.passes

    @property
    def reason(self) -> str:
        return self.hops[-1].verdict.reason

    @property
    def rule(self) -> str | None:
        """The security group's rule that let it in."""
        return self.hops[-1].verdict.rule


def path(
    tx: Tx, host_addresses: Mapping[str, str], sender_id: str, receiver_id: str, protocol: str, port: int | None
) -> Path:
    """From one port to another. `protocol`: ``tcp``, ``udp`` or ``icmp``; `port` is the receiver's, of tcp and udp.

    KeyError for a port or a protocol that there is not; ValueError where tcp or udp has no port.
    """
    number = PROTOCOLS[protocol]
    if number != ICMP and port is None:
        raise ValueError(f"{protocol} needs a port")
    sender, receiver = _port(tx, sender_id), _port(tx, receiver_id)
    if sender.network_id != receiver.network_id:
        return _stopped(sender, "other-network: routers are not followed")
    packet = _packet(tx, sender, receiver, number, port)
    if packet is None:
        return _stopped(sender, "no address of the same version")
    hops: list[Hop] = []
    for place, sends, receives in ((sender, sender.id, None), (receiver, None, receiver.id)):
        host = bindings.of_ports(tx, [place.id])[place.id][0].host
        if host == bindings.UNBOUND:
            return _stopped(place, "plugged-in-nowhere", *hops)
        verdict = decide(wiring(tx, host, host_addresses), packet, sender=sends, receiver=receives)
        hops.append(Hop(host=host, port_id=place.id, verdict=verdict))
        if not verdict.passes:
            break
    return Path(hops=tuple(hops))


def _port(tx: Tx, port_id: str) -> Port:
    found = find_by(tx, Port, id=port_id)
    if not found:
        raise KeyError(port_id)
    return found[0]


def _packet(tx: Tx, sender: Port, receiver: Port, protocol: int, port: int | None) -> Packet | None:
    held = addresses.held_by(tx, [sender.id, receiver.id])
    for source in held.get(sender.id, ()):
        for destination in held.get(receiver.id, ()):
            if source.address is None or destination.address is None:
                continue
            version = 6 if ":" in source.address else 4
            if version != (6 if ":" in destination.address else 4):
                continue
            echo = protocol == ICMP
            return Packet(
                mac=sender.mac_address,
                source=source.address,
                destination=destination.address,
                protocol=ICMP6 if echo and version == 6 else protocol,
                source_port=ECHO_REQUEST[version] if echo else CLIENT_PORT,
                destination_port=0 if echo else port,
            )
    return None


def _stopped(place: Port, reason: str, *before: Hop) -> Path:
    stop = Hop(host="", port_id=place.id, verdict=Verdict(passes=False, reason=reason))
    return Path(hops=(*before, stop))
