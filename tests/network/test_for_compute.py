"""What compute asks of Network: nics by Nova's rules, addresses that are never given twice, bindings of a move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from cumulet.clock import SystemClock
from cumulet.db import schema
from cumulet.db.engine import Database, Tx
from cumulet.errors import ApiError
from cumulet.network import bindings as all_bindings
from cumulet.network import bindings_for_compute as bindings
from cumulet.network import for_compute, limits, port_life, routing, topology
from cumulet.network.for_compute import NetworkRequest, PortView, RequestedNetwork
from cumulet.network.group_records import SecurityGroup
from cumulet.network.limits import network_quotas
from cumulet.network.store import Network, Port, change, find, insert, ports

OURS, THEIRS = "project-ours", "project-theirs"


class Lab:
    """A database and what compute would call in it."""

    def __init__(self, database: Database) -> None:
        self.db = database
        self.clock = SystemClock()

    def network(self, cidr: str | None = "10.0.0.0/24", project: str = OURS, **attributes: object) -> Network:
        def make(tx: Tx) -> Network:
            network = topology.add_network(tx, self.clock, project_id=project, name="n", wire_mtu=1500, **attributes)  # type: ignore[arg-type]
            if cidr is not None:
                topology.add_subnet(tx, self.clock, network, cidr=ip_network(cidr))
            return network

        return self.db.write(make)

    def port(self, network: Network, project: str = OURS) -> Port:
        new = port_life.NewPort(project_id=project)
        return self.db.write(lambda tx: port_life.make(tx, self.clock, network, new))

    def group(self, project: str, name: str) -> SecurityGroup:
        return self.db.write(
            lambda tx: insert(
                tx, SecurityGroup, self.clock, project_id=project, name=name, stateful=True, is_default=False
            )
        )

    def allocate(
        self, request: NetworkRequest, server: str = "server", groups: tuple[str, ...] = (), is_admin: bool = False
    ) -> list[PortView]:
        return self.db.write(
            lambda tx: for_compute.allocate(
                tx,
                clock=self.clock,
                caller_project_id=OURS,
                is_admin=is_admin,
                server_id=server,
                server_hostname=server,
                availability_zone="nova",
                request=request,
                wire_mtu=1500,
                security_groups=groups,
            )
        )

    def validate(self, request: NetworkRequest, count: int = 1) -> int:
        return self.db.read(
            lambda tx: for_compute.validate_request(
                tx, caller_project_id=OURS, is_admin=False, request=request, min_count=count, max_count=count
            )
        )

    def refused(self, request: NetworkRequest, count: int = 1) -> int:
        """The status with which both refuse: the check in advance, and the allocation itself."""
        with pytest.raises(ApiError) as in_advance:
            self.validate(request, count)
        if count == 1:
            with pytest.raises(ApiError) as when_made:
                self.allocate(request)
            assert when_made.value.status == in_advance.value.status
        return in_advance.value.status


@pytest.fixture
def lab() -> Iterator[Lab]:
    database = Database("sqlite://", inline=True)
    schema.prepare(database)
    yield Lab(database)
    database.close()


def on(network: Network, fixed_ip: str | None = None) -> tuple[RequestedNetwork, ...]:
    return (RequestedNetwork(network_id=network.id, fixed_ip=fixed_ip),)


def test_a_server_gets_a_port_on_the_network_it_names(lab: Lab) -> None:
    network = lab.network()
    (port,) = lab.allocate(on(network))
    assert port.network_name == "n"
    assert [address.with_prefix for address in port.addresses] == ["10.0.0.2/24"]
    assert port.security_groups == ("default",)
    assert port.created_by_compute
    stored = lab.db.read(lambda tx: find(tx, Port, ports.c.id == port.id))[0]
    assert (stored.device_id, stored.device_owner) == ("server", "compute:nova")


def test_without_networks_novas_old_rule_holds(lab: Lab) -> None:
    assert lab.allocate(None, "first") == []
    lab.network(project=THEIRS)
    assert lab.allocate(None, "second") == []
    lab.network()
    assert len(lab.allocate(None, "third")) == 1
    lab.network("10.1.0.0/24")
    assert lab.refused(None) == 409
    assert lab.refused("auto") == 409
    assert lab.allocate("none", "fourth") == []


def test_auto_makes_a_topology_once_where_there_is_a_default_way_out(lab: Lab) -> None:
    with pytest.raises(ApiError) as refused:
        lab.allocate("auto")
    assert refused.value.status == 400
    lab.network("172.24.4.0/24", project=THEIRS, external=True, is_default=True)
    first = lab.allocate("auto", "first")
    second = lab.allocate("auto", "second")
    assert first[0].network_id == second[0].network_id


def test_auto_takes_no_network_that_is_down(lab: Lab) -> None:
    lab.network("172.24.4.0/24", project=THEIRS, external=True, is_default=True)
    down = lab.network()
    lab.db.write(lambda tx: change(tx, Network, down.id, None, admin_state_up=False))
    (made,) = lab.allocate("auto", "first")
    assert made.network_id != down.id


def test_unknown_things_and_those_of_others_are_refused_alike(lab: Lab) -> None:
    theirs = lab.network(project=THEIRS)
    their_port = lab.port(theirs, THEIRS)
    for request in (
        on(theirs),
        (RequestedNetwork(network_id="00000000-0000-0000-0000-000000000000"),),
        (RequestedNetwork(port_id=their_port.id),),
        (RequestedNetwork(port_id="00000000-0000-0000-0000-000000000000"),),
    ):
        assert lab.refused(request) == 400


def test_another_projects_port_on_our_network_is_refused(lab: Lab) -> None:
    port = lab.port(lab.network(), THEIRS)
    assert lab.refused((RequestedNetwork(port_id=port.id),)) == 400


def test_a_port_is_plugged_once_and_unplugged_with_its_server(lab: Lab) -> None:
    port = lab.port(lab.network())
    wanted = (RequestedNetwork(port_id=port.id, tag="eth"),)
    (view,) = lab.allocate(wanted)
    assert (view.id, view.tag, view.created_by_compute) == (port.id, "eth", False)
    assert lab.refused(wanted) == 409
    lab.db.write(lambda tx: for_compute.release(tx, "server"))
    after = lab.db.read(lambda tx: find(tx, Port, ports.c.id == port.id))[0]
    assert (after.device_id, after.device_owner, after.server_id, after.status) == ("", "", None, "DOWN")
    assert lab.allocate(wanted, "another")[0].id == port.id


def test_a_network_without_subnet_and_an_external_one_are_refused(lab: Lab) -> None:
    assert lab.refused(on(lab.network(None))) == 400
    external = lab.network("172.24.4.0/24", project=THEIRS, external=True)
    assert lab.refused(on(external)) == 403
    assert len(lab.allocate(on(external), is_admin=True)) == 1


def test_one_fixed_ip_or_port_is_for_one_server(lab: Lab) -> None:
    network = lab.network()
    assert lab.allocate(on(network, "10.0.0.77"))[0].addresses[0].address == "10.0.0.77"
    assert lab.refused(on(network, "10.0.0.77")) == 400
    assert lab.refused(on(network, "10.9.0.1")) == 400
    assert lab.refused(on(network, "10.0.0.78"), count=2) == 400
    assert lab.refused((RequestedNetwork(port_id=lab.port(network).id),), count=2) == 400


def test_an_exhausted_network_is_refused_and_release_gives_back(lab: Lab) -> None:
    network = lab.network("10.0.0.0/29")
    given = [lab.allocate(on(network), f"server{n}")[0].addresses[0].address for n in range(5)]
    assert given == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(ApiError) as refused:
        lab.allocate(on(network), "one-too-many")
    assert refused.value.status == 400
    lab.db.write(lambda tx: for_compute.release(tx, "server2"))
    assert lab.allocate(on(network), "later")[0].addresses[0].address == "10.0.0.4"


def test_the_port_quota_counts_before_and_while_making(lab: Lab) -> None:
    network = lab.network()
    row = {"project_id": OURS, "resource": "port", "limit": 3}
    lab.db.write(lambda tx: tx.execute(network_quotas.insert().values(**row)))
    assert lab.validate(on(network), 3) == 3
    assert lab.refused(on(network), 4) == 403
    fits = lab.db.read(
        lambda tx: for_compute.validate_request(
            tx, caller_project_id=OURS, is_admin=False, request=on(network), min_count=1, max_count=10
        )
    )
    assert fits == 3
    for n in range(3):
        lab.allocate(on(network), f"server{n}")
    assert lab.refused(on(network)) == 403
    assert lab.db.read(lambda tx: limits.used(tx, OURS, "port")) == 3


def test_how_many_fit_depends_on_how_many_ports_each_needs(lab: Lab) -> None:
    one, another = lab.network(), lab.network("10.1.0.0/24")
    row = {"project_id": OURS, "resource": "port", "limit": 5}
    lab.db.write(lambda tx: tx.execute(network_quotas.insert().values(**row)))
    both: NetworkRequest = (*on(one), *on(another))
    fits = lab.db.read(
        lambda tx: for_compute.validate_request(
            tx, caller_project_id=OURS, is_admin=False, request=both, min_count=1, max_count=10
        )
    )
    assert fits == 2
    assert lab.refused(both, 3) == 403


def test_a_second_binding_is_like_the_first(lab: Lab) -> None:
    """What the port's owner asked of its NIC holds at the destination of a move, too."""
    new = port_life.NewPort(
        project_id=OURS, server_id="server", host="host1", vnic_type="direct", profile={"trusted": "true"}
    )
    network = lab.network()
    port = lab.db.write(lambda tx: port_life.make(tx, lab.clock, network, new))
    lab.db.write(lambda tx: bindings.add_inactive(tx, "server", "host2"))
    lab.db.write(lambda tx: bindings.activate(tx, "server", "host2"))
    (left,) = lab.db.read(lambda tx: all_bindings.of_ports(tx, [port.id])[port.id])
    assert (left.host, left.active, left.vnic_type, left.profile) == ("host2", True, "direct", {"trusted": "true"})


def test_a_move_has_two_bindings_and_then_one(lab: Lab) -> None:
    network = lab.network()
    lab.allocate((*on(network), *on(network)))

    def hosts() -> set[tuple[str, tuple[str, ...]]]:
        found = lab.db.read(lambda tx: bindings.hosts_of(tx, "server"))
        assert len(found) == 2
        return {(binding.active, binding.inactive) for binding in found.values()}

    def twice(step: Callable[[Tx, str, str], None], host: str) -> None:
        lab.db.write(lambda tx: step(tx, "server", host))
        once = hosts()
        lab.db.write(lambda tx: step(tx, "server", host))
        assert hosts() == once

    assert hosts() == {("", ())}
    twice(bindings.bind, "host1")
    assert hosts() == {("host1", ())}
    twice(bindings.add_inactive, "host2")
    assert hosts() == {("host1", ("host2",))}
    twice(bindings.remove_inactive, "host2")
    assert hosts() == {("host1", ())}
    twice(bindings.remove_inactive, "host1")
    assert hosts() == {("host1", ())}
    twice(bindings.add_inactive, "host2")
    twice(bindings.activate, "host2")
    assert hosts() == {("host2", ())}
    twice(bindings.add_inactive, "host1")
    twice(bindings.bind, "host1")
    assert hosts() == {("host1", ())}


def test_names_of_security_groups_are_the_projects_own(lab: Lab) -> None:
    network = lab.network()
    for project, name in ((OURS, "web"), (OURS, "twice"), (OURS, "twice"), (THEIRS, "theirs")):
        lab.group(project, name)
    assert lab.allocate(on(network), groups=("web",))[0].security_groups == ("web",)
    for name, status in (("theirs", 400), ("nothing", 400), ("twice", 409)):
        with pytest.raises(ApiError) as refused:
            lab.allocate(on(network), name, (name,))
        assert refused.value.status == status


def test_ports_of_many_servers_keep_their_order(lab: Lab) -> None:
    first, second = lab.network(), lab.network("10.1.0.0/24")
    for n in range(20):
        order = (*on(first), *on(second)) if n % 2 else (*on(second), *on(first))
        lab.allocate(order, f"server{n}")
    found = lab.db.read(lambda tx: for_compute.ports_of(tx, [f"server{n}" for n in range(20)] + ["unknown"]))
    assert set(found) == {f"server{n}" for n in range(20)}
    for n in range(20):
        networks = [port.network_id for port in found[f"server{n}"]]
        assert networks == ([first.id, second.id] if n % 2 else [second.id, first.id])


def test_a_port_that_comes_later_is_the_last_however_old_it_is(lab: Lab) -> None:
    network = lab.network()
    own = lab.port(network)
    (first,) = lab.allocate(on(network))
    later = lab.allocate((RequestedNetwork(port_id=own.id),))
    assert [port.id for port in later] == [first.id, own.id]


def test_a_router_connects_and_lets_go(lab: Lab) -> None:
    external = lab.network("172.24.4.0/24", project=THEIRS, external=True)

    def story(tx: Tx) -> list[Port]:
        inside = topology.add_network(tx, lab.clock, project_id=OURS, name="inside", wire_mtu=1500)
        subnet = topology.add_subnet(tx, lab.clock, inside, cidr=ip_network("10.0.0.0/24"))
        router = routing.add_router(tx, lab.clock, project_id=OURS)
        routing.set_gateway(tx, lab.clock, router, external, fixed_ips=None, enable_snat=True)
        port = routing.add_interface_by_subnet(tx, lab.clock, router, subnet)
        with pytest.raises(ApiError):
            routing.add_interface_by_subnet(tx, lab.clock, router, subnet)
        routing.remove_interface(tx, lab.clock, router, port)
        return find(tx, Port, ports.c.device_id == router.id)

    (gateway,) = lab.db.write(story)
    assert gateway.device_owner == "network:router_gateway"
