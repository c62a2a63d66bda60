"""IPAM as properties: no address is held twice, the lowest free one is given, what is released is given again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from cumulet.clock import SystemClock
from cumulet.db import schema
from cumulet.db.engine import Database, Tx
from cumulet.errors import ApiError, Conflict
from cumulet.network import addresses, port_life, topology
from cumulet.network.addresses import FixedIp
from cumulet.network.store import Network, port_addresses

CLOCK = SystemClock()


@contextmanager
def network_of(*cidrs: str, pools: list[dict[str, str]] | None = None) -> Iterator[tuple[Database, Network]]:
    database = Database("sqlite://", inline=True)
    schema.prepare(database)

    def make(tx: Tx) -> Network:
        network = topology.add_network(tx, CLOCK, project_id="p", name="n", wire_mtu=1500)
        for cidr in cidrs:
            topology.add_subnet(tx, CLOCK, network, cidr=ip_network(cidr), allocation_pools=pools)
        return network

    try:
        yield database, database.write(make)
    finally:
        database.close()


def plug(database: Database, network: Network, wanted: list[FixedIp] | None = None) -> tuple[str, list[str]]:
    def make(tx: Tx) -> tuple[str, list[str]]:
        new = port_life.NewPort(project_id="p", fixed_ips=wanted)
        port = port_life.make(tx, CLOCK, network, new)
        held = addresses.held_by(tx, [port.id]).get(port.id, [])
        return port.id, [fixed.address or "" for fixed in held]

    return database.write(make)


POOL = [{"start": "10.0.0.10", "end": "10.0.0.13"}, {"start": "10.0.0.20", "end": "10.0.0.22"}]
IN_POOL = [f"10.0.0.{n}" for n in (10, 11, 12, 13, 20, 21, 22)]


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.one_of(st.just("any"), st.sampled_from(IN_POOL), st.integers(0, 6)), max_size=25))
def test_whatever_comes_and_goes_each_address_has_one_holder_and_the_lowest_is_next(steps: list[str | int]) -> None:
    with network_of("10.0.0.0/24", pools=POOL) as (database, network):
        held: dict[str, str] = {}
        for step in steps:
            free = [address for address in IN_POOL if address not in held]
            if isinstance(step, int):
                if step < len(held):
                    address = sorted(held)[step]
                    port_id = held.pop(address)
                    database.write(lambda tx, port_id=port_id: port_life.end(tx, port_id))  # type: ignore[misc]
            elif step == "any" and free:
                port_id, (address,) = plug(database, network)
                assert address == free[0]
                held[address] = port_id
            elif step == "any" or step in held:
                wanted = None if step == "any" else [FixedIp(address=step)]
                with pytest.raises(Conflict):
                    plug(database, network, wanted)
            else:
                port_id, (address,) = plug(database, network, [FixedIp(address=step)])
                held[address] = port_id
        rows = database.read(lambda tx: tx.all(sa.select(port_addresses.c.address, port_addresses.c.port_id)))
        assert {row.address: row.port_id for row in rows} == held


@settings(max_examples=100, deadline=None)
@given(
    cidr=st.one_of(
        st.builds(lambda n, p: IPv4Network((n, p), strict=False), st.integers(0, 2**32 - 1), st.integers(20, 32)),
        st.builds(lambda n, p: IPv6Network((n, p), strict=False), st.integers(0, 2**128 - 1), st.integers(116, 128)),
    ),
    offset=st.integers(0, 4095),
)
def test_default_pools_are_all_hosts_but_the_gateway(cidr: IPv4Network | IPv6Network, offset: int) -> None:
    gateway = cidr[offset % cidr.num_addresses]
    pools = addresses.default_pools(cidr, gateway)
    in_pools = [
        address for pool in pools for address in range(int(ip_address(pool["start"])), int(ip_address(pool["end"])) + 1)
    ]
    expected = set(map(int, cidr))
    if cidr.num_addresses > 1:
        if cidr.version == 6 or cidr.prefixlen <= 30:
            expected.discard(int(cidr.network_address))
        if cidr.version == 4 and cidr.prefixlen <= 30:
            expected.discard(int(cidr.broadcast_address))
        expected.discard(int(gateway))
    assert sorted(in_pools) == sorted(expected)


def test_a_range_too_large_to_count_is_given_from_its_start() -> None:
    with network_of("2001:db8::/64") as (database, network):
        assert [plug(database, network)[1] for _ in range(3)] == [[f"2001:db8::{n}"] for n in (1, 2, 3)]


def test_a_port_has_one_address_of_each_version() -> None:
    with network_of("10.0.0.0/24", "10.1.0.0/24", "2001:db8::/64") as (database, network):
        assert plug(database, network)[1] == ["10.0.0.2", "2001:db8::1"]


def test_a_full_subnet_gives_way_to_the_next() -> None:
    with network_of("10.0.0.0/30", "10.1.0.0/24") as (database, network):
        assert [plug(database, network)[1] for _ in range(2)] == [["10.0.0.2"], ["10.1.0.2"]]


def test_the_database_itself_refuses_a_second_holder() -> None:
    with network_of("10.0.0.0/24") as (database, network):
        port_id, (address,) = plug(database, network)
        row = database.read(lambda tx: tx.first(sa.select(port_addresses)))
        assert row is not None
        other, _ = plug(database, network)
        values = dict(row._mapping) | {"port_id": other}
        with pytest.raises(IntegrityError):
            database.write(lambda tx: tx.execute(sa.insert(port_addresses).values(**values)))
        assert address == "10.0.0.2"
        assert port_id != other


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.255", "10.1.0.1", "2001:db8::1"])
def test_addresses_outside_the_subnet_or_at_its_ends_are_refused(address: str) -> None:
    with network_of("10.0.0.0/24") as (database, network):
        with pytest.raises(ApiError) as refused:
            plug(database, network, [FixedIp(address=address)])
        assert refused.value.status == 400
