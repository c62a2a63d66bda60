"""The building blocks of Compute's policy: upstream's base rules, and the check strings features use most."""

from __future__ import annotations

from cumulet.web.policy import base_rule

base_rule("context_is_admin", "role:admin", "Administrators see and act across projects.")
base_rule("project_manager_api", "role:manager and project_id:%(project_id)s")
base_rule("project_member_api", "role:member and project_id:%(project_id)s")
base_rule("project_reader_api", "role:reader and project_id:%(project_id)s")
base_rule("service_api", "role:service")
base_rule("project_manager_or_admin", "rule:project_manager_api or rule:context_is_admin")
base_rule("project_member_or_admin", "rule:project_member_api or rule:context_is_admin")
base_rule("project_reader_or_admin", "rule:project_reader_api or rule:context_is_admin")
base_rule("service_or_admin", "rule:service_api or rule:context_is_admin")

ADMIN = "rule:context_is_admin"
MANAGER = "rule:project_manager_or_admin"
MEMBER = "rule:project_member_or_admin"
READER = "rule:project_reader_or_admin"
SERVICE = "rule:service_or_admin"
ANYONE = "@"
