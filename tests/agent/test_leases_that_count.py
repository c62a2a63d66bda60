"""Leases of hosts as the control plane counts them: whether it may start a silent host's servers elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from unittest.mock import Mock

import pytest

import cumulet.testing
from cumulet.agent.agent import Agent, HostLease, Unleased
from cumulet.agent.simulated_lease import SimulatedLease, SimulatedWatchdog
from cumulet.bus.in_process import InProcessLink
from cumulet.compute import hosts as host_records
from cumulet.compute.host_watch import NO_LEASE, HostWatch
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.link import Link
from cumulet.testing import TestCloud
from tests.api.servers import create_pair, host_of, other
from tests.links import Silence, Way, instead, silent


def leased(*, restarting: bool = False) -> AbstractContextManager[TestCloud]:
    """A cloud whose hosts have leases of 10 s."""
    return cumulet.testing.cloud(
        fence_silent_hosts=True,
        host_silent_seconds=4.0,
        lease_seconds=3.0,
        host_lease_seconds=10.0,
        restart_servers_of_lost_hosts=restarting,
    )


# -- the control plane, which may then start servers elsewhere


def test_a_silent_host_is_down_once_its_lease_has_run_out_and_is_evacuated_then() -> None:
    with leased() as cloud:
        admin, member = cloud.persona("admin"), cloud.persona("member")
        server = create_pair(member)[0]
        source = host_of(admin, server)
        cloud.reconcile()
        with silent(cloud, source):
            cloud.clock.advance(6.0)
            cloud.reconcile()
            answer = admin.action(server, {"evacuate": {}}, version="2.94")
            assert (answer.status, "still in use" in answer.text) == (400, True)
            cloud.clock.advance(7.0)
            cloud.reconcile()
            assert admin.action(server, {"evacuate": {}}, version="2.94").status == 200
            admin.wait("the move", lambda: host_of(admin, server) == other(source))
            admin.wait_for_status(server, "ACTIVE")


class Overheard(Way):
    """Keeps the renewals of the lease, and can be made to fail each command that removes a guest."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.questions: list[tuple[int, int | None]] = []
        """Number and `heard` of each that would renew the lease."""
        self.keeps_guests = False

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.RenewLease):
            self.questions.append((message.number, message.heard))
        if isinstance(message, m.Destroy) and self.keeps_guests:
            raise m.VerbFailed("a test asked for this failure")
        return await super().send(message)


@dataclass
class Back:
    """A host that was silent until its lease had run out. Its servers run elsewhere, and it answers again."""

    cloud: TestCloud
    name: str
    link: Overheard

    def asked(self) -> int | None:
        """One round with the host; the number of its answer that the host is told was heard."""
        self.cloud.await_(self.cloud.embedded.conductor.reconciler(HostWatch).round(self.name))
        return self.link.questions[-1][1]


@pytest.fixture
def back() -> Iterator[Back]:
    with leased() as cloud:
        cloud.await_(cloud.embedded.conductor.reconciler(HostWatch).stop())  # Only the test begins rounds.
        admin, member = cloud.persona("admin"), cloud.persona("member")
        server = create_pair(member)[0]
        name = host_of(admin, server)
        with silent(cloud, name):
            for _ in range(5):  # The other host is heard meanwhile.
                cloud.clock.advance(4.0)
                cloud.reconcile()
            assert admin.action(server, {"evacuate": {}}, version="2.94").status == 200
            admin.wait("the move", lambda: host_of(admin, server) == other(name))
            admin.wait_for_status(server, "ACTIVE")
        with instead(cloud, name, Overheard) as link:
            yield Back(cloud, name, link)


def is_heard(cloud: TestCloud) -> bool:
    """Whether the records say that host1 answers."""
    return cloud.embedded.db.read(lambda tx: host_records.is_heard(tx, "host1"))


def test_whoever_leads_again_reckons_with_the_leases_that_another_leader_gave() -> None:
    with leased() as cloud:
        watch = cloud.embedded.conductor.reconciler(HostWatch)
        cloud.await_(watch.stop())
        cloud.clock.advance(3600.0)  # Another process leads.

        with silent(cloud, "host1"):
            cloud.await_(watch.start())
            assert is_heard(cloud), "it may have a lease of a moment ago, and its guests run"
            cloud.await_(watch.stop())
            cloud.clock.advance(13.0)
            cloud.await_(watch.round("host1"))
            assert not is_heard(cloud)


def test_whoever_begins_to_lead_waits_for_a_host_that_it_has_not_heard_as_long_as_for_any_other() -> None:
    """The bus may not be connected yet, or the host's agent; nor does what it heard when it led before count."""
    with cumulet.testing.cloud(host_silent_seconds=4.0) as cloud:
        watch = cloud.embedded.conductor.reconciler(HostWatch)
        cloud.await_(watch.stop())
        cloud.clock.advance(3600.0)  # Another process leads.

        with silent(cloud, "host1"):
            cloud.await_(watch.start())
            cloud.await_(watch.stop())
            cloud.clock.advance(3.0)
            cloud.await_(watch.round("host1"))
            assert is_heard(cloud), "three seconds of silence are no four"
            cloud.clock.advance(1.0)
            cloud.await_(watch.round("host1"))
            assert not is_heard(cloud)


class Unsent(Way):
    """The control plane is cut off from the bus."""

    async def send(self, message: m.Message[object]) -> object:
        raise m.BusLost("the bus is not connected")


def test_no_host_is_down_because_of_questions_that_were_not_sent() -> None:
    with cumulet.testing.cloud(host_silent_seconds=4.0) as cloud:
        watch = cloud.embedded.conductor.reconciler(HostWatch)
        cloud.await_(watch.stop())

        with instead(cloud, "host1", Unsent):
            for _ in range(3):
                cloud.clock.advance(3.0)
                cloud.await_(watch.round("host1"))
            assert is_heard(cloud)
        with silent(cloud, "host1"):
            cloud.clock.advance(3.0)
            cloud.await_(watch.round("host1"))
            assert is_heard(cloud), "three seconds of silence are no four"
            cloud.clock.advance(1.0)
            cloud.await_(watch.round("host1"))
            assert not is_heard(cloud)


def test_a_host_that_joins_again_is_waited_for_as_if_it_had_a_fresh_lease() -> None:
    """Another process may have heard it just before, and given it one."""
    with leased() as cloud:
        hosts, watch = cloud.embedded.hosts, cloud.embedded.conductor.reconciler(HostWatch)
        link = hosts.link("host1")

        async def leave() -> None:
            hosts.remove("host1")

        async def join() -> None:
            hosts.add("host1", Silence(link))

        cloud.await_(leave())
        cloud.persona("admin").wait("it to be forgotten", lambda: "host1" not in watch._seen_at)
        cloud.clock.advance(3600.0)
        cloud.await_(join())
        cloud.await_(watch.round("host1"))
        assert is_heard(cloud)
        cloud.clock.advance(13.0)
        cloud.await_(watch.round("host1"))
        assert not is_heard(cloud)


def test_a_host_that_is_back_gets_no_lease_before_it_has_removed_what_it_lost(back: Back) -> None:
    back.link.keeps_guests = True
    before = back.asked()
    assert back.asked() == before, "it still had the guest when it gave its first answer"
    back.link.keeps_guests = False
    assert back.asked() == before, "and when it gave its second, although the record said by then that it is up"
    third = back.link.questions[-1][0]
    assert back.asked() == third


def test_a_host_that_is_back_gets_no_lease_before_the_record_says_that_it_is_up(
    back: Back, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(host_records, "register", Mock(side_effect=RuntimeError("the database is away")))
        with pytest.raises(RuntimeError, match="away"):
            back.asked()
    before = back.link.questions[-1][1]
    assert back.asked() == before, "its first answer was never recorded"
    assert back.asked() == back.link.questions[-2][0]


# -- hosts that were given no watchdog, because their agents were started before the cloud wanted one


def lease_given(cloud: TestCloud, host: str, lease: HostLease) -> None:
    """As if the agent of a simulated host was started again with this lease."""
    link = cloud.embedded.hosts.link(host)
    assert isinstance(link, InProcessLink)
    agent = link._agent
    assert isinstance(agent, Agent)
    if isinstance(before := agent._lease, SimulatedLease):
        assert isinstance(before._noted, SimulatedWatchdog)
        cloud.await_(before._noted.close())
    agent._lease, agent.session = lease, cloud.clock.uuid()


def held(cloud: TestCloud, host: str) -> bool:
    return cloud.embedded.db.read(lambda tx: host_records.kind_of(tx, host).lease_held)


def test_a_silent_host_that_confirmed_no_lease_is_down_and_keeps_its_servers() -> None:
    """The control plane counts on watchdogs, and this host's agent was never told of one."""
    with leased(restarting=True) as cloud:
        admin, member = cloud.persona("admin"), cloud.persona("member")
        server = create_pair(member)[0]
        source = host_of(admin, server)
        lease_given(cloud, source, Unleased())
        cloud.reconcile()
        found = admin.compute("GET", "/cumulet/findings")["findings"]
        assert [one["host"] for one in found if one["finding"] == "no-watchdog"] == [source]
        with silent(cloud, source):
            for _ in range(15):
                cloud.clock.advance(4.0)
                cloud.reconcile()
            (service,) = admin.compute("GET", f"/os-services?host={source}")["services"]
            assert service["state"] == "down"
            answer = admin.action(server, {"evacuate": {}}, version="2.94")
            assert (answer.status, "say so with force-down" in answer.text) == (400, True)
            found = admin.compute("GET", "/cumulet/findings")["findings"]
            silence = [(one["finding"], one["done"]) for one in found if one["host"] == source]
            assert ("host-silent", NO_LEASE) in silence
            assert not {name for name, _ in silence} & {"lease-run-out", "server-of-a-lost-host"}
        assert host_of(admin, server) == source
        cloud.reconcile()
        admin.wait_for_status(server, "ACTIVE")
        shown = admin.compute("GET", f"/servers/{server}")["server"]
        assert (shown["status"], shown["OS-EXT-STS:power_state"]) == ("ACTIVE", 1), "it has run all the time"


def test_a_lease_counts_from_when_this_start_of_the_agent_has_confirmed_it() -> None:
    with leased() as cloud:
        assert held(cloud, "host1")
        noted = SimulatedWatchdog(cloud.clock, lambda: None)
        lease_given(cloud, "host1", SimulatedLease(noted, seconds=30.0))
        cloud.reconcile()
        assert not held(cloud, "host1"), "its agent has started anew, and was not heard to have one"
        cloud.reconcile()
        assert held(cloud, "host1")
        with silent(cloud, "host1"):
            for _ in range(6):
                cloud.clock.advance(4.0)
                cloud.reconcile()
            (service,) = cloud.persona("admin").compute("GET", "/os-services?host=host1")["services"]
            assert service["state"] == "up", "its own lease is longer than the conductor's settings say"
            for _ in range(3):
                cloud.clock.advance(4.0)
                cloud.reconcile()
            (service,) = cloud.persona("admin").compute("GET", "/os-services?host=host1")["services"]
            assert service["state"] == "down"
        cloud.await_(noted.close())


def test_guests_of_a_simulated_host_end_with_its_lease() -> None:
    with leased() as cloud:
        admin, member = cloud.persona("admin"), cloud.persona("member")
        server = create_pair(member)[0]
        source = host_of(admin, server)
        link = cloud.embedded.hosts.link(source)
        with silent(cloud, source):
            assert cloud.await_(link.send(m.Observe(server_id=server))) is GuestState.RUNNING
            cloud.clock.advance(11.0)
            admin.wait("its end", lambda: cloud.await_(link.send(m.Observe(server_id=server))) is GuestState.CRASHED)


def test_a_host_that_has_a_watchdog_is_given_leases_though_nobody_counts_on_their_end() -> None:
    """An API was told of watchdogs and the conductor was not."""
    with cumulet.testing.cloud(host_silent_seconds=4.0) as cloud:
        ended: list[str] = []
        noted = SimulatedWatchdog(cloud.clock, lambda: ended.append("guests"))
        lease = SimulatedLease(noted, seconds=10.0)

        async def begin() -> None:
            lease.begin()

        cloud.await_(begin())
        lease_given(cloud, "host1", lease)
        for _ in range(5):
            cloud.reconcile()
            cloud.clock.advance(4.0)
        assert lease.valid
        assert ended == []
        cloud.await_(noted.close())
