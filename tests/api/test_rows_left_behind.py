"""Who makes things and deletes them again, without end, leaves no row behind that stays: in no table."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from cumulet.compute.history import History
from cumulet.db.engine import Tx, metadata
from cumulet.identity.expired import Expired
from cumulet.testing import Answer, Client, TestCloud
from cumulet.testing.clock import AdvanceableClock

from .test_compute_servers import create

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
UNTAGGED = ("security_group_rule", "address_group", "rbac_policy", "port_forwarding")
SOMEBODY = "5" * 32


class Life:
    """A member who makes one of everything and deletes it again."""

    def __init__(self, cloud: TestCloud, member: Client) -> None:
        self._cloud = cloud
        self._member = member
        self._made: list[str] = []

    def _ask(self, method: str, path: str, body: object = None) -> Answer:
        answer = self._member.request(method, path, body)
        assert answer.status < 300, (method, path, answer.text)
        return answer

    def _make(self, path: str, kind: str, **body: object) -> str:
        """Make one, with tags where it may have some, to be deleted; its id."""
        made = str(self._ask("POST", path, {kind: body})[kind]["id"])
        self._made.append(f"{path}/{made}")
        if path.startswith("/network/") and kind not in UNTAGGED:
            self._ask("PUT", f"{path}/{made}/tags", {"tags": ["a", "b"]})
        return made

    def live(self) -> None:
        self._have_images()
        self._have_networks()
        self._have_a_server()
        self._delegate()
        for path in reversed(self._made):
            self._ask("DELETE", path)
        self._made.clear()
        self._cloud.idle()

    def _have_images(self) -> None:
        formats = {"disk_format": "raw", "container_format": "bare"}
        image = self._ask("POST", "/image/v2/images", {"name": "i", **formats, "tags": ["a"], "visibility": "shared"})
        self._made.append(f"/image/v2/images/{image['id']}")
        self._ask("POST", f"/image/v2/images/{image['id']}/members", {"member": SOMEBODY})

    def _have_networks(self) -> None:
        v2 = "/network/v2.0"
        public = self._ask("GET", f"{v2}/networks?router:external=true")["networks"][0]["id"]
        network = self._make(f"{v2}/networks", "network", name="n")
        subnet = self._make(f"{v2}/subnets", "subnet", network_id=network, ip_version=4, cidr="10.77.0.0/24")
        self._make(
            f"{v2}/rbac-policies",
            "rbac_policy",
            object_type="network",
            object_id=network,
            action="access_as_shared",
            target_tenant=SOMEBODY,
        )
        group = self._make(f"{v2}/security-groups", "security_group", name="g")
        addresses = self._make(f"{v2}/address-groups", "address_group", name="a", addresses=["10.1.0.0/16"])
        self._make(
            f"{v2}/security-group-rules",
            "security_group_rule",
            security_group_id=group,
            direction="ingress",
            remote_address_group_id=addresses,
        )
        self._make(f"{v2}/subnetpools", "subnetpool", name="p", prefixes=["10.99.0.0/16"], default_prefixlen=24)
        options = [{"opt_name": "42", "opt_value": "10.77.0.9"}]
        ports = [self._make(f"{v2}/ports", "port", network_id=network, extra_dhcp_opts=options) for _ in range(3)]
        subports = [{"port_id": ports[1], "segmentation_type": "vlan", "segmentation_id": 7}]
        self._make(f"{v2}/trunks", "trunk", port_id=ports[0], sub_ports=subports)
        router = self._make(f"{v2}/routers", "router", external_gateway_info={"network_id": public})
        self._ask("PUT", f"{v2}/routers/{router}/add_router_interface", {"subnet_id": subnet})
        floating = self._make(f"{v2}/floatingips", "floatingip", floating_network_id=public)
        forwarding = {"protocol": "tcp", "internal_port_id": ports[2], "internal_port": 1, "external_port": 2}
        forwarding["internal_ip_address"] = self._ask("GET", f"{v2}/ports/{ports[2]}")["port"]["fixed_ips"][0][
            "ip_address"
        ]
        self._make(f"{v2}/floatingips/{floating}/port_forwardings", "port_forwarding", **forwarding)
        for path in (self._made.pop(), self._made.pop()):
            self._ask("DELETE", path)
        self._ask("PUT", f"{v2}/routers/{router}/remove_router_interface", {"subnet_id": subnet})

    def _have_a_server(self) -> None:
        member = self._member
        assert member.compute("POST", "/os-keypairs", {"keypair": {"name": "k", "public_key": KEY}}).status < 300
        body = {"server_group": {"name": "g", "policy": "soft-affinity"}}
        group = member.compute("POST", "/os-server-groups", body)["server_group"]["id"]
        server = create(member, hints={"group": group}, tags=["a", "b"], key_name="k")["id"]
        for action in ({"createImage": {"name": "snapshot"}}, {"lock": None}, {"unlock": None}, {"shelve": None}):
            assert member.action(server, action).status < 300
            self._cloud.idle()
        console = {"remote_console": {"protocol": "serial", "type": "serial"}}
        member.compute("POST", f"/servers/{server}/remote-consoles", console)
        assert member.compute("DELETE", f"/servers/{server}").status == 204
        self._cloud.idle()
        for image in self._ask("GET", "/image/v2/images?name=snapshot")["images"]:
            self._made.append(f"/image/v2/images/{image['id']}")
        assert member.compute("DELETE", f"/os-server-groups/{group}").status == 204
        assert member.compute("DELETE", "/os-keypairs/k").status < 300

    def _delegate(self) -> None:
        me = self._member.user_id
        v3 = f"/identity/v3/users/{me}"
        rules = [{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]
        self._make(f"{v3}/application_credentials", "application_credential", name="a", access_rules=rules)
        for rule in self._ask("GET", f"{v3}/access_rules")["access_rules"]:
            self._made.insert(0, f"{v3}/access_rules/{rule['id']}")
        trust = {"trustor_user_id": me, "trustee_user_id": me, "project_id": self._member.project_id}
        self._make("/identity/v3/OS-TRUST/trusts", "trust", **trust, impersonation=True, roles=[{"name": "member"}])
        blob = '{"access": "a", "secret": "s"}'
        self._make(
            "/identity/v3/credentials",
            "credential",
            user_id=me,
            type="ec2",
            blob=blob,
            project_id=self._member.project_id,
        )


def _rows(tx: Tx) -> dict[str, int]:
    return {
        name: int(tx.scalar(sa.select(sa.func.count()).select_from(table))) for name, table in metadata.tables.items()
    }


def test_nothing_stays_of_what_was_deleted(cloud: TestCloud, member: Client) -> None:
    """After the time for which history and ended tokens are kept."""
    embedded, life = cloud.embedded, Life(cloud, member)
    settings = msgspec.structs.replace(embedded.settings, history_days=-1)
    later = AdvanceableClock()
    later.advance(settings.token_life_seconds + 60)
    found: list[dict[str, int]] = []
    for _ in range(3):
        life.live()
        cloud.await_(History(db=embedded.db, clock=embedded.clock, settings=settings).round())
        cloud.await_(Expired(db=embedded.db, clock=later).round())
        found.append(embedded.db.read(_rows))
    assert {name: [one[name] for one in found] for name in found[0] if found[0][name] != found[-1][name]} == {}
