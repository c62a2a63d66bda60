"""With PostgreSQL all hosts are read again when one of them has changed, whoever changed it, and only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from cumulet.compute import hosts as host_records
from cumulet.compute import hosts_in_memory, store
from cumulet.compute.hosts import AllHosts
from cumulet.db import schema
from cumulet.db.engine import Database, Tx, opened
from cumulet.processes.parts import load_services
from cumulet.settings import Settings
from cumulet.testing.clock import AdvanceableClock
from tests.compute.test_hosts_in_memory import facts_of
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
pytestmark = pytest.mark.postgres
HOSTS = ("host1", "host2", "host3")


@dataclass
class Two:
    """Two processes on one database; how often the first has read all hosts."""

    ours: Database
    theirs: Database
    clock: AdvanceableClock
    settings: Settings
    reads: list[AllHosts] = field(default_factory=list)

    def register(self, name: str, *features: str) -> None:
        self.clock.advance(1.0)
        facts = facts_of(name, features)
        self.theirs.write(lambda tx: host_records.register(tx, facts, clock=self.clock, settings=self.settings))

    def for_routers(self) -> tuple[str, ...]:
        return self.ours.read(hosts_in_memory.for_routers)


@pytest.fixture
def two(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    load_services()
    with opened(database_url) as ours, opened(database_url) as theirs:
        schema.prepare(ours)
        ours.write(lambda tx: tx.execute(sa.delete(store.hosts)))
        settings = Settings(state_dir=tmp_path, database_url=database_url, host_names=HOSTS)
        made = Two(ours, theirs, AdvanceableClock(), settings)
        real: Callable[[Tx], AllHosts] = host_records.all_hosts

        def noted(tx: Tx) -> AllHosts:
            made.reads.append(real(tx))
            return made.reads[-1]

        monkeypatch.setattr(host_records, "all_hosts", noted)
        for name in HOSTS:
            made.register(name, "networks")
        yield made


def test_they_are_read_once_while_none_has_changed(two: Two) -> None:
    two.ours.write(hosts_in_memory.with_packets)
    assert two.for_routers() == HOSTS
    assert two.ours.read(lambda tx: hosts_in_memory.offered(tx, "networks")) is True
    two.theirs.write(lambda tx: host_records.heard_again(tx, HOSTS, now_us=two.clock.now_us()))
    assert two.for_routers() == HOSTS
    two.register("host2", "networks")  # its guests have changed, but it says the same of itself
    assert two.for_routers() == HOSTS
    assert len(two.reads) == 1


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (lambda two: two.register("host1", "networks", "public"), ("host1",)),
        (lambda two: two.theirs.write(lambda tx: _declared_down(tx, "host2", two.clock.now_us())), ("host1", "host3")),
        (lambda two: two.theirs.write(lambda tx: _gone(tx, "host3")), ("host1", "host2")),
    ],
    ids=["another process hears more of one", "an administrator declares one down", "one is removed"],
)
def test_what_another_process_changes_is_seen_by_the_next_transaction(
    two: Two, change: Callable[[Two], None], after: tuple[str, ...]
) -> None:
    assert two.for_routers() == HOSTS
    change(two)
    assert two.for_routers() == after


def test_a_transaction_that_writes_of_hosts_leaves_nothing_of_it_to_others(two: Two) -> None:
    def taken_back(tx: Tx) -> None:
        tx.touch("host1")
        _declared_down(tx, "host1", two.clock.now_us())
        assert hosts_in_memory.for_routers(tx) == ("host2", "host3")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        two.ours.write(taken_back)
    assert two.for_routers() == HOSTS


def _declared_down(tx: Tx, name: str, now_us: int) -> None:
    found = sa.update(store.hosts).where(store.hosts.c.name == name)
    tx.execute(found.values(forced_down=True, updated_at_us=now_us))


def _gone(tx: Tx, name: str) -> None:
    tx.execute(sa.delete(store.hosts).where(store.hosts.c.name == name))
