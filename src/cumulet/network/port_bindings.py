"""Bindings of ports to hosts: ``/ports/{port_id}/bindings``, for services. During a move there is an inactive one."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from cumulet.errors import Conflict, NotFound
from cumulet.network import bindings, bodies, policy, resource, trunk_details, trunk_ports
from cumulet.network.bindings import Which
from cumulet.network.port_bodies import VnicType
from cumulet.network.ports import PORTS
from cumulet.network.resource import View
from cumulet.network.service import NETWORK
from cumulet.network.store import Binding, Port, must_get, port_bindings
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Empty, Unset

SHOW = rule("get_port_binding", policy.ADMIN_OR_SERVICE, description="See a port's bindings")
CREATE = rule("create_port_binding", policy.SERVICE, description="Bind a port to a further host")
UPDATE = rule("update_port_binding", policy.SERVICE, description="Change a binding")
DELETE = rule("delete_port_binding", policy.SERVICE, description="Remove a binding")
ACTIVATE = rule("activate", policy.SERVICE, description="Make a binding the active one")


def _view(port: Port, binding: Binding) -> View:
    vif_type, vif_details = bindings.vif(binding)
    return {
        "host": binding.host,
        "vnic_type": binding.vnic_type,
        "profile": binding.profile,
        "vif_type": vif_type,
        "vif_details": vif_details,
        "status": "ACTIVE" if binding.active else "INACTIVE",
        "project_id": port.project_id,
        "tenant_id": port.project_id,
    }


def _bound(call: Call[Port, object]) -> list[Binding]:
    found = trunk_ports.bindings_of(call.tx, [call.target.id])[call.target.id]
    return [binding for binding in found if binding.host != bindings.UNBOUND]


def _named(call: Call[Port, object]) -> Binding:
    host = call.path["host"]
    for binding in _bound(call):
        if binding.host == host:
            return binding
    raise NotFound(
        f"Binding for port {call.target.id} for host {host} could not be found.", reason="PortBindingNotFound"
    )


class NewBinding(Body):
    host: bodies.Name
    vnic_type: VnicType | Unset = UNSET
    profile: dict[str, object] | Unset = UNSET


class UpdateBinding(Body):
    host: bodies.Name | Unset = UNSET
    vnic_type: VnicType | Unset = UNSET
    profile: dict[str, object] | Unset = UNSET


@NETWORK.operation("GET", "/ports/{port_id}/bindings", rules=(), target=resource.target(PORTS))
def list_port_bindings(call: Call[Port, None]) -> View:
    """List a port's bindings. The list is empty for a caller who may not see them."""
    seen = call.authorise(SHOW, resource.facts_of(PORTS, call, call.target))
    return {"bindings": [_view(call.target, binding) for binding in _bound(call)] if seen else []}


@NETWORK.operation(
    "POST",
    "/ports/{port_id}/bindings",
    rules=(Rule(CREATE),),
    target=resource.target(PORTS),
    body=NewBinding,
    body_key="binding",
    success=201,
)
def create_port_binding(call: Call[Port, NewBinding]) -> View:
    """Bind a port to a further host. The binding is inactive if the port has an active one."""
    tx, port, body = call.tx, call.target, call.body
    trunk_details.refuse_rebinding(tx, port)
    present = _bound(call)
    if any(binding.host == body.host for binding in present):
        raise Conflict(
            f"Binding for port {port.id} on host {body.host} already exists.", reason="PortBindingAlreadyExists"
        )
    if present:
        bindings.add_inactive(tx, Which.PORT, port.id, body.host)
    else:
        bindings.bind(tx, Which.PORT, port.id, body.host)
    _set(call, body.host, {"vnic_type": body.vnic_type, "profile": body.profile})
    found = next(binding for binding in _bound(call) if binding.host == body.host)
    return {"binding": _view(port, found)}


def _set(call: Call[Port, object], host: str, wanted: Mapping[str, object]) -> None:
    values = {name: value for name, value in wanted.items() if value is not UNSET}
    if values:
        this = sa.and_(port_bindings.c.port_id == call.target.id, port_bindings.c.host == host)
        call.tx.execute(sa.update(port_bindings).where(this).values(**values))


def _may_see(call: Call[object, object], port: Port) -> None:
    """404 for a caller who may not see bindings: they do not learn whether one exists."""
    if not call.authorise(SHOW, resource.facts_of(PORTS, call, port)):
        raise NotFound("The resource could not be found.")


def _target(call: Call[object, object]) -> Port:
    port = resource.find_in_sight(call, PORTS, call.path["port_id"])
    _may_see(call, port)
    return port


@NETWORK.operation("GET", "/ports/{port_id}/bindings/{host}", rules=(Rule(SHOW),), target=_target)
def show_port_binding(call: Call[Port, None]) -> View:
    """Show a port's binding to a host."""
    return {"binding": _view(call.target, _named(call))}


@NETWORK.operation(
    "PUT",
    "/ports/{port_id}/bindings/{host}",
    rules=(Rule(UPDATE),),
    target=_target,
    body=UpdateBinding,
    body_key="binding",
)
def update_port_binding(call: Call[Port, UpdateBinding]) -> View:
    """Change a binding's kind of nic or profile."""
    body, binding = call.body, _named(call)
    trunk_details.refuse_rebinding(call.tx, call.target)
    if isinstance(body.host, str) and body.host != binding.host:
        raise Conflict("A binding's host cannot be changed: make another binding and activate it.")
    _set(call, binding.host, {"vnic_type": body.vnic_type, "profile": body.profile})
    return {"binding": _view(call.target, _named(call))}


@NETWORK.operation("DELETE", "/ports/{port_id}/bindings/{host}", rules=(Rule(DELETE),), target=_target, success=204)
def delete_port_binding(call: Call[Port, None]) -> None:
    """Remove a binding. Without its active binding a port is not bound."""
    binding = _named(call)
    trunk_details.refuse_rebinding(call.tx, call.target)
    if not binding.active:
        bindings.remove_inactive(call.tx, Which.PORT, call.target.id, binding.host)
        return
    bindings.bind(call.tx, Which.PORT, call.target.id, bindings.UNBOUND)


@NETWORK.operation(
    "PUT", "/ports/{port_id}/bindings/{host}/activate", rules=(Rule(ACTIVATE),), target=_target, body=Empty
)
def activate_port_binding(call: Call[Port, Empty]) -> View:
    """Make a binding the active one. The former active one becomes inactive."""
    tx, port, binding = call.tx, must_get(call.tx, Port, call.target.id), _named(call)
    trunk_details.refuse_rebinding(tx, port)
    if binding.active:
        raise Conflict(
            f"Binding for port {port.id} on host {binding.host} is already active.", reason="PortBindingAlreadyActive"
        )
    of_port = port_bindings.c.port_id == port.id
    # One statement at a time: the index allows no two active ones even in between.
    tx.execute(sa.update(port_bindings).where(of_port, port_bindings.c.active).values(active=False))
    tx.execute(sa.update(port_bindings).where(of_port, port_bindings.c.host == binding.host).values(active=True))
    tx.execute(sa.delete(port_bindings).where(of_port, port_bindings.c.host == bindings.UNBOUND))
    return _view(port, _named(call))
