"""Compute's examples. What they are about is made in `compute_things.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .compute_things import PUBLIC_KEY, SPARE, Things
from .example import ADMIN, ANY_MEMBER, ANY_READER, ANYONE, MANAGER, MEMBER, PROJECT, READER, SERVICE, Example, Made

__all__ = ["EXAMPLES", "PARAMETERS", "Things"]

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def owner_project(things: Things) -> Any:
    return things.owner.project_id


def on(server: str) -> dict[str, Made]:
    """The path of an action on another server than the running one."""
    return {"server_id": lambda things: getattr(things, server)}


OF_A_MOVE = {**on("moving"), "migration_id": lambda t: t.migration}
PARAMETERS: Mapping[str, str | Made] = {
    "server_id": lambda t: t.server,
    "flavor_id": lambda t: t.private_flavor,
    "image_id": lambda t: t.own_image,
    "aggregate_id": lambda t: t.aggregate,
    "hypervisor_id": lambda t: t.hypervisor,
    "group_id": lambda t: t.group,
    "project_id": owner_project,
    "service_id": lambda t: t.service_of("host1"),
    "request_id": lambda t: t.action_request,
    "port_id": lambda t: t.port,
    "network_label": lambda t: t.network_label,
    "network_id": lambda t: t.network,
    "security_group_id": lambda t: t.security_group,
    "security_group_rule_id": lambda t: t.security_group_rule,
    "floatingip_id": lambda t: t.floating_ip["id"],
    "volume_id": UNKNOWN,
    "host_name": "host1",
    "pattern": "host1",
    "class_name": "default",
    "alias": "NMN",
    "key": "colour",
    "tag": "blue",
}
OF_GROUP = ("get_security_group",)
OPEN_PORT = {"ip_protocol": "tcp", "from_port": 80, "to_port": 80}
SEEN = ("get_image",)
"""The rule of Image by which an image is in sight."""
ACTION = "POST /servers/{server_id}/action"
SERVER = "/servers/{server_id}"
MIGRATION = "/servers/{server_id}/migrations/{migration_id}"

EXAMPLES: dict[str, Example | tuple[Example, ...]] = {
    # -- servers
    "GET /servers": Example(may=ANY_READER),
    "GET /servers/detail": Example(may=ANY_READER),
    f"GET {SERVER}": Example(may=READER, sees=PROJECT),
    f"PUT {SERVER}": Example(may=MEMBER, sees=PROJECT, body={"server": {"name": "renamed"}}),
    f"DELETE {SERVER}": Example(may=MEMBER, sees=PROJECT),
    "POST /servers": Example(may=ANY_MEMBER, body=lambda t: {"server": t.new_server() | {"networks": "none"}}),
    f"GET {SERVER}/diagnostics": Example(may=ADMIN, sees=PROJECT),
    f"GET {SERVER}/metadata": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/metadata/{{key}}": Example(may=READER, sees=PROJECT),
    f"POST {SERVER}/metadata": Example(may=MEMBER, sees=PROJECT, body={"metadata": {"size": "large"}}),
    f"PUT {SERVER}/metadata": Example(may=MEMBER, sees=PROJECT, body={"metadata": {"size": "large"}}),
    f"PUT {SERVER}/metadata/{{key}}": Example(may=MEMBER, sees=PROJECT, body={"meta": {"colour": "red"}}),
    f"DELETE {SERVER}/metadata/{{key}}": Example(may=MEMBER, sees=PROJECT),
    f"GET {SERVER}/os-instance-actions": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/os-instance-actions/{{request_id}}": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/ips": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/ips/{{network_label}}": Example(may=READER, sees=PROJECT),
    f"POST {SERVER}/os-interface": Example(
        may=MEMBER, sees=PROJECT, body=lambda t: {"interfaceAttachment": {"net_id": t.network}}
    ),
    f"DELETE {SERVER}/os-interface/{{port_id}}": Example(may=MEMBER, sees=PROJECT),
    f"GET {SERVER}/os-interface": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/os-interface/{{port_id}}": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/os-server-password": Example(may=READER, sees=PROJECT),
    f"DELETE {SERVER}/os-server-password": Example(may=MEMBER, sees=PROJECT),
    f"GET {SERVER}/os-security-groups": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/tags": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/tags/{{tag}}": Example(may=READER, sees=PROJECT),
    f"PUT {SERVER}/tags/{{tag}}": Example(may=MEMBER, sees=PROJECT, path={"tag": "red"}),
    f"PUT {SERVER}/tags": Example(may=MEMBER, sees=PROJECT, body={"tags": ["red"]}),
    f"DELETE {SERVER}/tags/{{tag}}": Example(may=MEMBER, sees=PROJECT),
    f"DELETE {SERVER}/tags": Example(may=MEMBER, sees=PROJECT),
    f"GET {SERVER}/topology": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/os-volume_attachments": Example(may=READER, sees=PROJECT),
    f"GET {SERVER}/os-volume_attachments/{{volume_id}}": Example(may=READER, sees=PROJECT, answers=404),
    # -- actions of a server
    f"{ACTION} os-start": Example(may=MEMBER, sees=PROJECT, path=on("stopped")),
    f"{ACTION} os-stop": Example(may=MEMBER, sees=PROJECT),
    f"{ACTION} reboot": Example(may=MEMBER, sees=PROJECT, body={"type": "SOFT"}),
    f"{ACTION} pause": Example(may=MEMBER, sees=PROJECT),
    f"{ACTION} unpause": Example(may=MEMBER, sees=PROJECT, path=on("paused")),
    f"{ACTION} suspend": Example(may=MEMBER, sees=PROJECT),
    f"{ACTION} resume": Example(may=MEMBER, sees=PROJECT, path=on("suspended")),
    f"{ACTION} forceDelete": Example(may=MEMBER, sees=PROJECT),
    f"{ACTION} lock (to 2.72)": Example(may=MEMBER, sees=PROJECT),
    f"{ACTION} lock": Example(may=MEMBER, sees=PROJECT, body={"locked_reason": "mine"}),
    f"{ACTION} unlock": (
        Example(may=MEMBER, sees=PROJECT),
        Example(
            label="locked by an administrator",
            may=ADMIN,
            sees=PROJECT,
            path=on("locked_by_admin"),
            rules=("os_compute_api:os-lock-server:unlock:unlock_override",),
        ),
    ),
    f"{ACTION} os-resetState": Example(may=ADMIN, sees=PROJECT, body={"state": "error"}),
    f"POST {SERVER}/remote-consoles": Example(
        may=MEMBER, sees=PROJECT, body={"remote_console": {"protocol": "serial", "type": "serial"}}
    ),
    f"{ACTION} os-getSerialConsole (to 2.5)": Example(may=MEMBER, sees=PROJECT, body={"type": "serial"}),
    f"{ACTION} os-getVNCConsole (to 2.5)": Example(may=MEMBER, sees=PROJECT, body={"type": "novnc"}),
    f"{ACTION} os-getSPICEConsole (to 2.5)": Example(
        may=MEMBER, sees=PROJECT, body={"type": "spice-html5"}, answers=400
    ),
    f"{ACTION} os-getRDPConsole (to 2.5)": Example(may=MEMBER, sees=PROJECT, body={"type": "rdp-html5"}, answers=400),
    "GET /os-console-auth-tokens/{console_token}": Example(
        may=ADMIN, path={"console_token": lambda t: t.console_token}
    ),
    f"{ACTION} os-getConsoleOutput": Example(may=MEMBER, sees=PROJECT, body={}),
    f"{ACTION} addSecurityGroup": Example(may=MEMBER, sees=PROJECT, body={"name": "default"}),
    f"{ACTION} removeSecurityGroup": Example(may=MEMBER, sees=PROJECT, body={"name": "default"}),
    f"{ACTION} resize": Example(may=MEMBER, sees=PROJECT, body={"flavorRef": lambda t: t.flavors["m1.micro"]}),
    f"{ACTION} confirmResize": Example(may=MEMBER, sees=PROJECT, path=on("resized")),
    f"{ACTION} revertResize": Example(may=MEMBER, sees=PROJECT, path=on("resized")),
    f"{ACTION} migrate (to 2.55)": Example(may=MANAGER, sees=PROJECT),
    f"{ACTION} migrate": (
        Example(may=MANAGER, sees=PROJECT),
        Example(label="host", may=ADMIN, sees=PROJECT, body={"host": lambda t: t.elsewhere}),
    ),
    f"{ACTION} os-migrateLive": (
        Example(may=MANAGER, sees=PROJECT, body={"host": None, "block_migration": "auto"}),
        Example(
            label="host",
            may=ADMIN,
            sees=PROJECT,
            body={"host": lambda t: t.elsewhere, "block_migration": "auto"},
        ),
    ),
    f"{ACTION} evacuate": Example(may=ADMIN, sees=PROJECT, path=on("lost"), body={}),
    f"{ACTION} createImage": Example(may=MEMBER, sees=PROJECT, rules=("add_image",), body={"name": "image"}),
    f"{ACTION} createBackup": Example(
        may=MEMBER,
        sees=PROJECT,
        rules=("add_image",),
        body={"name": "backup", "backup_type": "daily", "rotation": 1},
    ),
    f"{ACTION} rebuild": (
        Example(may=MEMBER, sees=PROJECT, body={"imageRef": lambda t: t.image}),
        Example(
            label="certificates",
            may=MEMBER,
            sees=PROJECT,
            body={"imageRef": lambda t: t.image, "trusted_image_certificates": None},
            rules=("os_compute_api:servers:rebuild:trusted_certs",),
        ),
    ),
    f"{ACTION} changePassword": Example(may=MEMBER, sees=PROJECT, body={"adminPass": "secret"}, answers=409),
    f"{ACTION} restore": Example(may=MEMBER, sees=PROJECT, answers=409),
    f"{ACTION} injectNetworkInfo": Example(may=ADMIN, sees=PROJECT),
    f"{ACTION} trigger_crash_dump": Example(may=MEMBER, sees=PROJECT),
    f"{ACTION} rescue": Example(may=MEMBER, sees=PROJECT),
    f"{ACTION} unrescue": Example(may=MEMBER, sees=PROJECT, path=on("rescued")),
    f"{ACTION} shelve": Example(may=MEMBER, sees=PROJECT, rules=("add_image",)),
    f"{ACTION} shelveOffload": Example(may=ADMIN, sees=PROJECT, path=on("shelved"), answers=409),
    f"{ACTION} unshelve (to 2.76)": Example(may=MEMBER, sees=PROJECT, path=on("shelved")),
    f"{ACTION} unshelve (to 2.90)": Example(
        may=MEMBER, sees=PROJECT, path=on("shelved"), body={"availability_zone": "nova"}
    ),
    f"{ACTION} unshelve": (
        Example(may=MEMBER, sees=PROJECT, path=on("shelved")),
        Example(label="host", may=ADMIN, sees=PROJECT, path=on("shelved"), body={"host": "host1"}),
    ),
    # -- moves
    f"GET {SERVER}/migrations": Example(may=MANAGER, sees=PROJECT, path=on("moving")),
    f"GET {MIGRATION}": Example(may=ADMIN, sees=PROJECT, path=OF_A_MOVE),
    f"DELETE {MIGRATION}": Example(may=MANAGER, sees=PROJECT, path=OF_A_MOVE),
    f"POST {MIGRATION}/action force_complete": Example(may=MANAGER, sees=PROJECT, path=OF_A_MOVE),
    "GET /os-migrations": (
        Example(may=MANAGER, query=lambda t: f"project_id={t.owner.project_id}"),
        Example(label="every project's", may=ADMIN, rules=("os_compute_api:os-migrations:index:all_projects",)),
    ),
    "GET /cumulet/operations": Example(may=ADMIN),
    "GET /cumulet/control-plane": Example(may=ADMIN),
    "GET /cumulet/findings": Example(may=ADMIN),
    "GET /cumulet/migrations/{migration_id}": Example(may=ADMIN, path={"migration_id": lambda t: t.migration}),
    "GET /cumulet/history": Example(may=ADMIN),
    "GET /cumulet/dropped-packets": Example(may=ADMIN),
    "GET /cumulet/paths/{sender}/{receiver}": (
        Example(
            may=READER,
            sees=PROJECT,
            path={"sender": lambda t: t.port, "receiver": lambda t: t.port},
            query="protocol=tcp&port=22",
        ),
        Example(
            label="to another's",
            may=READER,
            sees=PROJECT,
            hidden="receiver",
            path={"sender": "192.0.2.7", "receiver": lambda t: t.port},
        ),
    ),
    # -- flavors
    "GET /flavors": Example(may=ANYONE),
    "GET /flavors/detail": Example(may=ANYONE),
    "GET /flavors/{flavor_id}": Example(may=PROJECT, sees=PROJECT),
    "POST /flavors": Example(may=ADMIN, body={"flavor": {"name": "new", "vcpus": 1, "ram": 64, "disk": 1}}),
    "PUT /flavors/{flavor_id}": Example(may=ADMIN, body={"flavor": {"description": "large"}}),
    "DELETE /flavors/{flavor_id}": Example(may=ADMIN),
    "GET /flavors/{flavor_id}/os-flavor-access": Example(may=ADMIN),
    "POST /flavors/{flavor_id}/action addTenantAccess": Example(
        may=ADMIN, body={"tenant": lambda t: t.other.project_id}
    ),
    "POST /flavors/{flavor_id}/action removeTenantAccess": Example(may=ADMIN, body={"tenant": owner_project}),
    "GET /flavors/{flavor_id}/os-extra_specs": Example(may=READER, sees=PROJECT),
    "GET /flavors/{flavor_id}/os-extra_specs/{key}": Example(may=READER, sees=PROJECT),
    "POST /flavors/{flavor_id}/os-extra_specs": Example(may=ADMIN, body={"extra_specs": {"size": "large"}}),
    "PUT /flavors/{flavor_id}/os-extra_specs/{key}": Example(may=ADMIN, body={"colour": "red"}),
    "DELETE /flavors/{flavor_id}/os-extra_specs/{key}": Example(may=ADMIN),
    # -- hosts
    "GET /os-aggregates": Example(may=ADMIN),
    "GET /os-aggregates/{aggregate_id}": Example(may=ADMIN),
    "POST /os-aggregates": Example(may=ADMIN, body={"aggregate": {"name": "new"}}),
    "PUT /os-aggregates/{aggregate_id}": Example(may=ADMIN, body={"aggregate": {"name": "renamed"}}),
    "DELETE /os-aggregates/{aggregate_id}": Example(may=ADMIN, path={"aggregate_id": lambda t: t.empty_aggregate}),
    "POST /os-aggregates/{aggregate_id}/action add_host": Example(may=ADMIN, body={"host": "host2"}),
    "POST /os-aggregates/{aggregate_id}/action remove_host": Example(may=ADMIN, body={"host": "host1"}),
    "POST /os-aggregates/{aggregate_id}/action set_metadata": Example(may=ADMIN, body={"metadata": {"colour": "blue"}}),
    "GET /cumulet/hosts": Example(may=ADMIN),
    "POST /cumulet/hosts": Example(may=ADMIN, body={"host": {"name": "rack1"}}),
    "DELETE /cumulet/hosts/{name}": Example(may=ADMIN, path={"name": lambda t: t.invited}),
    "GET /os-instance_usage_audit_log": Example(may=ADMIN),
    "GET /os-instance_usage_audit_log/{before}": Example(may=ADMIN, path={"before": "2026-01-31 00:00:00"}),
    "GET /os-services": Example(may=ADMIN),
    "PUT /os-services/{action} (to 2.52)": Example(
        may=ADMIN, path={"action": "disable"}, body={"host": SPARE, "binary": "nova-compute"}
    ),
    "PUT /os-services/{service_id}": Example(may=ADMIN, body={"status": "disabled"}),
    "DELETE /os-services/{service_id}": Example(
        may=ADMIN, path={"service_id": lambda t: t.service_of(SPARE)}, answers=501
    ),
    "GET /os-availability-zone": Example(may=ANYONE),
    "GET /os-availability-zone/detail": Example(may=ADMIN),
    "GET /os-hypervisors": Example(may=ADMIN),
    "GET /os-hypervisors/detail": Example(may=ADMIN),
    "GET /os-hypervisors/statistics (to 2.87)": Example(may=ADMIN),
    "GET /os-hypervisors/{hypervisor_id}": Example(may=ADMIN),
    "GET /os-hypervisors/{hypervisor_id}/uptime (to 2.87)": Example(may=ADMIN),
    "GET /os-hypervisors/{pattern}/search (to 2.52)": Example(may=ADMIN),
    "GET /os-hypervisors/{pattern}/servers (to 2.52)": Example(may=ADMIN),
    "GET /os-hosts (to 2.42)": Example(may=ADMIN),
    "GET /os-hosts/{host_name} (to 2.42)": Example(may=ADMIN),
    "PUT /os-hosts/{host_name} (to 2.42)": Example(may=ADMIN, body={"status": "enable"}, answers=501),
    "GET /os-hosts/{host_name}/reboot (to 2.42)": Example(may=ADMIN, answers=501),
    "GET /os-hosts/{host_name}/shutdown (to 2.42)": Example(may=ADMIN, answers=501),
    "GET /os-hosts/{host_name}/startup (to 2.42)": Example(may=ADMIN, answers=501),
    "POST /os-server-external-events": Example(
        may=SERVICE, body={"events": [{"name": "network-changed", "server_uuid": lambda t: t.server}]}
    ),
    # -- images, by Compute's older paths
    "GET /images (to 2.35)": Example(may=ANY_READER),
    "GET /images/detail (to 2.35)": Example(may=ANY_READER),
    "GET /images/{image_id} (to 2.35)": Example(may=READER, sees=READER, rules=SEEN),
    "DELETE /images/{image_id} (to 2.35)": Example(
        may=MEMBER, sees=READER, path={"image_id": lambda t: t.new_image()}, real=True, rules=SEEN
    ),
    "GET /images/{image_id}/metadata (to 2.38)": Example(may=READER, sees=READER, rules=SEEN),
    "GET /images/{image_id}/metadata/{key} (to 2.38)": Example(may=READER, sees=READER, rules=SEEN),
    "POST /images/{image_id}/metadata (to 2.38)": Example(
        may=MEMBER, sees=READER, rules=SEEN, body={"metadata": {"shape": "round"}}
    ),
    "PUT /images/{image_id}/metadata (to 2.38)": Example(
        may=MEMBER, sees=READER, rules=SEEN, body={"metadata": {"shape": "round"}}
    ),
    "PUT /images/{image_id}/metadata/{key} (to 2.38)": Example(
        may=MEMBER, sees=READER, rules=SEEN, body={"meta": {"colour": "red"}}
    ),
    "DELETE /images/{image_id}/metadata/{key} (to 2.38)": Example(may=MEMBER, sees=READER, rules=SEEN),
    # -- networks, security groups and floating IPs, by Compute's older paths
    "GET /os-networks (to 2.35)": Example(may=ANY_READER),
    "GET /os-networks/{network_id} (to 2.35)": Example(may=READER, sees=PROJECT, rules=("get_network",)),
    "GET /os-tenant-networks (to 2.35)": Example(may=ANY_READER),
    "GET /os-tenant-networks/{network_id} (to 2.35)": Example(may=READER, sees=PROJECT, rules=("get_network",)),
    "GET /os-security-groups (to 2.35)": Example(may=ANY_READER),
    "GET /os-security-groups/{security_group_id} (to 2.35)": Example(may=READER, sees=READER, rules=OF_GROUP),
    "POST /os-security-groups (to 2.35)": Example(
        may=ANY_MEMBER, body={"security_group": {"name": "new", "description": ""}}, rules=("create_security_group",)
    ),
    "PUT /os-security-groups/{security_group_id} (to 2.35)": Example(
        may=MEMBER,
        sees=READER,
        body={"security_group": {"name": "other", "description": ""}},
        rules=(*OF_GROUP, "update_security_group"),
    ),
    "DELETE /os-security-groups/{security_group_id} (to 2.35)": Example(
        may=MEMBER, sees=READER, rules=(*OF_GROUP, "delete_security_group")
    ),
    "POST /os-security-group-rules (to 2.35)": Example(
        may=MEMBER,
        sees=PROJECT,
        body={"security_group_rule": {"parent_group_id": lambda t: t.security_group, "group_id": None, **OPEN_PORT}},
        rules=(*OF_GROUP, "create_security_group_rule"),
    ),
    "DELETE /os-security-group-rules/{security_group_rule_id} (to 2.35)": Example(
        may=MEMBER, sees=READER, rules=("get_security_group_rule", "delete_security_group_rule")
    ),
    "GET /os-floating-ip-pools (to 2.35)": Example(may=ANYONE),
    "GET /os-floating-ips (to 2.35)": Example(may=ANY_READER),
    "GET /os-floating-ips/{floatingip_id} (to 2.35)": Example(may=READER, sees=READER, rules=("get_floatingip",)),
    "POST /os-floating-ips (to 2.35)": Example(may=ANY_MEMBER, rules=("create_floatingip", "get_network")),
    "DELETE /os-floating-ips/{floatingip_id} (to 2.35)": Example(
        may=MEMBER, sees=READER, rules=("get_floatingip", "delete_floatingip")
    ),
    f"{ACTION} addFloatingIp (to 2.43)": Example(
        may=MEMBER,
        sees=PROJECT,
        path=on("behind_router"),
        body={"address": lambda t: t.floating_address},
        rules=("get_floatingip", "update_floatingip", "get_port"),
    ),
    f"{ACTION} removeFloatingIp (to 2.43)": Example(
        may=MEMBER,
        sees=PROJECT,
        path=on("behind_router"),
        body={"address": lambda t: t.floating_of_server},
        rules=("get_floatingip", "update_floatingip"),
    ),
    # -- key pairs, which are a user's
    "GET /os-keypairs": (
        Example(may=ANYONE),
        Example(
            label="another user's",
            may=ADMIN | {"member"},
            query=lambda t: f"user_id={t.owner.user_id}",
            rules=("os_compute_api:os-keypairs:index",),
        ),
    ),
    "GET /os-keypairs/{name}": Example(
        may=ADMIN | {"member"},
        path={"name": lambda t: t.keypair},
        query=lambda t: f"user_id={t.owner.user_id}",
        rules=("os_compute_api:os-keypairs:show",),
    ),
    "POST /os-keypairs": Example(
        may=ADMIN | {"member"},
        body={"keypair": {"name": "new", "public_key": PUBLIC_KEY, "user_id": lambda t: t.owner.user_id}},
        rules=("os_compute_api:os-keypairs:create",),
    ),
    "DELETE /os-keypairs/{name}": Example(
        may=ADMIN | {"member"},
        path={"name": lambda t: t.keypair},
        query=lambda t: f"user_id={t.owner.user_id}",
        rules=("os_compute_api:os-keypairs:delete",),
    ),
    # -- groups, quotas, usage
    "GET /os-server-groups": Example(may=ANY_READER),
    "GET /os-server-groups/{group_id}": Example(may=READER, sees=PROJECT),
    "POST /os-server-groups": Example(may=ANY_MEMBER, body={"server_group": {"name": "new", "policy": "affinity"}}),
    "DELETE /os-server-groups/{group_id}": Example(may=MEMBER, sees=PROJECT),
    "GET /limits": Example(may=ANYONE),
    "GET /os-quota-sets/{project_id}": Example(may=READER),
    "GET /os-quota-sets/{project_id}/detail": Example(may=READER),
    "GET /os-quota-sets/{project_id}/defaults": Example(may=ANYONE),
    "PUT /os-quota-sets/{project_id}": Example(may=ADMIN, body={"quota_set": {"cores": 30}}),
    "DELETE /os-quota-sets/{project_id}": Example(may=ADMIN),
    "GET /os-quota-class-sets/{class_name}": Example(may=ADMIN),
    "PUT /os-quota-class-sets/{class_name}": Example(may=ADMIN, body={"quota_class_set": {"cores": 30}}),
    "GET /os-simple-tenant-usage": Example(may=ADMIN),
    "GET /os-simple-tenant-usage/{project_id}": Example(may=READER),
    # -- what there is
    "GET /extensions": Example(may=ANYONE),
    "GET /extensions/{alias}": Example(may=ANYONE),
}
