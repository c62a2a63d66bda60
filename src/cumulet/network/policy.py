"""The named parts of upstream's rules for Network, and the check of attributes that have rules of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cumulet.web.operation import Call, Refused
from cumulet.web.policy import base_rule, rule

base_rule("context_is_admin", "role:admin", "Administrators")
base_rule("admin_only", "rule:context_is_admin", "Administrators")
base_rule("service_api", "role:service", "Services among themselves")
base_rule("context_is_advsvc", "role:advsvc", "Services, by their old role")
base_rule("network_owner", "project_id:%(network:project_id)s", "The owner of the network that a thing belongs to")
base_rule("sg_owner", "project_id:%(security_group:project_id)s", "The owner of the security group of a rule")
base_rule("ext_parent_owner", "project_id:%(ext_parent:project_id)s", "The owner of what a thing is a part of")
base_rule("shared", "field:networks:shared=True", "A shared network, or what is on it")
base_rule("external", "field:networks:router:external=True", "An external network")
base_rule("external_network", "field:subnets:router:external=True", "A subnet of an external network")
base_rule("shared_security_group", "field:security_groups:shared=True", "A shared security group")
base_rule("network_device", "field:port:device_owner=~^network:", "A port of the network service's own devices")
base_rule("compute_device", "field:port:device_owner=~^compute:", "A port of a server")
base_rule("baremetal_device", "field:port:device_owner=~^baremetal:", "A port of a bare metal node")
base_rule("manila_device", "field:port:device_owner=~^manila:", "A port of a share server")

ADMIN = "rule:admin_only"
SERVICE = "rule:service_api"
ADVSVC = "rule:context_is_advsvc"
PROJECT_MANAGER = "role:manager and project_id:%(project_id)s"
PROJECT_MEMBER = "role:member and project_id:%(project_id)s"
PROJECT_READER = "role:reader and project_id:%(project_id)s"
ADMIN_OR_SERVICE = f"({ADMIN}) or ({SERVICE})"
ADMIN_OR_PROJECT_MANAGER = f"({ADMIN}) or ({PROJECT_MANAGER})"
ADMIN_OR_PROJECT_MEMBER = f"({ADMIN}) or ({PROJECT_MEMBER})"
ADMIN_OR_PROJECT_READER = f"({ADMIN}) or ({PROJECT_READER})"
NETWORK_OWNER_MANAGER = "role:manager and rule:network_owner"
NETWORK_OWNER_MEMBER = "role:member and rule:network_owner"
NETWORK_OWNER_READER = "role:reader and rule:network_owner"
ADMIN_OR_NETWORK_OWNER_MEMBER = f"({ADMIN}) or ({NETWORK_OWNER_MEMBER})"
ADMIN_OR_NETWORK_OWNER_READER = f"({ADMIN}) or ({NETWORK_OWNER_READER})"
ADMIN_OR_PARENT_OWNER_MEMBER = f"({ADMIN}) or (role:member and rule:ext_parent_owner)"
ADMIN_OR_PARENT_OWNER_READER = f"({ADMIN}) or (role:reader and rule:ext_parent_owner)"
ADMIN_OR_GROUP_OWNER_MEMBER = f"({ADMIN}) or (role:member and rule:sg_owner)"
ADMIN_OR_GROUP_OWNER_READER = f"({ADMIN}) or (role:reader and rule:sg_owner)"


def attribute_rules(action: str, checks: Mapping[str, str]) -> dict[str, str]:
    """Declare rules for attributes of an action, such as ``create_network:shared``. Returns {attribute: rule}."""
    return {attribute: rule(f"{action}:{attribute}", check) for attribute, check in checks.items()}


def require_attributes(
    call: Call[object, object], rules: Mapping[str, str], given: Iterable[str], facts: Mapping[str, object]
) -> None:
    """403 if the caller may not set one of the attributes given."""
    for attribute in given:
        name = rules.get(attribute)
        if name is not None and not call.authorise(name, facts):
            raise Refused(name)
