"""Who may use what Compute does not offer yet: others get the refusal they will get then, and only these a 501.

Each entry is a line of `gaps.txt`; one that has become an operation is taken out of both.
"""

from __future__ import annotations

from cumulet.compute.rules import ADMIN, MEMBER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.web.policy import rule

_ACTIONS = {
    "addFixedIp": rule("os_compute_api:os-multinic:add", MEMBER),
    "addFloatingIp": rule("os_compute_api:os-floating-ips:add", MEMBER),
    "changePassword": rule("os_compute_api:os-admin-password", MEMBER),
    "createBackup": rule("os_compute_api:os-create-backup", MEMBER),
    "createImage": rule("os_compute_api:servers:create_image", MEMBER),
    "injectNetworkInfo": rule("os_compute_api:os-admin-actions:inject_network_info", ADMIN),
    "rebuild": rule("os_compute_api:servers:rebuild", MEMBER),
    "removeFixedIp": rule("os_compute_api:os-multinic:remove", MEMBER),
    "removeFloatingIp": rule("os_compute_api:os-floating-ips:remove", MEMBER),
    "rescue": rule("os_compute_api:os-rescue", MEMBER),
    "restore": rule("os_compute_api:os-deferred-delete:restore", MEMBER),
    "shelve": rule("os_compute_api:os-shelve:shelve", MEMBER),
    "shelveOffload": rule("os_compute_api:os-shelve:shelve_offload", ADMIN),
    "trigger_crash_dump": rule("os_compute_api:servers:trigger_crash_dump", MEMBER),
    "unrescue": rule("os_compute_api:os-unrescue", MEMBER),
    "unshelve": rule("os_compute_api:os-shelve:unshelve", MEMBER),
}

_BELOW_SERVERS = {
    **{f"POST /servers/{{id}}/action {action}": name for action, name in _ACTIONS.items()},
    "POST /servers/{server_id}/os-volume_attachments": rule("os_compute_api:os-volumes-attachments:create", MEMBER),
}
COMPUTE.gap_rules.update({place: (name, server_in_sight) for place, name in _BELOW_SERVERS.items()})
