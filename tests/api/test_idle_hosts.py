"""A host that says nothing new costs a question, and no write."""

from __future__ import annotations

import msgspec
import pytest

from cumulet.compute import host_watch
from cumulet.compute import hosts as host_records
from cumulet.compute.host_watch import HostWatch
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import create


@pytest.fixture
def recorded(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of hosts as they are recorded."""
    seen: list[str] = []
    register = host_records.register

    def noted(tx: object, **named: object) -> None:
        seen.append(named["facts"].name)  # type: ignore[attr-defined]
        register(tx, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(host_records, "register", noted)
    return seen


def test_only_news_is_recorded(
    cloud: TestCloud, member: Client, recorded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(host: str = "host1") -> bool:
        """Whether what it says is recorded. (The cloud asks by itself, too, and that counts as well.)"""
        before = recorded.count(host)
        cloud.await_(cloud.embedded.conductor.reconciler(HostWatch).round(host))
        return recorded.count(host) > before

    look()
    assert not look()
    with monkeypatch.context() as patched:
        patched.setattr(host_watch, "RECORD_SECONDS", 0.0)
        assert look()  # that it was heard is recorded now and then
    cloud.embedded.db.write(lambda tx: host_records.set_up(tx, "host1", up=False, now_us=1))
    assert look()
    assert not look()
    world = cloud.embedded.world
    assert world is not None
    with monkeypatch.context() as patched:
        patched.setattr(world.drivers["host1"], "_booted_at_us", 5)
        assert look()
    look()
    server = create(member)
    host = cloud.persona("admin").server(server["id"])["OS-EXT-SRV-ATTR:host"]
    assert look(host)
    assert look(host)  # its guests are compared with the records each time


def test_a_host_that_was_removed_while_it_was_asked_is_not_known_again(cloud: TestCloud, admin: Client) -> None:
    embedded = cloud.embedded
    facts = msgspec.structs.replace(cloud.await_(embedded.hosts.facts("host1")), name="removed")
    embedded.db.write(lambda tx: host_records.register(tx, facts=facts, clock=cloud.clock, settings=embedded.settings))
    services = admin.compute("GET", "/os-services?binary=nova-compute")["services"]
    assert {service["host"] for service in services} == set(cloud.hosts)
