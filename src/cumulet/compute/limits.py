"""What the caller may have and has: the summary clients ask for before they create."""

from __future__ import annotations

from cumulet.compute.quotas import limits_of, usage_of
from cumulet.compute.rules import ADMIN, ANYONE
from cumulet.compute.service import COMPUTE
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Query

SHOW = rule("os_compute_api:limits", ANYONE)
SHOW_OTHER = rule("os_compute_api:limits:other_project", ADMIN)

_LIMITS = {
    "maxTotalCores": "cores",
    "maxTotalInstances": "instances",
    "maxTotalKeypairs": "key_pairs",
    "maxServerMeta": "metadata_items",
    "maxTotalRAMSize": "ram",
    "maxServerGroups": "server_groups",
    "maxServerGroupMembers": "server_group_members",
}
_NETWORK_LIMITS = {
    "maxTotalFloatingIps": "floating_ips",
    "maxSecurityGroups": "security_groups",
    "maxSecurityGroupRules": "security_group_rules",
}
_FILE_LIMITS = {"maxPersonality": "injected_files", "maxPersonalitySize": "injected_file_content_bytes"}
_USES = {
    "totalRAMUsed": "ram",
    "totalCoresUsed": "cores",
    "totalInstancesUsed": "instances",
    "totalServerGroupsUsed": "server_groups",
}
_NETWORK_USES = {"totalFloatingIpsUsed": "floating_ips", "totalSecurityGroupsUsed": "security_groups"}


class LimitsQuery(Query, closed_since="2.75"):
    tenant_id: str | None = None


@COMPUTE.operation("GET", "/limits", rules=(Rule(SHOW),), query=LimitsQuery)
def show_limits(call: Call[None, None]) -> dict[str, object]:
    """Show limits and use of the caller's project; of another one for administrators."""
    project_id = call.caller.project_id
    if "tenant_id" in call.query:
        call.require(SHOW_OTHER)
        project_id = call.query.get("tenant_id")
    limits, used = limits_of(call.tx, project_id or ""), usage_of(call.tx, project_id or "")
    shown_limits, shown_uses = dict(_LIMITS), dict(_USES)
    if not call.version.at_least("2.36"):
        shown_limits |= _NETWORK_LIMITS
        shown_uses |= _NETWORK_USES
    if not call.version.at_least("2.39"):
        shown_limits["maxImageMeta"] = "metadata_items"
    if not call.version.at_least("2.57"):
        shown_limits |= _FILE_LIMITS
    absolute = {name: limits[resource] for name, resource in shown_limits.items()}
    absolute |= {name: used[resource] for name, resource in shown_uses.items()}
    return {"limits": {"rate": [], "absolute": absolute}}
