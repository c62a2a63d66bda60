"""What cases need, made through the API on first use: servers in each state, flavors, keypairs, groups, aggregates.

The same code prepares real Nova and Cumulet, so that a difference in an answer is a difference of the clouds.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import Any, Final

import httpx

from cumulet.testing import JsonObject
from tests.conformance.case import LATEST, NO_BODY, UNKNOWN, Raw, Request, admin
from tests.conformance.target import NotOffered, Target, checked
from tests.conformance.things import EXTRA_SPECS, FLAVORS, PUBLIC_KEY, SERVERS

_PLACEHOLDER: Final = re.compile(r"\{([a-z0-9_]+(?::[a-z0-9_.]+)?)\}")
PATIENCE_S: Final = 30.0
POLL_S: Final = 0.005
FRESH_S: Final = 2.0
PAIR: Final = ("pair", "pair2")
MOST_SERVERS: Final = 6
BUSY: Final = frozenset({"BUILD", "MIGRATING", "REBOOT", "HARD_REBOOT", "RESIZE"})


class World:
    """The things of one target that cases have named so far."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.pool: dict[str, str] = {}
        """kind -> id, of servers and of everything else that was made."""
        self.answer: Any = None
        """The JSON of the last case's answer, for ``{answer:...}``."""
        self.hosts: list[str] = []
        self.moving_since = 0.0
        self.held: set[str] = set()
        """Kinds that the case at hand needs: never evicted."""

    # --- sending -------------------------------------------------------------------------------------------------

    def send(self, request: Request) -> httpx.Response:
        path = self.text(request.path)
        url = f"{self.target.compute}{path.removeprefix('root:')}" if path.startswith("root:") else f"{self.url}{path}"
        headers = {name: self.text(value) for name, value in request.headers.items()}
        token = self.target.tokens[request.persona]
        if token is not None:
            headers["X-Auth-Token"] = token
        if request.version is not None:
            headers["OpenStack-API-Version"] = f"compute {request.version}"
        if isinstance(request.body, Raw):
            headers.setdefault("Content-Type", "application/json")
            return self.target.client.request(
                request.method, url, headers=headers, content=self.text(request.body.text)
            )
        if request.body is NO_BODY:
            return self.target.client.request(request.method, url, headers=headers)
        return self.target.client.request(request.method, url, headers=headers, json=self.filled(request.body))

    @property
    def url(self) -> str:
        return f"{self.target.compute}/v2.1"

    def ask(self, method: str, path: str, body: object = NO_BODY, version: str | None = LATEST) -> Any:
        """A request of the administrator that must work."""
        return checked(self.send(admin(method, path, body, version)))

    # --- placeholders --------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        return _PLACEHOLDER.sub(lambda match: self.value(match[1]), text)

    def filled(self, body: object) -> object:
        if isinstance(body, str):
            return self.text(body)
        if isinstance(body, dict):
            return {self.text(key): self.filled(value) for key, value in body.items()}
        if isinstance(body, list):
            return [self.filled(item) for item in body]
        return body

    def value(self, name: str) -> str:
        """What a placeholder stands for; makes the thing if there is none."""
        if name in self.target.facts:
            return self.target.facts[name]
        if name == "unknown":
            return UNKNOWN
        aspect, _, kind = name.partition(":")
        if kind:
            return self.aspect(aspect, kind)
        if re.fullmatch(r"host\d", name):
            return name
        if name not in self.pool:
            self.make(name)
        return self.pool[name]

    def aspect(self, aspect: str, kind: str) -> str:
        if aspect == "answer":
            value = self.answer
            for part in kind.split("."):
                value = value[part]
            return str(value)
        simple: dict[str, Callable[[str], str]] = {
            "host": self.host_of,
            "other_host": self.other_host,
            "service": self.service,
            "service_number": self.service_number,
            "hypervisor": self.hypervisor,
            "hypervisor_number": self.hypervisor_number,
            "migration": lambda kind: str(self.migration(kind)["id"]),
            "migration_uuid": lambda kind: str(self.migration(kind)["uuid"]),
            "request": self.request_id,
            "port": self.port,
            "reservation": lambda kind: str(self.server(kind)["OS-EXT-SRV-ATTR:reservation_id"]),
        }
        return simple[aspect](kind)

    def server(self, kind: str) -> JsonObject:
        found: JsonObject = self.ask("GET", f"/servers/{self.value(kind)}")["server"]
        return found

    def host_of(self, kind: str) -> str:
        return str(self.server(kind)["OS-EXT-SRV-ATTR:host"])

    def other_host(self, kind: str) -> str:
        here = self.host_of(kind)
        return next(host for host in self.compute_hosts() if host != here)

    def compute_hosts(self) -> list[str]:
        if not self.hosts:
            listed = self.ask("GET", "/os-services?binary=nova-compute")["services"]
            self.hosts = sorted(service["host"] for service in listed)
        return self.hosts

    def service(self, host: str, version: str = LATEST) -> str:
        listed = self.ask("GET", f"/os-services?host={host}&binary=nova-compute", version=version)["services"]
        return str(listed[0]["id"])

    def service_number(self, host: str) -> str:
        return self.service(host, "2.52")

    def hypervisor(self, host: str, version: str = LATEST) -> str:
        listed = self.ask("GET", "/os-hypervisors", version=version)["hypervisors"]
        return str(next(item["id"] for item in listed if item["hypervisor_hostname"] == host))

    def hypervisor_number(self, host: str) -> str:
        return self.hypervisor(host, "2.52")

    def migration(self, kind: str) -> JsonObject:
        listed = self.ask("GET", f"/os-migrations?instance_uuid={self.value(kind)}")["migrations"]
        found: JsonObject = listed[0]
        return found

    def request_id(self, kind: str) -> str:
        listed = self.ask("GET", f"/servers/{self.value(kind)}/os-instance-actions")["instanceActions"]
        return str(listed[-1]["request_id"])

    def port(self, kind: str) -> str:
        return str(self.ask("GET", f"/servers/{self.value(kind)}/os-interface")["interfaceAttachments"][0]["port_id"])

    # --- making --------------------------------------------------------------------------------------------------

    def make(self, kind: str) -> None:
        if kind in SERVERS:
            self.make_server(kind)
        elif kind in PAIR:
            self.make_pair()
        elif kind in FLAVORS:
            self.make_flavor(kind)
        elif kind == "spare_flavor":
            self.spare_flavor()
        elif kind == "gone":
            self.pool[kind] = self.create("gone")
            self.ask("DELETE", f"/servers/{self.pool[kind]}")
            self.wait_gone(self.pool[kind])
        else:
            self.make_other(kind)

    def make_other(self, kind: str) -> None:
        match kind:
            case "keypair":
                self.delete_quietly("/os-keypairs/conf-key", "member")
                body: object = {"keypair": {"name": "conf-key", "public_key": PUBLIC_KEY}}
                request = Request(persona="member", method="POST", path="/os-keypairs", body=body)
                self.pool[kind] = str(checked(self.send(request))["keypair"]["name"])
            case "group":
                body = {"server_group": {"name": "conf-group", "policy": "anti-affinity"}}
                request = Request(persona="member", method="POST", path="/os-server-groups", body=body, version="2.64")
                self.pool[kind] = str(checked(self.send(request))["server_group"]["id"])
            case "aggregate":
                body = {"aggregate": {"name": "conf-aggregate", "availability_zone": "conf-zone"}}
                self.pool[kind] = str(self.ask("POST", "/os-aggregates", body)["aggregate"]["id"])
            case _:
                raise KeyError(kind)

    def make_flavor(self, kind: str) -> None:
        attributes = FLAVORS[kind]
        if self.send(admin("GET", f"/flavors/{attributes['id']}")).status_code == 404:
            self.ask("POST", "/flavors", {"flavor": dict(attributes)})
            if kind in EXTRA_SPECS:
                specs = {"extra_specs": dict(EXTRA_SPECS[kind])}
                self.ask("POST", f"/flavors/{attributes['id']}/os-extra_specs", specs)
        self.pool[kind] = str(attributes["id"])

    def spare_flavor(self) -> None:
        """A flavor that cases may change or delete."""
        self.delete_quietly("/flavors/conf-spare", "admin")
        body = {"flavor": {"id": "conf-spare", "name": "conf.spare", "ram": 512, "vcpus": 1, "disk": 1}}
        self.pool["spare_flavor"] = str(self.ask("POST", "/flavors", body)["flavor"]["id"])

    def delete_quietly(self, path: str, persona: str) -> None:
        answer = self.send(Request(method="DELETE", path=path, persona=persona, version=LATEST))
        if answer.status_code >= 400 and answer.status_code != 404:
            checked(answer)

    def create(self, name: str, persona: str = "member", **attributes: object) -> str:
        body = {
            "server": {
                "name": f"conf-{name.replace('_', '-')}",
                "flavorRef": "{flavor}",
                "imageRef": "{image}",
                "networks": "auto",
                **attributes,
            }
        }
        request = Request(persona=persona, method="POST", path="/servers", body=body, version="2.90")
        answer = checked(self.send(request))
        if "reservation_id" in answer:
            return str(answer["reservation_id"])
        server = str(answer["server"]["id"])
        self.settle(server, "ACTIVE")
        return server

    def make_room(self) -> None:
        """Keep below the quota of ten servers: the oldest that the case at hand does not need goes."""
        servers = [kind for kind in self.pool if kind in SERVERS or kind in PAIR]
        if len(servers) > MOST_SERVERS:
            evicted = next((kind for kind in servers if kind not in self.held and kind not in PAIR), None)
            if evicted is not None:
                del self.pool[evicted]
                self.sweep()

    def make_server(self, kind: str) -> None:
        self.make_room()
        persona = {"other": "other_member", "admins": "admin"}.get(kind, "member")
        attributes: dict[str, object] = {"metadata": {"color": "blue"}}
        if kind == "tagged":
            attributes["tags"] = ["one", "two"]
        elif kind == "keyed":
            attributes["key_name"] = "{keypair}"
            attributes["description"] = "all of it"
            attributes["user_data"] = "aGVsbG8="
            attributes["config_drive"] = True
            attributes["flavorRef"] = "{flavor_specs}"
        elif kind == "bare":
            attributes["networks"] = "none"
        elif kind == "moving":
            attributes["flavorRef"] = "{flavor_busy}"
        elif kind == "on_host1":
            persona, attributes["host"] = "admin", "host1"
        server = self.pool[kind] = self.create(kind, persona, **attributes)
        for who, version, action in SERVERS[kind]:
            request = Request(
                persona=who, version=version, method="POST", path=f"/servers/{server}/action", body=dict(action)
            )
            checked(self.send(request))
            self.settle(server)
        if kind == "migrated":
            self.move(server)
        elif kind == "moving":
            self.start_moving(server)

    def move(self, server: str) -> None:
        here = self.ask("GET", f"/servers/{server}")["server"]["OS-EXT-SRV-ATTR:host"]
        there = next(host for host in self.compute_hosts() if host != here)
        self.ask("POST", f"/servers/{server}/action", {"os-migrateLive": {"host": there, "block_migration": "auto"}})
        self.settle(server, "ACTIVE", moves=True)
        if self.ask("GET", f"/servers/{server}")["server"]["OS-EXT-SRV-ATTR:host"] != there:
            raise RuntimeError(f"{server} did not move")

    def start_moving(self, server: str) -> None:
        """A live migration that is still running when the case's request comes."""
        body = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        self.ask("POST", f"/servers/{server}/action", body)
        deadline = time.monotonic() + PATIENCE_S
        while not self.is_moving():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the migration of {server} does not run")
            time.sleep(POLL_S)
        self.moving_since = time.monotonic()

    def is_moving(self) -> bool:
        listed = self.ask("GET", f"/os-migrations?instance_uuid={self.pool['moving']}")["migrations"]
        return bool(listed) and listed[0]["status"] == "running"

    def refresh_moving(self) -> None:
        """The oracle's migrations end after five seconds, so one is used for two at most."""
        if "moving" in self.pool and (time.monotonic() - self.moving_since > FRESH_S or not self.is_moving()):
            self.spoil({"moving"})

    def make_pair(self) -> None:
        """Two servers from one request."""
        self.make_room()
        reservation = self.create("pair", min_count=2, max_count=2, return_reservation_id=True)
        found = self.ask("GET", f"/servers?all_tenants=1&reservation_id={reservation}&sort_key=created_at")["servers"]
        self.pool["pair"], self.pool["pair2"] = (str(server["id"]) for server in found)
        for server in found:
            self.settle(server["id"], "ACTIVE")

    def begin(self) -> None:
        """Clear what an earlier run against the same cloud left."""
        self.sweep()
        with contextlib.suppress(NotOffered):
            for aggregate in self.ask("GET", "/os-aggregates")["aggregates"]:
                self.pool["aggregate"] = str(aggregate["id"])
                self.drop_aggregate()
        with contextlib.suppress(NotOffered):
            groups = self.send(Request(persona="member", method="GET", path="/os-server-groups", version=LATEST))
            for group in checked(groups)["server_groups"]:
                self.delete_quietly(f"/os-server-groups/{group['id']}", "member")

    # --- waiting and clearing up ---------------------------------------------------------------------------------

    def settle(self, server: str, wanted: str | None = None, *, moves: bool = False) -> JsonObject:
        """Wait until nothing goes on with a server, with `moves` no migration either; {} when it is gone."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self.send(admin("GET", f"/servers/{server}"))
            if answer.status_code == 404:
                return {}
            found: JsonObject = checked(answer)["server"]
            if found["status"] == "DELETED":
                return {}
            idle = found["status"] not in BUSY and found["OS-EXT-STS:task_state"] is None
            if idle and (not moves or self.moves_over(server)):
                if wanted and found["status"] != wanted:
                    raise RuntimeError(f"server {server} is {found['status']}, not {wanted}: {found.get('fault')}")
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"server {server} is still {found['status']} ({found['OS-EXT-STS:task_state']})")
            time.sleep(POLL_S)

    def moves_over(self, server: str) -> bool:
        listed = self.ask("GET", f"/os-migrations?instance_uuid={server}")["migrations"]
        return all(item["status"] in ("completed", "error", "failed", "cancelled", "done") for item in listed)

    def wait_gone(self, server: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.send(admin("GET", f"/servers/{server}")).status_code != 404:
            if time.monotonic() > deadline:
                raise TimeoutError(f"server {server} is not gone")
            time.sleep(POLL_S)

    def spoil(self, kinds: set[str]) -> None:
        """These were changed by a case: the next one that names them gets new ones."""
        for kind in kinds:
            if kind == "aggregate" and kind in self.pool:
                self.drop_aggregate()
            elif kind == "group" and kind in self.pool:
                self.delete_quietly(f"/os-server-groups/{self.pool.pop(kind)}", "member")
            elif kind == "keypair" and kind in self.pool:
                self.pool.pop(kind)
            elif kind == "spare_flavor" or kind in SERVERS or kind in PAIR:
                self.pool.pop(kind, None)
        if kinds & {*SERVERS, *PAIR}:
            self.sweep()

    def drop_aggregate(self) -> None:
        path = f"/os-aggregates/{self.pool.pop('aggregate')}"
        answer = self.send(admin("GET", path))
        if answer.status_code == 404:
            return
        for host in answer.json()["aggregate"]["hosts"]:
            self.ask("POST", f"{path}/action", {"remove_host": {"host": host}})
        self.delete_quietly(path, "admin")

    def only(self, kinds: set[str]) -> None:
        """Delete every server but those of these kinds."""
        dropped = [kind for kind in self.pool if (kind in SERVERS or kind in PAIR) and kind not in kinds]
        for kind in dropped:
            del self.pool[kind]
        if dropped:
            self.sweep()

    def sweep(self) -> None:
        """Delete the servers that nothing in the pool names any more."""
        ours = {self.target.facts["project:member"], self.target.facts["project:other_member"]}
        for server in self.ask("GET", "/servers/detail?all_tenants=1")["servers"]:
            if server["tenant_id"] in ours and server["id"] not in self.pool.values():
                self.delete_quietly(f"/servers/{server['id']}", "admin")
                self.wait_gone(server["id"])
