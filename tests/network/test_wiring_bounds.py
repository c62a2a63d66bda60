"""One project's part of a host's wiring is bounded where it is asked for, so that one message can have all of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from cumulet.compute.wiring import TOO_LONG
from cumulet.conductor import findings
from cumulet.db.engine import Database, Tx
from cumulet.errors import OverQuota
from cumulet.host import messages as m
from cumulet.host import wiring as w
from cumulet.network import address_groups, dhcp_options, limits, topology, wiring_bounds
from cumulet.network.group_records import AddressGroup, SecurityGroup, SecurityGroupRule
from cumulet.network.store import Network, find_by, insert
from tests.compute.test_hosts_in_memory import of_hosts
from tests.compute.test_wirings import Cloud as OneHost
from tests.network.test_wiring import OURS, THEIRS, Cloud
from tests.network.test_wiring import cloud as cloud  # A fixture.

EACH = wiring_bounds.ADDRESSES_OF_A_PORT
PAIRS = [{"ip_address": f"10.1.{number}.0/24"} for number in range(10)]


@pytest.fixture
def few_ports() -> Iterator[None]:
    """Projects may have three ports."""
    with mock.patch.dict(limits.DEFAULT_LIMITS, port=3):
        yield


def groups(cloud: Cloud, number: int, project: str = OURS) -> list[str]:
    def make(_: int) -> str:
        values = {"project_id": project, "name": "n", "description": "", "stateful": True, "is_default": False}
        return cloud.db.write(lambda tx: insert(tx, SecurityGroup, cloud.clock, **values)).id

    return [make(place) for place in range(number)]


def plug(cloud: Cloud, network: Network, host: str, **more: object) -> None:
    """As a request makes a port and checks it then."""
    made = cloud.plug(network, host, **more)
    cloud.db.write(lambda tx: wiring_bounds.check_new(tx, [made.id]))


@pytest.mark.usefixtures("few_ports")
def test_a_port_with_few_addresses_is_always_made_and_heavy_ones_while_there_is_room(cloud: Cloud) -> None:
    network, three = cloud.network("10.0.0.0/24"), groups(cloud, 3)
    plug(cloud, network, "host1", security_group_ids=three, allowed_address_pairs=PAIRS[:9])  # 30 of 36.
    plug(cloud, network, "host1", security_group_ids=three, allowed_address_pairs=PAIRS[:3])  # 12, which is no more.
    with pytest.raises(OverQuota, match="at most 36 fixed_ips and allowed_address_pairs together"):
        plug(cloud, network, "host1", security_group_ids=three, allowed_address_pairs=PAIRS[:4])
    other = cloud.network("10.0.0.0/24", project=THEIRS)
    plug(cloud, other, "host1", security_group_ids=three, allowed_address_pairs=PAIRS[:4])
    with mock.patch.dict(limits.DEFAULT_LIMITS, port=limits.UNLIMITED):
        plug(cloud, network, "host1", security_group_ids=three, allowed_address_pairs=PAIRS)


@pytest.mark.usefixtures("few_ports")
def test_a_subnet_that_makes_its_own_project_s_ports_too_heavy_is_refused(cloud: Cloud) -> None:
    network, ten = cloud.network("10.0.0.0/24"), groups(cloud, 10)
    for _ in range(2):
        cloud.plug(network, "host1", security_group_ids=ten)

    def subnet(project: str) -> None:
        def make(tx: Tx) -> None:
            cidr, mode = ip_network("2001:db8::/64"), "slaac"
            topology.add_subnet(
                tx,
                cloud.clock,
                network,
                cidr=cidr,
                project_id=project,
                ipv6_address_mode=mode,
                ipv6_ra_mode=mode,
            )
            wiring_bounds.check_network(tx, network.id, project)

        cloud.db.write(make)

    with pytest.raises(OverQuota, match="together"):
        subnet(OURS)
    subnet(THEIRS)


def test_the_worst_that_a_project_can_do_with_its_default_quota_fits_into_one_message(cloud: Cloud) -> None:
    """Counted with the longest texts, without making it all."""
    ports, longest = limits.DEFAULT_LIMITS["port"], 42
    heavy = 2 * EACH * ports  # Ports that are heavy, and then as many that are not.
    addresses = heavy * (longest + 3) * 3  # Of the port, of its name, and of a member.
    pairs = 10 * ports * (len(msgspec.json.encode(w.Pair(mac="fa:16:3e:00:00:00", prefix="x" * longest))) - longest)
    options = 2 * dhcp_options.BYTES_OF_A_PORT * ports * 2  # In hexadecimal.
    listed = address_groups.MOST_OF_PROJECT * (longest + 4)
    plain = ports * 600 + limits.DEFAULT_LIMITS["security_group_rule"] * 300
    assert addresses + pairs + options + listed + plain < 0.75 * 4 * 1024 * 1024
    option = msgspec.json.encode(w.DhcpOption(version=6, code=200, content=""))
    assert len(option) + 1 <= 2 * dhcp_options._MORE + 6


# -- what is too long all the same


def test_the_largest_project_of_a_wiring_is_found(cloud: Cloud) -> None:
    ours, theirs = cloud.network("10.0.0.0/24"), cloud.network("10.0.0.0/24", project=THEIRS)
    for _ in range(3):
        cloud.plug(ours, "host1")
    few = cloud.plug(theirs, "host1")

    def largest() -> tuple[str, int] | None:
        wiring = cloud.of("host1")
        sizes = {port.id: len(msgspec.json.encode(port)) for port in wiring.ports}
        sizes |= {group.id: len(msgspec.json.encode(group)) for group in wiring.groups}
        return cloud.db.read(lambda tx: wiring_bounds.largest_project(tx, sizes))

    found = largest()
    assert found is not None
    assert found[0] == OURS
    listed = cloud.db.write(
        lambda tx: insert(
            tx,
            AddressGroup,
            cloud.clock,
            project_id=THEIRS,
            name="",
            description="",
            addresses=[f"2001:db8:{number:x}::/64" for number in range(200)],
        )
    )
    (group,) = cloud.db.read(lambda tx: find_by(tx, SecurityGroup, project_id=THEIRS))
    values = dict.fromkeys(("protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id"))
    cloud.db.write(
        lambda tx: insert(
            tx,
            SecurityGroupRule,
            cloud.clock,
            project_id=THEIRS,
            description="",
            security_group_id=group.id,
            direction="ingress",
            ethertype="IPv6",
            remote_address_group_id=listed.id,
            **values,
        )
    )
    found = largest()
    assert found is not None
    assert found[0] == THEIRS
    assert found[1] > 200 * len('"2001:db8:ff::/64"')
    assert few.project_id == THEIRS
    assert cloud.db.read(lambda tx: wiring_bounds.largest_project(tx, {})) is None


def test_a_wiring_that_the_bus_does_not_take_is_said_once_and_is_a_finding(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(database: Database) -> None:
        one = OneHost(tmp_path, database)
        too_long = mock.AsyncMock(side_effect=m.MessageTooLong(100))
        for _ in range(3):
            with mock.patch.object(one.way, "send", too_long):
                await one.wirings.round()
        assert too_long.await_count == 3
        said = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
        assert len(said) == 1
        assert "host1: its wiring is too long" in said[0].getMessage()
        assert "MESSAGE_TOO_LONG" in said[0].getMessage()
        (found,) = database.read(findings.newest)
        assert (found.reconciler, found.host, found.finding, found.times) == ("wirings", "host1", TOO_LONG, 1)
        await one.wirings.round()
        one.clock.advance(61.0)
        with mock.patch.object(one.way, "send", too_long):
            await one.wirings.round()
        (found,) = database.read(findings.newest)
        assert found.times == 2

    with of_hosts(tmp_path, {"host1": ("networks",)}) as database:
        asyncio.run(story(database))
