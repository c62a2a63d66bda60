"""IPAM: the addresses of subnets, which of them are free, and which port holds which."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.errors import BadRequest, Conflict
from cumulet.network import refusals
from cumulet.network.device_owners import OF_ROUTERS, ROUTER_INTERFACE
from cumulet.network.store import Subnet, find_by, inserting, port_addresses

Address = IPv4Address | IPv6Address
AddressRange = IPv4Network | IPv6Network

AUTO_ADDRESS_MODES = frozenset({"slaac", "dhcpv6-stateless"})


class FixedIp(msgspec.Struct, frozen=True, kw_only=True):
    """An address that is wanted, or held. A request names the subnet, the address or both."""

    subnet_id: str | None = None
    address: str | None = None


def parse(text: str) -> Address:
    """An address already known to be well-formed."""
    return ip_address(text)


@functools.lru_cache(4096)
def range_of(cidr: str) -> AddressRange:
    """A range already known to be well-formed. Those of subnets are read again and again."""
    return ip_network(cidr)


def number(address: Address | str) -> str:
    """The address as 32 hex digits."""
    return f"{int(ip_address(address)):032x}"


def address_of(hex_number: str, ip_version: int) -> str:
    value = int(hex_number, 16)
    return str(IPv4Address(value) if ip_version == 4 else IPv6Address(value))


def overlap(one: AddressRange, other: AddressRange) -> bool:
    """Whether two ranges have an address in common. Ranges of different versions of IP have none."""
    return one.version == other.version and one.overlaps(other)


def for_hosts(cidr: AddressRange) -> tuple[int, int]:
    """First and last address for hosts, as numbers: without network and broadcast address, in IPv6 without anycast."""
    first, last = int(cidr.network_address), int(cidr.broadcast_address)
    if cidr.version == 6:
        return first + 1, last
    return (first + 1, last - 1) if cidr.prefixlen <= 30 else (first, last)


def default_pools(cidr: AddressRange, gateway: Address | None) -> list[dict[str, str]]:
    """All addresses of `cidr` for hosts, without the gateway. A range of one address has a pool of that address."""
    make = IPv4Address if cidr.version == 4 else IPv6Address
    if cidr.num_addresses == 1:
        return [{"start": str(cidr.network_address), "end": str(cidr.network_address)}]
    first, last = for_hosts(cidr)
    pieces = [(first, last)]
    if gateway is not None and first <= int(gateway) <= last:
        pieces = [(first, int(gateway) - 1), (int(gateway) + 1, last)]
    return [{"start": str(make(start)), "end": str(make(end))} for start, end in pieces if start <= end]


def eui64_address(cidr: str, mac: str) -> str:
    """As text: see `_eui64`."""
    return str(_eui64(cidr, mac))


def _eui64(cidr: str, mac: str) -> IPv6Address:
    """The address a guest gives itself in a prefix announced for autoconfiguration (RFC 4291, appendix A)."""
    digits = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([digits[0] ^ 0x02]) + digits[1:3] + b"\xff\xfe" + digits[3:]
    return IPv6Address(int(range_of(cidr).network_address) | int.from_bytes(interface, "big"))


def is_auto_addressed(subnet: Subnet) -> bool:
    return subnet.ip_version == 6 and subnet.ipv6_address_mode in AUTO_ADDRESS_MODES


_HELD, _FOLLOWING = port_addresses.alias("held"), port_addresses.alias("following")
_IS_TAKEN = sa.select(port_addresses.c.number).where(
    port_addresses.c.subnet_id == sa.bindparam("subnet_id"), port_addresses.c.number == sa.bindparam("start")
)
# The lowest successor of a held address that is not held itself. An index has this order, so the first match is enough.
_FIRST_GAP = (
    sa.select(_HELD.c.successor)
    .where(
        _HELD.c.subnet_id == sa.bindparam("subnet_id"),
        _HELD.c.successor.between(sa.bindparam("start"), sa.bindparam("end")),
        ~sa.exists().where(_FOLLOWING.c.subnet_id == _HELD.c.subnet_id, _FOLLOWING.c.number == _HELD.c.successor),
    )
    .order_by(_HELD.c.successor)
    .limit(1)
)


def lowest_free(tx: Tx, subnet: Subnet) -> str | None:
    """The lowest address of the subnet's pools that nobody holds."""
    for pool in subnet.allocation_pools:
        start = {"subnet_id": subnet.id, "start": number(pool["start"])}
        found: str | None = start["start"]
        if tx.first(_IS_TAKEN, start) is not None:
            found = tx.scalar(_FIRST_GAP, start | {"end": number(pool["end"])})
        if found is not None:
            return address_of(found, subnet.ip_version)
    return None


_HOLDER = sa.select(port_addresses.c.port_id).where(
    port_addresses.c.network_id == sa.bindparam("network_id"), port_addresses.c.address == sa.bindparam("address")
)
_HELD_OF = sa.select(port_addresses.c.address).where(
    port_addresses.c.network_id == sa.bindparam("network_id"),
    port_addresses.c.address.in_(sa.bindparam("of_addresses", expanding=True)),
)


def is_held(tx: Tx, network_id: str, address: str) -> bool:
    return tx.execute(_HOLDER, {"network_id": network_id, "address": address}).first() is not None


def usable_subnets(tx: Tx, network_id: str, device_owner: str) -> list[Subnet]:
    """The network's subnets in the order they were made, without those reserved for other kinds of device."""
    return _usable(subnets_of(tx, network_id), device_owner)


def subnets_of(tx: Tx, network_id: str) -> list[Subnet]:
    """All subnets of the network in the order they were made."""
    found = find_by(tx, Subnet, network_id=network_id)
    found.sort(key=lambda subnet: (subnet.created_at_us, subnet.id))
    return found


def _usable(subnets: Iterable[Subnet], device_owner: str) -> list[Subnet]:
    return [
        subnet
        for subnet in subnets
        if not subnet.service_types or any(device_owner.startswith(kind) for kind in subnet.service_types)
    ]


def claim(
    tx: Tx,
    *,
    port_id: str,
    network_id: str,
    mac: str,
    device_owner: str,
    wanted: Sequence[FixedIp] | None,
    subnets: Sequence[Subnet] | None = None,
) -> list[FixedIp]:
    """Give a new port addresses: the wanted ones, or (None) one of each IP version the network has subnets of.

    In automatically addressed subnets every port but a router's has an address, wanted or not. A network without
    subnets gives none. Raises 409 where a pool is exhausted or an address is held, 400 where an address or a subnet
    does not fit the network. `subnets`: all of the network's, if they are known already.
    """
    usable = _usable(subnets_of(tx, network_id) if subnets is None else subnets, device_owner)
    if wanted is None:
        claimed = _claim_any(tx, port_id, usable)
        return claimed + _claim_automatic(tx, port_id, mac, device_owner, usable, claimed)
    return claim_more(
        tx,
        port_id=port_id,
        network_id=network_id,
        mac=mac,
        device_owner=device_owner,
        wanted=wanted,
        present=(),
        subnets=usable,
    )


def claim_more(
    tx: Tx,
    *,
    port_id: str,
    network_id: str,
    mac: str,
    device_owner: str,
    wanted: Sequence[FixedIp],
    present: Sequence[FixedIp],
    without: frozenset[str] = frozenset(),
    subnets: Sequence[Subnet] | None = None,
) -> list[FixedIp]:
    """Give a port more addresses: the wanted ones, and its automatic ones except in the subnets `without`. `subnets`:
    those that it can use, if they are known already."""
    if subnets is None:
        subnets = usable_subnets(tx, network_id, device_owner)
    if wanted and not subnets:
        raise refusals.invalid("IP allocation requires subnets for network.")
    # Named addresses first, so that "any of this subnet" cannot take one that the same request names.
    ordered = sorted(wanted, key=lambda want: want.address is None)
    claimed: list[FixedIp] = []
    for want in ordered:
        found = _claim_one(tx, port_id, network_id, mac, device_owner, subnets, want)
        claimed += [found] if found is not None else []
    automatic = [subnet for subnet in subnets if subnet.id not in without]
    return claimed + _claim_automatic(tx, port_id, mac, device_owner, automatic, [*present, *claimed])


def _claim_any(tx: Tx, port_id: str, candidates: Iterable[Subnet]) -> list[FixedIp]:
    claimed: list[FixedIp] = []
    for version in (4, 6):
        of_version = [s for s in candidates if s.ip_version == version and not is_auto_addressed(s)]
        for subnet in of_version:
            address = lowest_free(tx, subnet)
            if address is not None:
                claimed.append(hold(tx, port_id, subnet, address))
                break
        else:
            if of_version:
                raise Conflict(
                    f"No more IP addresses available on network {of_version[0].network_id}.",
                    reason="IpAddressGenerationFailure",
                )
    return claimed


def _claim_automatic(
    tx: Tx, port_id: str, mac: str, device_owner: str, subnets: Iterable[Subnet], present: Sequence[FixedIp]
) -> list[FixedIp]:
    """Record the addresses that a guest gives itself, in subnets where the port has none. Not for a router's port."""
    served = {fixed.subnet_id for fixed in present}
    missing = [s for s in subnets if is_auto_addressed(s) and s.id not in served and device_owner != ROUTER_INTERFACE]
    rows = [_row(port_id, subnet, _eui64(subnet.cidr, mac)) for subnet in missing]
    if not rows:
        return []
    found = {str(row["address"]): subnet for row, subnet in zip(rows, missing, strict=True)}
    network_id = missing[0].network_id
    for (held,) in tx.all(_HELD_OF, {"network_id": network_id, "of_addresses": list(found)}):
        raise _held(found[held], held)
    tx.execute(inserting(port_addresses), rows)
    return [FixedIp(subnet_id=subnet.id, address=address) for address, subnet in found.items()]


def _claim_one(
    tx: Tx, port_id: str, network_id: str, mac: str, device_owner: str, candidates: Sequence[Subnet], want: FixedIp
) -> FixedIp | None:
    """The wanted address; None where the port gets an automatic one."""
    if want.address is not None:
        address = str(ip_address(want.address))
        subnet = subnet_holding(candidates, network_id, address, want.subnet_id, device_owner)
        by_itself = is_auto_addressed(subnet) and device_owner != ROUTER_INTERFACE
        if by_itself and address != eui64_address(subnet.cidr, mac):
            raise BadRequest(
                f"IPv6 address {address} cannot be directly assigned to a port on subnet {subnet.id} as the subnet is "
                "configured for automatic addresses",
                reason="AllocationOnAutoAddressSubnet",
            )
        _refuse_held(tx, subnet, address)
        return hold(tx, port_id, subnet, address)
    if want.subnet_id is None:
        raise refusals.invalid("IP allocation requires subnet_id or ip_address.")
    named = next((s for s in candidates if s.id == want.subnet_id), None)
    if named is None:
        raise _not_of_network(network_id, want.subnet_id)
    if is_auto_addressed(named) and device_owner != ROUTER_INTERFACE:
        return None
    free = lowest_free(tx, named)
    if free is None:
        raise Conflict(
            f"No more IP addresses available for subnet {named.id}.", reason="IpAddressGenerationFailureForSubnet"
        )
    return hold(tx, port_id, named, free)


def _refuse_held(tx: Tx, subnet: Subnet, address: str) -> None:
    if is_held(tx, subnet.network_id, address):
        raise _held(subnet, address)


def _held(subnet: Subnet, address: str) -> Conflict:
    return Conflict(f"IP address {address} already allocated in subnet {subnet.id}", reason="IpAddressAlreadyAllocated")


def _not_of_network(network_id: str, subnet_id: str) -> BadRequest:
    return refusals.invalid(
        f"Failed to create port on network {network_id}, because fixed_ips included invalid subnet {subnet_id}."
    )


def subnet_holding(
    candidates: Sequence[Subnet], network_id: str, address: str, subnet_id: str | None, device_owner: str = ""
) -> Subnet:
    """The subnet an address belongs to, checked against the one named."""
    if subnet_id is not None and not any(subnet.id == subnet_id for subnet in candidates):
        raise _not_of_network(network_id, subnet_id)
    parsed = ip_address(address)
    for subnet in candidates:
        if subnet_id in (None, subnet.id) and _may_have(range_of(subnet.cidr), parsed, device_owner):
            return subnet
    if subnet_id is not None:
        raise BadRequest(
            f"IP address {address} is not a valid IP for the specified subnet.", reason="InvalidIpForSubnet"
        )
    raise BadRequest(
        f"IP address {address} is not a valid IP for any of the subnets on the specified network.",
        reason="InvalidIpForNetwork",
    )


def _may_have(cidr: AddressRange, address: Address, device_owner: str) -> bool:
    """Whether a port may have the address. In IPv6 only a router's port may have the first address of a range."""
    if address.version != cidr.version or address not in cidr:
        return False
    if cidr.version == 4:
        return address not in (cidr.network_address, cidr.broadcast_address)
    return address != cidr.network_address or device_owner in ("", *OF_ROUTERS)


def hold(tx: Tx, port_id: str, subnet: Subnet, address: str) -> FixedIp:
    parsed = ip_address(address)
    tx.run(inserting(port_addresses), _row(port_id, subnet, parsed))
    return FixedIp(subnet_id=subnet.id, address=str(parsed))


def hold_automatic(tx: Tx, subnet: Subnet, guests: Iterable[tuple[str, str]]) -> None:
    """Record the addresses that guests give themselves in a subnet: of each port its id and its MAC address."""
    rows = [_row(port_id, subnet, _eui64(subnet.cidr, mac)) for port_id, mac in guests]
    if rows:
        tx.execute(inserting(port_addresses), rows)


def _row(port_id: str, subnet: Subnet, address: Address) -> dict[str, object]:
    value = int(address)
    return {
        "port_id": port_id,
        "address": str(address),
        "network_id": subnet.network_id,
        "subnet_id": subnet.id,
        "number": f"{value:032x}",
        "successor": f"{value + 1:032x}",
    }


def held_by(tx: Tx, port_ids: Sequence[str]) -> dict[str, list[FixedIp]]:
    """Addresses of many ports, IPv4 before IPv6, lower before higher."""
    found: dict[str, list[FixedIp]] = {}
    for port_id, subnet_id, address in map(tuple, _HELD_BY.rows(tx, port_ids)):
        found.setdefault(port_id, []).append(FixedIp(subnet_id=subnet_id, address=address))
    return found


def texts_of(tx: Tx, port_ids: Sequence[str]) -> dict[str, list[str]]:
    """The same, as text alone."""
    found: dict[str, list[str]] = {}
    for port_id, _, address in map(tuple, _HELD_BY.rows(tx, port_ids)):
        found.setdefault(port_id, []).append(address)
    return found


def of_port(tx: Tx, port_id: str) -> list[FixedIp]:
    """The addresses of one port, in the order of `held_by`."""
    return held_by(tx, [port_id]).get(port_id, [])


def of_version(held: Iterable[FixedIp], version: int) -> list[FixedIp]:
    """Those of these addresses that are of one version of IP."""
    return [fixed for fixed in held if fixed.address and ip_address(fixed.address).version == version]


_HELD_BY = OfMany(
    sa.select(port_addresses.c.port_id, port_addresses.c.subnet_id, port_addresses.c.address).order_by(
        port_addresses.c.number
    ),
    port_addresses.c.port_id,
)


def give_back(tx: Tx, port_id: str, addresses: Iterable[str]) -> None:
    tx.execute(
        sa.delete(port_addresses).where(
            port_addresses.c.port_id == port_id, port_addresses.c.address.in_(list(addresses))
        )
    )
