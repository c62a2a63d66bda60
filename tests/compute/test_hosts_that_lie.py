"""A hostile agent speaks for itself alone: what it says of other hosts, servers and moves is not believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute import believed
from cumulet.compute.store import get_server, hosts
from cumulet.conductor import findings
from cumulet.db.engine import Row
from cumulet.host import messages as m
from cumulet.host.driver import Guest, Nic
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.host.link import Link
from cumulet.settings import Settings
from cumulet.testing import TestCloud
from tests.api.servers import AUTO, create_pair, event_details, host_of, last_migration, other
from tests.api.test_compute_servers import create
from tests.compute.test_hosts_in_memory import facts_of
from tests.links import Way, instead

LIAR, VICTIM = "host2", "host1"


class Liar(Way):
    """Answers questions and commands of one kind otherwise."""

    def __init__(self, link: Link, verb: type[m.Message[object]], changed: Callable[[object], object]) -> None:
        super().__init__(link)
        self.sent: list[str] = []
        self._verb, self._changed = verb, changed

    async def send(self, message: m.Message[object]) -> object:
        self.sent.append(m.name_of(type(message)))
        answer = await super().send(message)
        return self._changed(answer) if isinstance(message, self._verb) else answer


def lying(verb: type[m.Message[object]], **said: object) -> Callable[[Link], Liar]:
    return lambda link: Liar(link, verb, lambda answer: msgspec.structs.replace(answer, **said))  # type: ignore[type-var]


def row_of(cloud: TestCloud, host: str) -> Row:
    row = cloud.embedded.db.read(lambda tx: tx.first(sa.select(hosts).where(hosts.c.name == host)))
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"name": VICTIM, "vcpus": 1}, "it speaks for another host"),
        ({"driver": "qemu"}, "it has another driver"),
        ({"address": "x"}, "it names no address"),
        ({"address": ""}, "it names no address"),
        ({"address": "10.0.0.1 "}, "it names no address"),
        ({"address": "fe80::1%eth0"}, "it names no address"),
        ({"address": "224.0.0.1"}, "it names no address"),
        ({"features": ("x" * (believed.LONGEST_NAME + 1),)}, "it says more of itself"),
        ({"features": tuple(str(n) for n in range(believed.MOST_LISTED + 1))}, "it says more of itself"),
    ],
    ids=lambda part: "",
)
def test_a_host_that_speaks_for_another_counts_as_silent(
    said: dict[str, object], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with cumulet.testing.cloud(hosts=2, host_silent_seconds=0.8) as cloud:
        admin = cloud.persona("admin")
        admin.wait("both", lambda: row_of(cloud, LIAR).up and row_of(cloud, VICTIM).up)
        before = row_of(cloud, VICTIM).facts
        with instead(cloud, LIAR, lying(m.AskFacts, **said)):
            admin.wait("it to be down", lambda: not row_of(cloud, LIAR).up)
            assert row_of(cloud, VICTIM).facts == before
            assert row_of(cloud, VICTIM).up
            assert row_of(cloud, LIAR).facts["driver"] == "simulated"
        admin.wait("it to be up", lambda: row_of(cloud, LIAR).up)
        noted = [row for row in cloud.embedded.db.read(findings.newest) if row.finding == "host-not-believed"]
        assert [(row.host, row.times) for row in noted] == [(LIAR, 1)]
        assert noted[0].done.startswith(why)
    assert sum("is not believed" in record.getMessage() for record in caplog.records) == 1


def test_of_a_guest_that_it_has_made_a_host_says_only_what_it_has_filled_in() -> None:
    """Where the description is of another server, a host to which that is moved would take its guest for this one."""
    stolen = Nic(port_id="another's", network_id="n", mac="02:00:00:00:00:01")
    with cumulet.testing.cloud(hosts=1) as cloud:
        member = cloud.persona("member")
        with instead(cloud, VICTIM, lying(m.Create, server_id="another's", name="x", nics=(stolen,), memory_mib=1)):
            server = create(member, networks="none")
        stored = cloud.embedded.db.read(lambda tx: get_server(tx, server["id"])).guest
        guest = msgspec.convert(stored, Guest)
        assert (guest.server_id, guest.name, guest.nics) == (server["id"], server["name"], ())
        assert guest.memory_mib > 1
        assert guest.machine_type.startswith("simulated"), "this the host has filled in"


OWN = facts_of(LIAR, ("networks",))
SETTINGS = Settings(state_dir=Path("/nonexistent"), database_url="")


@pytest.mark.parametrize(
    "address",
    ["", "x", "10.0.0.1 ", "10.0.0", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"],
)
def test_what_is_no_address_of_a_host_is_not_believed(address: str) -> None:
    """Other hosts are told it."""
    with pytest.raises(believed.NotBelieved, match="address"):
        believed.require_own(LIAR, msgspec.structs.replace(OWN, address=address), SETTINGS)


@pytest.mark.parametrize("address", ["127.0.0.1", "198.18.0.1", "2001:DB8::1", "fe80::1"])
def test_an_address_of_a_host_is_believed(address: str) -> None:
    believed.require_own(LIAR, msgspec.structs.replace(OWN, address=address), SETTINGS)


LONG, MANY = "x" * (believed.LONGEST_NAME + 1), ("x",) * (believed.MOST_LISTED + 1)


@pytest.mark.parametrize(
    "said",
    [
        *({name: LONG} for name in ("hypervisor_type", "session", "version")),
        *({name: said} for name in ("cpu_models", "machine_types", "features") for said in ((LONG,), MANY)),
    ],
    ids="-".join,
)
def test_what_a_host_says_of_itself_is_bounded(said: dict[str, object]) -> None:
    """It is stored, and read with every choice of a host."""
    with pytest.raises(believed.NotBelieved, match="more of itself"):
        believed.require_own(LIAR, msgspec.structs.replace(OWN, **said), SETTINGS)


@pytest.mark.parametrize("said", [{"nic_slots": 10**6}, {"nic_slots": -1}, {"machine_type": "x" * 10_000}])
def test_a_guest_that_cannot_be_is_not_believed(said: dict[str, object]) -> None:
    told = Guest(server_id="s", name="s", vcpus=1, memory_mib=1, disk_gib=1, image=None)
    with pytest.raises(believed.NotBelieved, match="cannot be"):
        believed.made(told, msgspec.structs.replace(told, **said))


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (m.PrepareIncoming, {"address": "192.0.2.1"}),
        (m.PrepareIncoming, {"peer.host": "another"}),
        (m.PrepareIncoming, {"peer.move": "another"}),
        (m.PrepareOutgoing, {"host": "another"}),
        (m.PrepareOutgoing, {"move": "another"}),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, dict) else m.name_of(one),
)
def test_an_end_of_a_move_that_names_another_place_host_or_move_is_not_believed(
    verb: type[m.Message[object]], said: dict[str, str]
) -> None:
    """The other end would connect there."""

    def changed(answer: object) -> object:
        assert isinstance(answer, Peer | Endpoint)
        (name, value), *_ = said.items()
        if isinstance(answer, Endpoint) and name.startswith("peer."):
            return msgspec.structs.replace(
                answer, peer=msgspec.structs.replace(answer.peer, **{name.removeprefix("peer."): value})
            )
        return msgspec.structs.replace(answer, **said)

    with cumulet.testing.cloud(hosts=2) as cloud:
        admin, member = cloud.persona("admin"), cloud.persona("member")
        server = create_pair(member)[0]
        source = host_of(admin, server)
        destination = other(source)
        liar = destination if verb is m.PrepareIncoming else source
        honest = other(liar)
        with (
            instead(cloud, liar, lambda link: Liar(link, verb, changed)),
            instead(cloud, honest, lambda link: Liar(link, verb, lambda answer: answer)) as watched,
        ):
            assert admin.action(server, {"os-migrateLive": {"host": destination, **AUTO}}).status == 202
            admin.wait("its end", lambda: last_migration(admin, server)["status"] == "error")
            assert "HOST_NOT_BELIEVED" in event_details(admin, server)
            assert not {"start-copy", "prepare-incoming"} & set(watched.sent)
            member.wait_for_status(server, "ACTIVE")
            assert host_of(admin, server) == source
