"""Compute's things: servers of a member's in every state that an action asks for, and what administrators keep."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from cumulet.testing import Answer, Client, JsonObject, TestCloud

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f somebody"
SPARE, LOST = "host4", "host3"
"""The host that nobody uses, and the one that is said to be down."""


class Things:
    """Servers and the rest, made once; the servers are a member's, with a port, an item of metadata and a tag."""

    def __init__(self, cloud: TestCloud) -> None:
        self.cloud = cloud
        self.admin = cloud.persona("admin")
        self.owner = cloud.persona("member")
        self.other = cloud.persona("other_member")
        for host in (SPARE, LOST):
            self._service(host, {"status": "disabled"})
        many = {"quota_set": {"instances": 100, "cores": 100}}
        self.ask(self.admin, "PUT", f"/os-quota-sets/{self.owner.project_id}", many)

    def ask(self, client: Client, method: str, path: str, body: Any = None, version: str | None = None) -> Answer:
        answer = client.compute(method, path, body, version=version)
        assert answer.status < 300, answer.text
        return answer

    def service_of(self, host: str) -> str:
        services = self.ask(self.admin, "GET", f"/os-services?host={host}&binary=nova-compute")["services"]
        identifier: str = services[0]["id"]
        return identifier

    def _service(self, host: str, changes: JsonObject) -> None:
        self.ask(self.admin, "PUT", f"/os-services/{self.service_of(host)}", changes)

    # -- servers

    def _server(self, flavor: str | None = None, **more: Any) -> str:
        body = {"server": self.new_server(flavor) | {"metadata": {"colour": "blue"}, "tags": ["blue"]} | more}
        made: str = self.ask(self.owner, "POST", "/servers", body)["server"]["id"]
        self.owner.wait_for_status(made, "ACTIVE")
        return made

    def new_server(self, flavor: str | None = None) -> JsonObject:
        flavor = flavor or self.flavors["m1.nano"]
        return {"name": "one", "imageRef": self.image, "flavorRef": flavor, "networks": [{"uuid": self.network}]}

    def _acted(self, action: JsonObject, status: str, client: Client | None = None) -> str:
        """A server, after an action."""
        server = self._server()
        self._act(server, action, client)
        self.owner.wait_for_status(server, status)
        return server

    def _act(self, server: str, action: JsonObject, client: Client | None = None) -> None:
        answer = (client or self.owner).action(server, action)
        assert answer.status < 300, answer.text

    @cached_property
    def server(self) -> str:
        return self._server()

    @cached_property
    def invited(self) -> str:
        """A host on another machine that has not joined yet."""
        self.ask(self.admin, "POST", "/cumulet/hosts", {"host": {"name": "rack9"}})
        return "rack9"

    @cached_property
    def stopped(self) -> str:
        return self._acted({"os-stop": None}, "SHUTOFF")

    @cached_property
    def paused(self) -> str:
        return self._acted({"pause": None}, "PAUSED")

    @cached_property
    def suspended(self) -> str:
        return self._acted({"suspend": None}, "SUSPENDED")

    @cached_property
    def rescued(self) -> str:
        return self._acted({"rescue": None}, "RESCUE")

    @cached_property
    def shelved(self) -> str:
        return self._acted({"shelve": None}, "SHELVED_OFFLOADED")

    @cached_property
    def resized(self) -> str:
        return self._acted({"resize": {"flavorRef": self.flavors["m1.micro"]}}, "VERIFY_RESIZE")

    @cached_property
    def locked_by_admin(self) -> str:
        server = self._server()
        self._act(server, {"lock": None}, self.admin)
        return server

    @cached_property
    def lost(self) -> str:
        """One whose host is said to be down."""
        server = self._server()
        self._service(LOST, {"status": "enabled"})
        self._act(server, {"os-migrateLive": {"host": LOST, "block_migration": "auto"}}, self.admin)
        self.admin.wait(f"{server} to be on {LOST}", lambda: self._host(server) == LOST)
        self.admin.wait_for_status(server, "ACTIVE")
        self._service(LOST, {"forced_down": True})
        return server

    def _host(self, server: str) -> str:
        host: str = self.admin.server(server)["OS-EXT-SRV-ATTR:host"]
        return host

    @property
    def elsewhere(self) -> str:
        """A host that the server is not on."""
        return "host1" if self._host(self.server) == "host2" else "host2"

    @cached_property
    def moving(self) -> str:
        """One that dirties its memory faster than it can be copied: its move does not end."""
        server = self._server(self.busy_flavor)
        self._act(server, {"os-migrateLive": {"host": None, "block_migration": "auto"}}, self.admin)
        self.admin.wait(f"the move of {server} to run", lambda: self._migration(server)["status"] == "running")
        return server

    def _migration(self, server: str) -> JsonObject:
        found: list[JsonObject] = self.ask(self.admin, "GET", f"/servers/{server}/migrations")["migrations"]
        return found[0] if found else {"status": None}

    @cached_property
    def migration(self) -> int:
        identifier: int = self._migration(self.moving)["id"]
        return identifier

    @cached_property
    def action_request(self) -> str:
        actions = self.ask(self.owner, "GET", f"/servers/{self.server}/os-instance-actions")["instanceActions"]
        request_id: str = actions[0]["request_id"]
        return request_id

    @cached_property
    def port(self) -> str:
        attached = self.ask(self.owner, "GET", f"/servers/{self.server}/os-interface")["interfaceAttachments"]
        port_id: str = attached[0]["port_id"]
        return port_id

    @property
    def console_token(self) -> str:
        """A new one each time, because it lasts a minute."""
        body = {"remote_console": {"protocol": "serial", "type": "serial"}}
        url: str = self.ask(self.owner, "POST", f"/servers/{self.server}/remote-consoles", body)["remote_console"][
            "url"
        ]
        return url.partition("token=")[2]

    @cached_property
    def network_label(self) -> str:
        addresses: JsonObject = self.ask(self.owner, "GET", f"/servers/{self.server}/ips")["addresses"]
        return next(iter(addresses))

    # -- what servers are made of

    @cached_property
    def image(self) -> str:
        found: str = self.owner.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        return found

    @cached_property
    def network(self) -> str:
        made: str = self._made("network", name="n")
        self._made("subnet", network_id=made, ip_version=4, cidr="10.6.0.0/24")
        return made

    def _made(self, kind: str, **attributes: Any) -> str:
        answer = self.owner.request("POST", f"/network/v2.0/{kind.replace('_', '-')}s", {kind: attributes})
        assert answer.status == 201, answer.text
        identifier: str = answer[kind]["id"]
        return identifier

    # -- what Compute's older paths show of Network

    @cached_property
    def security_group(self) -> str:
        return self._made("security_group", name="web")

    @cached_property
    def security_group_rule(self) -> str:
        opened = {"security_group_id": self.security_group, "direction": "ingress", "protocol": "udp"}
        answer = self.owner.request("POST", "/network/v2.0/security-group-rules", {"security_group_rule": opened})
        identifier: str = answer["security_group_rule"]["id"]
        return identifier

    @cached_property
    def _public(self) -> str:
        identifier: str = self.owner.request("GET", "/network/v2.0/networks?name=public")["networks"][0]["id"]
        return identifier

    def _floating(self, **attributes: Any) -> JsonObject:
        wanted = {"floatingip": {"floating_network_id": self._public, **attributes}}
        made: JsonObject = self.owner.request("POST", "/network/v2.0/floatingips", wanted)["floatingip"]
        return made

    @cached_property
    def floating_ip(self) -> JsonObject:
        return self._floating()

    @property
    def floating_address(self) -> str:
        return str(self.floating_ip["floating_ip_address"])

    @cached_property
    def behind_router(self) -> str:
        """A server on a network with a way to the external one, and a second port for a floating IP."""
        network = self._made("network", name="behind a router")
        subnet = self._made("subnet", network_id=network, ip_version=4, cidr="10.7.0.0/24")
        router = self._made("router", external_gateway_info={"network_id": self._public})
        path = f"/network/v2.0/routers/{router}/add_router_interface"
        assert self.owner.request("PUT", path, {"subnet_id": subnet}).status == 200
        return self._server(self.flavors["m1.nano"], networks=[{"uuid": network}, {"uuid": network}])

    @cached_property
    def floating_of_server(self) -> str:
        """A floating IP that leads to the last port of `behind_router`."""
        attached = self.ask(self.owner, "GET", f"/servers/{self.behind_router}/os-interface")["interfaceAttachments"]
        return str(self._floating(port_id=attached[-1]["port_id"])["floating_ip_address"])

    @cached_property
    def own_image(self) -> str:
        return self.new_image()

    def new_image(self) -> str:
        """One of the member's, with a property."""
        body = {"name": "mine", "disk_format": "raw", "container_format": "bare", "colour": "blue"}
        made: str = self.owner.request("POST", "/image/v2/images", body)["id"]
        return made

    @cached_property
    def flavors(self) -> dict[str, str]:
        return {f["name"]: f["id"] for f in self.ask(self.admin, "GET", "/flavors")["flavors"]}

    def _flavor(self, **attributes: Any) -> str:
        wanted = {"vcpus": 1, "ram": 192, "disk": 1} | attributes
        made: str = self.ask(self.admin, "POST", "/flavors", {"flavor": wanted})["flavor"]["id"]
        return made

    @cached_property
    def busy_flavor(self) -> str:
        flavor = self._flavor(name="busy", ram=1024)
        specs = {"extra_specs": {"cumulet:dirty_rate_mib_s": "100000"}}
        self.ask(self.admin, "POST", f"/flavors/{flavor}/os-extra_specs", specs)
        return flavor

    @cached_property
    def private_flavor(self) -> str:
        """The member's project has access to it."""
        flavor = self._flavor(name="private", **{"os-flavor-access:is_public": False})
        access = {"addTenantAccess": {"tenant": self.owner.project_id}}
        self.ask(self.admin, "POST", f"/flavors/{flavor}/action", access)
        self.ask(self.admin, "POST", f"/flavors/{flavor}/os-extra_specs", {"extra_specs": {"colour": "blue"}})
        return flavor

    @cached_property
    def keypair(self) -> str:
        self.ask(self.owner, "POST", "/os-keypairs", {"keypair": {"name": "key", "public_key": PUBLIC_KEY}})
        return "key"

    @cached_property
    def group(self) -> str:
        body = {"server_group": {"name": "group", "policy": "anti-affinity"}}
        made: str = self.ask(self.owner, "POST", "/os-server-groups", body)["server_group"]["id"]
        return made

    @cached_property
    def aggregate(self) -> int:
        """One with a host."""
        made: int = self.empty_aggregate_named("aggregate")
        self.ask(self.admin, "POST", f"/os-aggregates/{made}/action", {"add_host": {"host": "host1"}})
        return made

    @cached_property
    def empty_aggregate(self) -> int:
        return self.empty_aggregate_named("empty")

    def empty_aggregate_named(self, name: str) -> int:
        made: int = self.ask(self.admin, "POST", "/os-aggregates", {"aggregate": {"name": name}})["aggregate"]["id"]
        return made

    @cached_property
    def hypervisor(self) -> str:
        found: str = self.ask(self.admin, "GET", "/os-hypervisors")["hypervisors"][0]["id"]
        return found
