"""Placement's rules: administrators and services, and a project's readers for its own usage."""

from __future__ import annotations

from cumulet.web.policy import base_rule, rule

base_rule("admin_or_service_api", "role:admin or role:service")
base_rule("service_api", "role:service")
base_rule("project_reader_api", "role:reader and project_id:%(project_id)s")
base_rule("admin_or_project_reader_or_service_api", "role:admin or rule:project_reader_api or role:service")


def admin_or_service(name: str, description: str) -> str:
    """Declare ``placement:NAME`` with upstream's usual default."""
    return rule(f"placement:{name}", "rule:admin_or_service_api", description=description)
