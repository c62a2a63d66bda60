"""QoS policies in a run: they are made, changed, shared, and attached to ports, networks, floating IPs and gateways.

What a host is told of each port must be what the tables say. This module reads the tables itself, with SQL of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from sqlite3 import Connection
from typing import TYPE_CHECKING

from cumulet.testing.simulation.network_requests import Asked, Requests

if TYPE_CHECKING:
    from cumulet.host.wiring import Limit, Wiring

MOST_POLICIES = 3
_USERS = {"ports": "port", "networks": "network", "floating_ips": "floatingip", "routers": "router"}
"""The tables of what can have a policy, with the names of one such thing in Network's API."""
_SEEN = """
SELECT id FROM qos_policies q WHERE project_id = :project OR EXISTS (SELECT 1 FROM rbac_policies
WHERE object_id = q.id AND action = 'access_as_shared' AND target_project IN ('*', :project)) ORDER BY id
"""
_OF_PORT = """
SELECT coalesce(p.qos_policy_id, n.qos_policy_id) FROM ports p JOIN networks n ON n.id = p.network_id WHERE p.id = ?
"""
_OF_FLOATING_IP = "SELECT qos_policy_id FROM floating_ips WHERE router_id = ? AND floating_ip_address = ?"
_OF_ROUTER = "SELECT qos_policy_id FROM routers WHERE id = ?"
_LIMIT = """
SELECT max_kbps, max_burst_kbps FROM qos_bandwidth_limits WHERE policy_id = ? AND direction = ? AND max_kbps > 0
"""
_MARK = "SELECT dscp_mark FROM qos_dscp_marks WHERE policy_id = ?"
_OUT_OF_SIGHT = """
SELECT u.id, u.qos_policy_id FROM {table} u JOIN qos_policies q ON q.id = u.qos_policy_id
WHERE u.project_id != q.project_id AND NOT EXISTS (SELECT 1 FROM rbac_policies
WHERE object_id = q.id AND action = 'access_as_shared' AND target_project IN ('*', u.project_id))
"""


class QosWorkload:
    """Requests of a project, and of an administrator who shares its policies."""

    def __init__(self, requests: Requests) -> None:
        self._cloud = requests.cloud
        self._requests = requests

    async def first(self, project: str) -> None:
        """Make two policies, give the network of a project one of them, and share the other. Its floating IP gets a
        policy that another project shares: whether that may end depends on those who use it."""
        asked = self._requests.asked
        for number, direction in enumerate(("egress", "ingress"), start=1):
            name = f"policy {number}"
            await asked(project, "POST", "qos/policies", {"policy": {"name": name}})
            (policy_id,) = self._ids("SELECT id FROM qos_policies WHERE project_id = ? AND name = ?", project, name)
            rules, limit = f"qos/policies/{policy_id}", {"max_kbps": 3000 * number, "direction": direction}
            await asked(project, "POST", f"{rules}/bandwidth_limit_rules", {"bandwidth_limit_rule": limit})
            mark = {"dscp_mark": 8 + 2 * number}
            await asked(project, "POST", f"{rules}/dscp_marking_rules", {"dscp_marking_rule": mark})
        one, other = self._own(project)
        await asked(project, "PUT", f"networks/{self._cloud.networks[project]}", {"network": {"qos_policy_id": one}})
        await asked("admin", "PUT", f"qos/policies/{other}", {"policy": {"shared": True}})
        of_others = [policy_id for policy_id in self._seen(project) if policy_id not in (one, other)]
        floating = self._ids("SELECT id FROM floating_ips WHERE project_id = ? ORDER BY id", project)
        for floating_id, policy_id in zip(floating, of_others, strict=False):
            await asked(project, "PUT", f"floatingips/{floating_id}", {"floatingip": {"qos_policy_id": policy_id}})

    def request(self, random: Random, project: str) -> Asked:
        own = self._own(project)
        if not own or (len(own) < MOST_POLICIES and random.random() < 0.1):
            made = self._requests.asked(project, "POST", "qos/policies", {"policy": {"name": "p"}})
            return f"{project} makes a QoS policy", made
        chance = random.random()
        if chance < 0.45:
            return self._attach(random, project)
        if chance < 0.75:
            return self._rule(random, project, random.choice(own))
        if chance < 0.95:
            return self._share(random, project, random.choice(own))
        deleted = self._requests.asked(project, "DELETE", f"qos/policies/{random.choice(own)}")
        return f"{project} deletes a QoS policy", deleted

    def _rule(self, random: Random, project: str, policy_id: str) -> Asked:
        """Give a policy a rule. If it has one of the type, change that, or take it away."""
        if random.random() < 0.3:
            kind, table, direction = "dscp_marking", "qos_dscp_marks", None
            values: dict[str, object] = {"dscp_mark": random.choice((0, 8, 46))}
        else:
            kind, table, direction = "bandwidth_limit", "qos_bandwidth_limits", random.choice(("egress", "ingress"))
            values = {"max_kbps": random.choice((0, 1000, 2000, 5000)), "max_burst_kbps": random.choice((0, 800))}
        where = "policy_id = ?" if direction is None else f"policy_id = ? AND direction = '{direction}'"
        present = self._ids(f"SELECT id FROM {table} WHERE {where}", policy_id)  # noqa: S608 - both are constants
        path = f"qos/policies/{policy_id}/{kind}_rules"
        if not present:
            new = values if direction is None else values | {"direction": direction}
            return f"{project} adds a {kind} rule", self._requests.asked(project, "POST", path, {f"{kind}_rule": new})
        if random.random() < 0.3:
            gone = self._requests.asked(project, "DELETE", f"{path}/{present[0]}")
            return f"{project} takes a {kind} rule away", gone
        changed = self._requests.asked(project, "PUT", f"{path}/{present[0]}", {f"{kind}_rule": values})
        return f"{project} changes a {kind} rule to {values}", changed

    def _attach(self, random: Random, project: str) -> Asked:
        """Attach a policy to something of the project, or take it away; now and then one that it may not see."""
        table = random.choice(("ports", "ports", "ports", *_USERS))
        plugged = " AND server_id IS NOT NULL" if table == "ports" else ""
        ids = self._ids(f"SELECT id FROM {table} WHERE project_id = ?{plugged} ORDER BY id", project)  # noqa: S608
        if not ids:
            return self._rule(random, project, self._own(project)[0])
        seen = self._seen(project)
        hidden = [one for one in self._ids("SELECT id FROM qos_policies ORDER BY id") if one not in seen]
        policy_id = random.choice(hidden if hidden and random.random() < 0.3 else [*seen, None])
        user, user_id = _USERS[table], random.choice(ids)
        wanted: dict[str, object] = {"qos_policy_id": policy_id}
        if table == "routers":
            wanted = {"external_gateway_info": {"network_id": self._cloud.foundation.outside, **wanted}}
        request = self._requests.asked(project, "PUT", f"{user}s/{user_id}", {user: wanted})
        return f"{project} gives {user} {user_id[:8]} the policy {policy_id[:8] if policy_id else None}", request

    def _share(self, random: Random, project: str, policy_id: str) -> Asked:
        """An administrator shares a policy with all projects, or no longer."""
        shared = random.random() < 0.6
        request = self._requests.asked("admin", "PUT", f"qos/policies/{policy_id}", {"policy": {"shared": shared}})
        return f"admin says that a policy of {project} is shared: {shared}", request

    def _own(self, project: str) -> list[str]:
        return self._ids("SELECT id FROM qos_policies WHERE project_id = ? ORDER BY id", project)

    def _seen(self, project: str) -> list[str]:
        return [row[0] for row in self._cloud.db.driver.execute(_SEEN, {"project": project})]

    def _ids(self, statement: str, *values: str) -> list[str]:
        return self._requests.ids(statement, *values)


def not_as_recorded(driver: Connection, told: Sequence[Wiring]) -> Iterator[str]:
    """At rest: each host limits and marks what the tables say, and a policy is used only by who may see it."""
    for wiring in told:
        for port in wiring.ports:
            policy_id = _first(driver, _OF_PORT, port.id)
            seen = (_said(port.egress_limit), _said(port.ingress_limit), port.dscp_mark)
            wanted = (*_limits(driver, policy_id), _first(driver, _MARK, policy_id))
            if seen != wanted:
                yield f"port {port.id[:8]} should have {wanted} of its policy, and on {wiring.host} has {seen}"
        for router in wiring.routers:
            policy_id = _first(driver, _OF_ROUTER, router.id)
            limits = (_said(router.egress_limit), _said(router.ingress_limit))
            if limits != _limits(driver, policy_id):
                yield f"router {router.id[:8]} on {wiring.host} has the limits {limits}"
            for one in router.floating_ips:
                policy_id = _first(driver, _OF_FLOATING_IP, router.id, one.outside)
                limits = (_said(one.egress_limit), _said(one.ingress_limit))
                if limits != _limits(driver, policy_id):
                    yield f"floating IP {one.outside} on {wiring.host} has the limits {limits}"
    for table in _USERS:
        for user_id, policy_id in driver.execute(_OUT_OF_SIGHT.format(table=table)):
            yield f"{user_id[:8]} of {table} has the policy {policy_id[:8]}, which its project may not see"


def _said(limit: Limit | None) -> tuple[int, int] | None:
    return None if limit is None else (limit.kbps, limit.burst_kbit)


def _limits(driver: Connection, policy_id: object) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """What a policy lets pass, out and in: thousands of bits a second, and of a burst."""
    return (
        driver.execute(_LIMIT, (policy_id, "egress")).fetchone(),
        driver.execute(_LIMIT, (policy_id, "ingress")).fetchone(),
    )


def _first(driver: Connection, statement: str, *values: object) -> object:
    row: tuple[object] | None = driver.execute(statement, values).fetchone()
    return None if row is None else row[0]
