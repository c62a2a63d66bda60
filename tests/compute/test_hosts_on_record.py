"""What the records say of hosts that answer, fall silent, come back and are removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.compute import hosts as host_records
from cumulet.compute.store import hosts
from cumulet.db.engine import Database, Tx
from cumulet.host.driver import Guest, Nic
from cumulet.host.nics import DEVICE_TAGS
from cumulet.settings import Settings
from cumulet.testing.clock import AdvanceableClock
from tests.compute.test_hosts_in_memory import facts_of, of_hosts

FEATURES = {"host1": ("networks", DEVICE_TAGS), "host2": ("networks",)}


class Records:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.settings = Settings(state_dir=folder, database_url="sqlite://", host_names=tuple(FEATURES))
        self.clock = AdvanceableClock()

    def heard(self, name: str, **more: object) -> None:
        facts = facts_of(name, FEATURES.get(name, ()), **more)
        self.database.write(lambda tx: host_records.register(tx, facts, clock=self.clock, settings=self.settings))

    def silent(self, name: str) -> None:
        self.database.write(lambda tx: host_records.set_up(tx, name, up=False, now_us=self.clock.now_us()))

    def to_clear(self, name: str) -> bool:
        def read(tx: Tx) -> bool:
            row = tx.first(hosts.select().where(hosts.c.name == name))
            assert row is not None
            return bool(row.to_clear)

        return self.database.read(read)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with of_hosts(tmp_path, FEATURES) as database:
        yield Records(database, tmp_path)


def test_only_what_is_an_address_is_told_to_other_hosts(records: Records) -> None:
    """In records of before, hosts were believed whatever they said."""
    records.heard("host1", address="10.0.0.1 ")
    records.heard("host2", address="192.0.2.2")
    assert records.database.read(lambda tx: host_records.addresses(tx, FEATURES)) == {"host2": "192.0.2.2"}


def test_a_host_that_is_back_has_to_remove_what_it_lost_whatever_else_it_says(records: Records) -> None:
    records.silent("host1")
    records.heard("host1")
    assert records.to_clear("host1")
    records.heard("host1", memory_mib=4096)
    assert records.to_clear("host1"), "it has more memory now, and its guests all the same"
    records.database.write(lambda tx: host_records.cleared(tx, "host1"))
    records.heard("host1", memory_mib=8192)
    assert not records.to_clear("host1")


def test_a_host_that_was_removed_while_it_was_asked_is_not_added_again(records: Records) -> None:
    records.heard("removed")
    assert not records.database.read(lambda tx: host_records.is_known(tx, "removed"))
    assert records.database.read(lambda tx: host_records.is_known(tx, "host1"))


def test_only_hosts_that_answer_offer_anything(records: Records) -> None:
    def offering() -> list[str]:
        return records.database.read(lambda tx: host_records.offering(tx, "networks"))

    assert offering() == ["host1", "host2"]
    records.silent("host2")
    assert offering() == ["host1"]


def test_a_host_is_told_no_tag_that_it_does_not_understand(records: Records) -> None:
    nic = Nic(port_id="p", network_id="n", mac="fa:16:3e:00:00:01", tag="inner")
    guest = Guest(server_id="s", name="s", vcpus=1, memory_mib=64, disk_gib=1, image=None, nics=(nic,))

    def told(name: str) -> list[str]:
        found: Guest = records.database.read(lambda tx: host_records.as_told(tx, name, guest))
        return [one.tag for one in found.nics]

    assert {name: told(name) for name in FEATURES} == {"host1": ["inner"], "host2": [""]}
