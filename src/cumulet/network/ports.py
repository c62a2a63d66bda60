"""Ports: ``/ports``."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network import (
    address_changes,
    bindings,
    devices,
    dhcp_options,
    dns,
    filtering,
    fixed_ips,
    limits,
    mac_addresses,
    policy,
    port_life,
    port_security,
    port_views,
    qos,
    refusals,
    resource,
    trunk_details,
    trunk_ports,
    wiring_bounds,
)
from cumulet.network.bodies import either, text
from cumulet.network.device_owners import FLOATING_IP, OF_ROUTERS
from cumulet.network.hosts import BANDWIDTH_LIMITS
from cumulet.network.networks_at_hand import NetworksAtHand
from cumulet.network.port_bodies import CreatePorts, NewPort, UpdatePort
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sharing import Shareable, Sharing
from cumulet.network.sight import ports_in_sight
from cumulet.network.store import Network, Port, change, must_get, port_bindings, ports
from cumulet.network.subnets import network_facts
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET

_NETWORK_OWNER = f"{policy.ADMIN_OR_SERVICE} or {policy.NETWORK_OWNER_MEMBER}"
_ON_SHARED = f"{_NETWORK_OWNER} or rule:shared"
_NO_NETWORK_DEVICE = f"not rule:network_device or {_NETWORK_OWNER}"
_MEMBER_OR_SERVICE = f"{policy.ADMIN_OR_PROJECT_MEMBER} or {policy.SERVICE}"
_PAIRS = f"{policy.ADMIN_OR_NETWORK_OWNER_MEMBER} or {policy.SERVICE}"
_READERS = f"{policy.ADMIN_OR_SERVICE} or {policy.NETWORK_OWNER_READER} or {policy.PROJECT_READER}"
_TAGGERS = f"{policy.ADMIN_OR_PROJECT_MEMBER} or {policy.ADVSVC}"
_ANY_OWNER = f"({policy.NETWORK_OWNER_MEMBER} or {policy.PROJECT_MEMBER})"
_MEMBERS = f"{policy.ADMIN_OR_SERVICE} or {policy.PROJECT_MEMBER}"

_PAIR_CHECKS = {
    "allowed_address_pairs": _PAIRS,
    "allowed_address_pairs:mac_address": _PAIRS,
    "allowed_address_pairs:ip_address": _PAIRS,
}
_ADMINS_CHECKS = {"hints": policy.ADMIN, "trusted": policy.ADMIN}

CREATE = rule("create_port", _ON_SHARED, description="Create a port")
CREATE_ATTRIBUTES = policy.attribute_rules(
    CREATE,
    {
        "device_id": _MEMBER_OR_SERVICE,
        "device_owner": _NO_NETWORK_DEVICE,
        "mac_address": _NETWORK_OWNER,
        "fixed_ips": _ON_SHARED,
        "fixed_ips:ip_address": _NETWORK_OWNER,
        "fixed_ips:subnet_id": _ON_SHARED,
        "port_security_enabled": _NETWORK_OWNER,
        "binding:host_id": policy.ADMIN_OR_SERVICE,
        "binding:profile": policy.SERVICE,
        "binding:vnic_type": _MEMBER_OR_SERVICE,
        "tags": _TAGGERS,
    }
    | _PAIR_CHECKS
    | _ADMINS_CHECKS,
)
SHOW = rule("get_port", _READERS, description="See a port")
SHOW_ATTRIBUTES = policy.attribute_rules(
    SHOW,
    {
        "binding:vif_type": policy.ADMIN_OR_SERVICE,
        "binding:vif_details": policy.ADMIN_OR_SERVICE,
        "binding:host_id": policy.ADMIN_OR_SERVICE,
        "binding:profile": policy.ADMIN_OR_SERVICE,
        "resource_request": policy.ADMIN,
        "tags": f"{policy.ADVSVC} or {policy.ADMIN_OR_NETWORK_OWNER_READER} or {policy.PROJECT_READER}",
    }
    | _ADMINS_CHECKS,
)
UPDATE = rule("update_port", _MEMBERS, description="Change a port")
UPDATE_ATTRIBUTES = policy.attribute_rules(
    UPDATE,
    {
        "device_id": _MEMBER_OR_SERVICE,
        "device_owner": _NO_NETWORK_DEVICE,
        "mac_address": f"{policy.ADMIN_OR_SERVICE} or {policy.NETWORK_OWNER_MANAGER}",
        "fixed_ips": _NETWORK_OWNER,
        "fixed_ips:ip_address": _NETWORK_OWNER,
        "fixed_ips:subnet_id": _ON_SHARED,
        "port_security_enabled": _NETWORK_OWNER,
        "binding:host_id": policy.ADMIN_OR_SERVICE,
        "binding:profile": policy.SERVICE,
        "binding:vnic_type": _MEMBERS,
        "data_plane_status": f"{policy.ADMIN} or role:data_plane_integrator",
        "tags": _TAGGERS,
    }
    | _PAIR_CHECKS
    | _ADMINS_CHECKS,
)
DELETE = rule(
    "delete_port",
    f"{policy.ADMIN_OR_SERVICE} or (service_roles:service and {_ANY_OWNER}) or "
    f"(not rule:compute_device and not rule:baremetal_device and not rule:manila_device and {_ANY_OWNER})",
    description="Delete a port",
)
DELETE_TAGS = rule(
    "delete_port:tags",
    f"{policy.ADVSVC} or {policy.PROJECT_MEMBER} or {policy.ADMIN_OR_NETWORK_OWNER_MEMBER}",
    description="Remove tags of a port",
)

PORTS = Kind(
    record=Port,
    singular="port",
    plural="ports",
    title="Port",
    show=SHOW,
    sight=ports_in_sight,
    filters=resource.filters_on(
        ports,
        "name",
        "network_id",
        "admin_state_up",
        "device_id",
        "device_owner",
        "status",
        mac_address=filtering.mac,
    )
    | {
        "fixed_ips": port_views.has_fixed_ip,
        "security_groups": port_views.in_groups,
        "ip_allocation": filtering.by_column(port_views.IP_ALLOCATION, "ip_allocation"),
        "binding:host_id": lambda values: port_views.of_active_binding(port_bindings.c.host, values),
    },
    sorts=resource.sorts_on(
        ports, "name", "network_id", "admin_state_up", "mac_address", "device_id", "device_owner", "status"
    )
    | {"ip_allocation": port_views.IP_ALLOCATION},
    views=port_views.port_views,
    hidden=SHOW_ATTRIBUTES,
    parents=network_facts,
    sharing=Sharing(object_type=Shareable.NETWORK, column=ports.c.network_id, shown=False),
)


def _policed(given: Mapping[str, object]) -> list[str]:
    """The attributes given, and those parts of them that have rules of their own."""
    names = list(given)
    for attribute in ("fixed_ips", "allowed_address_pairs"):
        if isinstance(parts := given.get(attribute), list):
            names += [f"{attribute}:{name}" for part in parts for name in resource.given(part)]
    return list(dict.fromkeys(names))


# -- operations


@NETWORK.operation("GET", "/ports", rules=())
def list_ports(call: Call[None, None]) -> View:
    """List ports: the project's and those on its networks; for administrators all."""
    return resource.listed(call, PORTS)


def _first_facts(call: Call[object, object]) -> View:
    return _creation_facts(NetworksAtHand(call), resource.items_of(call.body, "port", "ports")[0][0])


def _creation_facts(networks: NetworksAtHand, new: NewPort) -> View:
    return networks.facts(new.network_id) | {
        "project_id": resource.owner(networks.call, new),
        "device_owner": text(new.device_owner),
    }


@NETWORK.operation("POST", "/ports", rules=(Rule(CREATE),), facts=_first_facts, body=CreatePorts, success=201)
def create_ports(call: Call[None, CreatePorts]) -> View:
    """Create a port, or several at once."""
    fixed_ips.refuse_too_many([new.fixed_ips for new in resource.items_of(call.body, "port", "ports")[0]])
    networks, made = NetworksAtHand(call), list[str]()
    shown = resource.created(call, PORTS, lambda new: _create(call, new, networks, made))
    wiring_bounds.check_new(call.tx, made)
    dhcp_options.check_new(call.tx, made)
    return shown


def _create(call: Call[object, object], new: NewPort, networks: NetworksAtHand, ids: list[str]) -> Port:
    tx, facts = call.tx, _creation_facts(networks, new)
    project_id = str(facts["project_id"])
    given = resource.given(new, but_defaults=True)
    call.require(CREATE, facts)
    policy.require_attributes(call, CREATE_ATTRIBUTES, _policed(given), facts)
    devices.refuse_network_owner(call.caller, new.device_owner)
    options = dhcp_options.wanted_of(new.extra_dhcp_opts)
    devices.refuse_foreign(tx, call.caller, project_id, new.device_id)
    limits.check(tx, project_id, "port")
    network = networks.in_sight(new.network_id)
    dns.refuse_too_long(text(new.dns_name), network)
    secured: bool | None = either(new.port_security_enabled, None)
    wanted_groups = port_security.wanted_groups(call, new.security_groups, networks.groups_seen)
    effective = network.port_security_enabled if secured is None else secured
    if not effective and wanted_groups:
        raise refusals.needs_port_security(network.id)
    pairs = port_security.wanted_pairs(new.allowed_address_pairs)
    if not effective and pairs:
        raise refusals.pairs_need_port_security()
    made = port_life.make(
        tx,
        call.cloud.clock,
        network,
        port_life.NewPort(
            project_id=project_id,
            name=text(new.name),
            description=text(new.description),
            admin_state_up=either(new.admin_state_up, True),
            mac_address=either(new.mac_address, None),
            fixed_ips=fixed_ips.wanted_of(call, new.fixed_ips, networks.subnets_seen),
            device_id=text(new.device_id),
            device_owner=text(new.device_owner),
            port_security_enabled=secured,
            security_group_ids=wanted_groups,
            allowed_address_pairs=port_security.as_given(pairs),
            dns_name=text(new.dns_name),
            qos_policy_id=qos.wanted(call, new.qos_policy_id, BANDWIDTH_LIMITS),
            host=text(new.host_id),
            vnic_type=either(new.vnic_type, None) or "normal",
            profile=either(new.profile, None) or {},
            tags=either(new.tags, []),
        ),
        networks.subnets_of(network.id),
    )
    dhcp_options.change(tx, made.id, options, new=True)
    ids.append(made.id)
    return made


@NETWORK.operation("GET", "/ports/{port_id}", rules=(), target=resource.target(PORTS))
def show_port(call: Call[Port, None]) -> View:
    """Show a port."""
    return resource.shown(call, PORTS, call.target)


def _update_facts(call: Call[Port, UpdatePort]) -> View:
    facts = resource.facts_of(PORTS, call, call.target)
    if call.body.device_owner is not UNSET:
        facts["device_owner"] = text(call.body.device_owner)
    return facts


@NETWORK.operation(
    "PUT",
    "/ports/{port_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(PORTS),
    facts=_update_facts,
    body=UpdatePort,
    body_key="port",
)
def update_port(call: Call[Port, UpdatePort]) -> View:
    """Change a port."""
    tx, port, body = call.tx, call.target, call.body
    given = resource.given(body)
    policy.require_attributes(call, UPDATE_ATTRIBUTES, _policed(given), _update_facts(call))
    devices.refuse_network_owner(call.caller, body.device_owner)
    options = dhcp_options.wanted_of(body.extra_dhcp_opts)
    devices.refuse_foreign(tx, call.caller, port.project_id, body.device_id)
    if port.server_id is not None:
        _refuse_what_compute_decides(port, given)
    _refuse_other_nic(tx, port, given)
    _refuse_other_device(tx, port, given)
    values: dict[str, object] = {name: given[name] for name in ("name", "admin_state_up") if name in given}
    dns.refuse_too_long(text(body.dns_name), must_get(tx, Network, port.network_id))
    for name in ("description", "device_id", "device_owner", "dns_name"):
        if name in given:
            values[name] = text(given[name])
    if isinstance(body.mac_address, str) and body.mac_address != port.mac_address:
        _refuse_mac(tx, port, body.mac_address)
        values["mac_address"] = body.mac_address
    values["qos_policy_id"] = qos.changed(call, port.qos_policy_id, body.qos_policy_id, BANDWIDTH_LIMITS)
    heavier = not {"fixed_ips", "allowed_address_pairs", "security_groups"}.isdisjoint(given)
    before = wiring_bounds.of_port(tx, port.id) if heavier else 0
    touched = port_security.change(call, port, body, values)
    if isinstance(body.fixed_ips, list) or "mac_address" in values:
        wanted, dropped = fixed_ips.wanted_of(call, body.fixed_ips), fixed_ips.dropped_of(either(body.fixed_ips, []))
        touched |= address_changes.change(tx, port, str(values.get("mac_address", port.mac_address)), wanted, dropped)
    touched |= _change_binding(tx, port, given)
    touched |= dhcp_options.change(tx, port.id, options, moved=isinstance(body.fixed_ips, list))
    change(tx, Port, port.id, call.now_us, touched, **values)
    if heavier:
        wiring_bounds.check(tx, port.id, before=before)
    return resource.shown(call, PORTS, must_get(tx, Port, port.id))


def _gets_other_device(port: Port, given: Mapping[str, object]) -> bool:
    current = {"device_id": port.device_id, "device_owner": port.device_owner}
    return any(name in given and text(given[name]) != value for name, value in current.items())


def _refuse_other_device(tx: Tx, port: Port, given: Mapping[str, object]) -> None:
    """409 for a port of a router or in a trunk: only as what it is does it end by itself, and is guarded till then."""
    if not _gets_other_device(port, given):
        return
    if port.device_owner in (*OF_ROUTERS, FLOATING_IP):
        raise Conflict(
            f"The device of port {port.id} cannot be changed via the port API: has device owner {port.device_owner}.",
            reason="ServicePortInUse",
        )
    trunk_details.refuse_subport(tx, port)


def _refuse_what_compute_decides(port: Port, given: Mapping[str, object]) -> None:
    if _gets_other_device(port, given) or "binding:host_id" in given:
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. It is attached to server "
            f"{port.server_id}; detach it there.",
            reason="PortInUse",
        )


def _refuse_other_nic(tx: Tx, port: Port, given: Mapping[str, object]) -> None:
    """409 for another kind of NIC while a guest may have this one, or, of a shelved server, will have it again."""
    binding = trunk_ports.bindings_of(tx, [port.id])[port.id][0]
    changes = (given.get("binding:vnic_type", binding.vnic_type) or bindings.NORMAL) != binding.vnic_type
    if changes and (binding.host != bindings.UNBOUND or port.server_id is not None):
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. Port already has an "
            f"attached device {port.device_id}.",
            reason="PortInUse",
        )


def _refuse_mac(tx: Tx, port: Port, mac: str) -> None:
    binding = trunk_ports.bindings_of(tx, [port.id])[port.id][0]
    if binding.host != bindings.UNBOUND:
        raise Conflict(
            f"Unable to complete operation on port {port.id}, port is already bound, port type: "
            f"{bindings.VIF_TYPE}, old_mac {port.mac_address}, new_mac {mac}.",
            reason="PortBound",
        )
    if mac_addresses.mac_in_use(tx, port.network_id, mac):
        raise Conflict(
            f"Unable to complete operation for network {port.network_id}. The mac address {mac} is in use.",
            reason="MacAddressInUse",
        )


def _change_binding(tx: Tx, port: Port, given: Mapping[str, object]) -> bool:
    """Change the active binding as asked. True if it has changed."""
    before = bindings.of_ports(tx, [port.id])[port.id][0]
    values: dict[str, object] = {}
    if "binding:profile" in given:
        values["profile"] = given["binding:profile"] or {}
    if "binding:vnic_type" in given:
        values["vnic_type"] = given["binding:vnic_type"] or bindings.NORMAL
    active = sa.and_(port_bindings.c.port_id == port.id, port_bindings.c.active)
    if values:
        tx.execute(sa.update(port_bindings).where(active).values(**values))
    if "binding:host_id" in given:
        trunk_details.refuse_rebinding(tx, port)
        bindings.bind(tx, bindings.Which.PORT, port.id, text(given["binding:host_id"]))
    return bindings.of_ports(tx, [port.id])[port.id][0] != before


@NETWORK.operation(
    "DELETE",
    "/ports/{port_id}",
    rules=(Rule(DELETE),),
    target=resource.target(PORTS),
    facts=resource.target_facts(PORTS),
    success=204,
)
def delete_port(call: Call[Port, None]) -> None:
    """Delete a port."""
    port = call.target
    if port.device_owner in (*OF_ROUTERS, FLOATING_IP):
        raise Conflict(
            f"Port {port.id} cannot be deleted directly via the port API: has device owner {port.device_owner}.",
            reason="ServicePortInUse",
        )
    trunk_details.refuse_end(call.tx, port)
    port_life.end(call.tx, port.id)
