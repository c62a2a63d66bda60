"""Floating IPs: ``/floatingips``. An address of an external network that leads to a port behind a router."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.errors import Conflict, NotFound
from cumulet.network import (
    addresses,
    bodies,
    filtering,
    limits,
    policy,
    port_life,
    qos,
    refusals,
    resource,
    topology,
)
from cumulet.network.addresses import FixedIp
from cumulet.network.bodies import either, text
from cumulet.network.device_owners import FLOATING_IP, ROUTER_INTERFACE
from cumulet.network.forwarding_records import SHOWN, forwarding_view, port_forwardings
from cumulet.network.hosts import FLOATING_IP_LIMITS
from cumulet.network.networks import NETWORKS
from cumulet.network.ports import PORTS
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sight import own_in_sight
from cumulet.network.store import (
    FloatingIp,
    Network,
    Port,
    Router,
    change,
    delete,
    find,
    floating_ips,
    insert,
    load,
    must_get,
    port_addresses,
    ports,
    routers,
    select,
    tags_of,
)
from cumulet.network.subnets import SUBNETS
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Unset

CREATE = rule("create_floatingip", policy.ADMIN_OR_PROJECT_MEMBER, description="Create a floating IP")
CREATE_ATTRIBUTES = policy.attribute_rules(
    CREATE,
    {
        "floating_ip_address": policy.ADMIN_OR_PROJECT_MANAGER,
        "router_id": policy.ADMIN_OR_PROJECT_MEMBER,
        "tags": policy.ADMIN_OR_PROJECT_MEMBER,
    },
)
SHOW = rule("get_floatingip", policy.ADMIN_OR_PROJECT_READER, description="See a floating IP")
SHOW_ATTRIBUTES = policy.attribute_rules(SHOW, {"tags": policy.ADMIN_OR_PROJECT_READER})
UPDATE = rule("update_floatingip", policy.ADMIN_OR_PROJECT_MEMBER, description="Lead a floating IP elsewhere")
UPDATE_ATTRIBUTES = policy.attribute_rules(
    UPDATE, {"router_id": policy.ADMIN_OR_PROJECT_MEMBER, "tags": policy.ADMIN_OR_PROJECT_MEMBER}
)
DELETE = rule("delete_floatingip", policy.ADMIN_OR_PROJECT_MEMBER, description="Give a floating IP back")
DELETE_TAGS = rule("delete_floatingip:tags", policy.ADMIN_OR_PROJECT_MEMBER, description="Remove a floating IP's tags")


_FORWARDED = OfMany(
    sa.select(port_forwardings.c.floating_ip_id, *SHOWN).order_by(port_forwardings.c.id),
    port_forwardings.c.floating_ip_id,
)


def floating_ip_views(tx: Tx, records: Sequence[FloatingIp]) -> list[View]:
    """Floating IPs as the API shows them."""
    tags = tags_of(tx, [record.id for record in records])
    port_ids = [record.port_id for record in records if record.port_id]
    forwarded: dict[str, list[View]] = {}
    for floating_id, *shown in _FORWARDED.rows(tx, [record.id for record in records]):
        forwarded.setdefault(str(floating_id), []).append(forwarding_view(*shown))
    leads_to = {port.id: port for port in find(tx, Port, ports.c.id.in_(port_ids))} if port_ids else {}
    return [
        resource.resource_view(record, tags.get(record.id, []))
        | {
            "floating_ip_address": record.floating_ip_address,
            "floating_network_id": record.floating_network_id,
            "router_id": record.router_id,
            "port_id": record.port_id,
            "fixed_ip_address": record.fixed_ip_address,
            "status": "ACTIVE" if record.router_id else "DOWN",
            "dns_name": record.dns_name,
            "dns_domain": record.dns_domain,
            "qos_policy_id": record.qos_policy_id,
            "port_details": _port_details(leads_to[record.port_id]) if record.port_id else None,
            "port_forwardings": forwarded.get(record.id, []),
        }
        for record in records
    ]


def _port_details(port: Port) -> View:
    return {
        "name": port.name,
        "network_id": port.network_id,
        "mac_address": port.mac_address,
        "admin_state_up": port.admin_state_up,
        "status": port.status,
        "device_id": port.device_id,
        "device_owner": port.device_owner,
    }


_FORWARDS = sa.select(port_forwardings.c.id).where(port_forwardings.c.floating_ip_id == sa.bindparam("of")).limit(1)


def _refuse_forwarding(tx: Tx, floating: FloatingIp) -> None:
    """409 for a floating IP that forwards ports."""
    if tx.first(_FORWARDS, {"of": floating.id}) is not None:
        raise Conflict(
            f"Floating IP {floating.id} in use by Port Forwarding resources.", reason="FipInUseByPortForwarding"
        )


_STATUS = sa.case((floating_ips.c.router_id.is_not(None), sa.literal("ACTIVE")), else_=sa.literal("DOWN"))

FLOATING_IPS = Kind(
    record=FloatingIp,
    singular="floatingip",
    plural="floatingips",
    title="Floating IP",
    show=SHOW,
    sight=lambda caller: own_in_sight(caller, floating_ips),
    filters=resource.filters_on(
        floating_ips,
        "floating_network_id",
        "router_id",
        "port_id",
        floating_ip_address=filtering.address,
        fixed_ip_address=filtering.address,
    )
    | {"status": filtering.by_column(_STATUS, "status")},
    sorts=resource.sorts_on(floating_ips, "floating_ip_address", "floating_network_id", "router_id", "fixed_ip_address")
    | {"status": _STATUS},
    views=floating_ip_views,
    hidden=SHOW_ATTRIBUTES,
)


class NewFloatingIp(bodies.NewResource):
    floating_network_id: bodies.Id
    floating_ip_address: bodies.IpAddress | Unset | None = UNSET
    subnet_id: bodies.Id | Unset | None = UNSET
    port_id: bodies.Id | Unset | None = UNSET
    fixed_ip_address: bodies.IpAddress | Unset | None = UNSET
    dns_name: bodies.RelativeDnsName | Unset = UNSET
    dns_domain: bodies.DnsDomain | Unset = UNSET
    qos_policy_id: bodies.Id | Unset | None = UNSET
    tags: bodies.Tags | Unset = UNSET


class CreateFloatingIps(Body):
    floatingip: NewFloatingIp | Unset = UNSET
    floatingips: list[NewFloatingIp] | Unset = UNSET


class UpdateFloatingIp(bodies.ResourceChange):
    qos_policy_id: bodies.Id | Unset | None = UNSET
    port_id: bodies.Id | Unset | None = UNSET
    fixed_ip_address: bodies.IpAddress | Unset | None = UNSET


@NETWORK.operation("GET", "/floatingips", rules=())
def list_floatingips(call: Call[None, None]) -> View:
    """List the project's floating IPs; for administrators all."""
    return resource.listed(call, FLOATING_IPS)


@NETWORK.operation(
    "POST",
    "/floatingips",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(FLOATING_IPS),
    body=CreateFloatingIps,
    success=201,
)
def create_floatingips(call: Call[None, CreateFloatingIps]) -> View:
    """Take an address of an external network, or several at once."""
    return resource.created(call, FLOATING_IPS, lambda new: create(call, new))


def create(call: Call[object, object], new: NewFloatingIp) -> FloatingIp:
    """Create a floating IP, for this API and for Compute's older one."""
    tx, clock = call.tx, call.cloud.clock
    project_id = resource.may_create(call, new, CREATE, CREATE_ATTRIBUTES)
    network = resource.find_in_sight(call, NETWORKS, new.floating_network_id)
    if isinstance(new.subnet_id, str):
        resource.find_in_sight(call, SUBNETS, new.subnet_id)
    if not network.external:
        raise refusals.bad("floatingip", f"Network {network.id} is not a valid external network.")
    limits.check(tx, project_id, "floatingip")
    floating_id = clock.uuid()
    port, address = _take_address(call, network, new, floating_id)
    floating = insert(
        tx,
        FloatingIp,
        clock,
        id=floating_id,
        project_id=project_id,
        description=text(new.description),
        floating_network_id=network.id,
        floating_port_id=port.id,
        floating_ip_address=address,
        port_id=None,
        fixed_ip_address=None,
        router_id=None,
        dns_name=text(new.dns_name),
        dns_domain=text(new.dns_domain),
        qos_policy_id=qos.wanted(call, new.qos_policy_id, FLOATING_IP_LIMITS),
    )
    topology.set_tags(tx, floating.id, either(new.tags, []))
    if isinstance(new.port_id, str):
        lead_to(call, floating, new.port_id, either(new.fixed_ip_address, None))
    elif isinstance(new.fixed_ip_address, str):
        raise refusals.bad("floatingip", "fixed_ip_address cannot be specified without a port_id.")
    return must_get(tx, FloatingIp, floating.id)


def _take_address(
    call: Call[object, object], network: Network, new: NewFloatingIp, floating_id: str
) -> tuple[Port, str]:
    """A port on the external network that holds the address."""
    named = FixedIp(subnet_id=either(new.subnet_id, None), address=either(new.floating_ip_address, None))
    made = port_life.make(
        call.tx,
        call.cloud.clock,
        network,
        port_life.NewPort(
            project_id="",
            fixed_ips=None if named == FixedIp() else [named],
            device_id=floating_id,
            device_owner=FLOATING_IP,
            status="N/A",
            security_group_ids=[],
            port_security_enabled=False,
        ),
    )
    held = [fixed.address for fixed in addresses.of_port(call.tx, made.id) if fixed.address]
    floating = next((address for address in held if ip_address(address).version == 4), None)
    if floating is None:
        raise refusals.bad("floatingip", f"Network {network.id} does not contain any IPv4 subnet.")
    addresses.give_back(call.tx, made.id, [address for address in held if address != floating])
    return made, floating


def lead_to(call: Call[object, object], floating: FloatingIp, port_id: str, fixed_ip: str | None) -> None:
    """Lead a floating IP to an address of a port. A router must connect the port to the external network."""
    tx = call.tx
    _refuse_forwarding(tx, floating)
    port = resource.find_in_sight(call, PORTS, port_id)
    if port.project_id != floating.project_id and not call.caller.is_admin:
        # Who owns a network sees all ports on it.
        raise refusals.bad(
            "floatingip",
            f"Cannot process floating IP association with Port {port.id}, since that port is owned by a different "
            "project.",
        )
    held = addresses.of_port(tx, port.id)
    inner = addresses.of_version(held, 4)
    if fixed_ip is not None and ip_address(fixed_ip).version != 4:
        raise refusals.bad(
            "floatingip", f"Cannot process floating IP association with {fixed_ip}, since that is not an IPv4 address."
        )
    if fixed_ip is not None:
        inner = [fixed for fixed in inner if fixed.address == fixed_ip]
    if not inner:
        missing = f"fixed IP {fixed_ip}" if fixed_ip else "a fixed IPv4 address"
        raise refusals.bad("floatingip", f"Port {port.id} does not have {missing}.")
    if len(inner) > 1:
        raise refusals.bad(
            "floatingip",
            f"Port {port.id} has multiple fixed IPv4 addresses. Must provide a specific IPv4 "
            "address when assigning a floating IP.",
        )
    target = inner[0]
    others = find(
        tx,
        FloatingIp,
        floating_ips.c.port_id == port.id,
        floating_ips.c.fixed_ip_address == target.address,
        floating_ips.c.floating_network_id == floating.floating_network_id,
        floating_ips.c.id != floating.id,
    )
    if others:
        raise already_associated(floating, port, target.address)
    router = router_between(tx, target.subnet_id or "", floating.floating_network_id)
    if router is None:
        raise NotFound(
            f"External network {floating.floating_network_id} is not reachable from subnet {target.subnet_id}. "
            f"Therefore, cannot associate Port {port.id} with a Floating IP.",
            reason="ExternalGatewayForFloatingIPNotFound",
        )
    change(
        tx,
        FloatingIp,
        floating.id,
        call.now_us,
        port_id=port.id,
        fixed_ip_address=target.address,
        router_id=router.id,
    )


def already_associated(floating: FloatingIp, port: Port, fixed_ip: str | None) -> Conflict:
    """409 for a port's address that has a floating IP already, in Neutron's words."""
    return Conflict(
        f"Cannot associate floating IP {floating.floating_ip_address} ({floating.id}) with port {port.id} using "
        f"fixed IP {fixed_ip}, as that fixed IP already has a floating IP on external network "
        f"{floating.floating_network_id}.",
        reason="FloatingIPPortAlreadyAssociated",
    )


def lead_nowhere(call: Call[object, object], floating: FloatingIp) -> None:
    """Let a floating IP lead to no port. It stays the project's."""
    change(call.tx, FloatingIp, floating.id, call.now_us, port_id=None, fixed_ip_address=None, router_id=None)


_INTERFACES = (
    sa.select(ports.c.device_id)
    .join(port_addresses, port_addresses.c.port_id == ports.c.id)
    .where(port_addresses.c.subnet_id == sa.bindparam("of_subnet"), ports.c.device_owner == ROUTER_INTERFACE)
)
_BETWEEN = (
    select(Router, routers.c.id.in_(_INTERFACES))
    .join(ports, ports.c.id == routers.c.gateway_port_id)
    .where(ports.c.network_id == sa.bindparam("of_external"))
    .order_by(routers.c.id)
    .limit(1)
)


def router_between(tx: Tx, subnet_id: str, external_id: str) -> Router | None:
    """A router with an interface on the subnet and its gateway on the external network."""
    return next(iter(load(tx, Router, _BETWEEN, {"of_subnet": subnet_id, "of_external": external_id})), None)


@NETWORK.operation("GET", "/floatingips/{floatingip_id}", rules=(), target=resource.target(FLOATING_IPS))
def show_floatingip(call: Call[FloatingIp, None]) -> View:
    """Show a floating IP."""
    return resource.shown(call, FLOATING_IPS, call.target)


@NETWORK.operation(
    "PUT",
    "/floatingips/{floatingip_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(FLOATING_IPS),
    body=UpdateFloatingIp,
    body_key="floatingip",
)
def update_floatingip(call: Call[FloatingIp, UpdateFloatingIp]) -> View:
    """Change a floating IP: which port it leads to, its description or its QoS policy."""
    floating, body = call.target, call.body
    given = resource.given(body)
    policy.require_attributes(call, UPDATE_ATTRIBUTES, given, {"project_id": floating.project_id})
    values = {name: given[name] for name in ("description",) if name in given}
    limit = qos.changed(call, floating.qos_policy_id, body.qos_policy_id, FLOATING_IP_LIMITS)
    if limit is not None:
        _refuse_forwarding(call.tx, floating)
    change(call.tx, FloatingIp, floating.id, call.now_us, qos_policy_id=limit, **values)
    if isinstance(body.port_id, str):
        lead_to(call, floating, body.port_id, either(body.fixed_ip_address, None))
    elif isinstance(body.fixed_ip_address, str):
        raise refusals.bad("floatingip", "fixed_ip_address cannot be specified without a port_id.")
    elif body.port_id is None and floating.port_id is not None:
        lead_nowhere(call, floating)
    return resource.shown(call, FLOATING_IPS, must_get(call.tx, FloatingIp, floating.id))


@NETWORK.operation(
    "DELETE",
    "/floatingips/{floatingip_id}",
    rules=(Rule(DELETE),),
    target=resource.target(FLOATING_IPS),
    success=204,
)
def delete_floatingip(call: Call[FloatingIp, None]) -> None:
    """Give the address back."""
    _refuse_forwarding(call.tx, call.target)
    delete(call.tx, FloatingIp, call.target.id)
    port_life.end(call.tx, call.target.floating_port_id)
