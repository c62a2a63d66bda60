"""Identity's examples. What they are about is made in `identity_things.py`."""

from __future__ import annotations

from collections.abc import Mapping

from .example import ADMIN, ANYONE, PROJECT, SERVICE, Example, Made
from .identity_things import Things

__all__ = ["EXAMPLES", "PARAMETERS", "Things"]

SUBJECT: Mapping[str, Made] = {"X-Subject-Token": lambda t: t.token}
IMPLIED: Mapping[str, Made] = {"prior_role_id": lambda t: t.prior_role, "implied_role_id": lambda t: t.implied_role}
NOT_IMPLIED: Mapping[str, Made] = {"prior_role_id": lambda t: t.role, "implied_role_id": lambda t: t.implied_role}
GRANTED: Mapping[str, Mapping[str, Made]] = {
    "user": {"role_id": lambda t: t.granted_role},
    "group": {"role_id": lambda t: t.role_of_group},
}
IN_GROUP: Mapping[str, Made] = {"group_id": lambda t: t.group_of_user}
PARAMETERS: Mapping[str, str | Made] = {
    "domain_id": lambda t: t.domain,
    "project_id": lambda t: t.project,
    "user_id": lambda t: t.user,
    "role_id": lambda t: t.role,
    "group_id": lambda t: t.group,
    "region_id": lambda t: t.region,
    "service_id": lambda t: t.service,
    "endpoint_id": lambda t: t.endpoint,
    "tag": "blue",
    "application_credential_id": lambda t: t.application_credential,
    "access_rule_id": lambda t: t.access_rule,
    "trust_id": lambda t: t.trust,
    "credential_id": lambda t: t.credential,
    "policy_id": lambda t: t.policy,
    "endpoint_group_id": lambda t: t.endpoint_group,
    "registered_limit_id": lambda t: t.registered_limit,
    "limit_id": lambda t: t.limit,
    "group": "identity",
    "option": "list_limit",
    "access": lambda t: t.access,
    "consumer_id": lambda t: t.consumer["id"],
    "request_token_id": lambda t: t.request_token["id"],
    "access_token_id": lambda t: t.access_token,
}
OWNER = frozenset({"member"})
OF_OWNER: Mapping[str, Made] = {"user_id": lambda t: t.owner}
OF_ADMIN: Mapping[str, Made] = {"user_id": lambda t: t.administrator, "role_id": lambda t: t.admin_role}
ACCESS = "/users/{user_id}/OS-OAUTH1/access_tokens"
TRUSTED: Mapping[str, Made] = {"role_id": lambda t: t.trusted_role}
EC2 = "/users/{user_id}/credentials/OS-EC2"
CREDENTIALS = "/users/{user_id}/application_credentials"
DEFAULT = {"domain_id": "default"}
NEW_USER = {"user": {"name": "new", "domain_id": "default", "password": "anything at all"}}


def grants(place: str, more: Mapping[str, str | Made], holder: str = "user", suffix: str = "") -> dict[str, Example]:
    """The operations on the roles of a user or a group in a place, or (with the suffix) in all below it."""
    path = f"{place}/{holder}s/{{{holder}_id}}/roles"
    given = {**GRANTED[holder], **more}
    found = {
        f"GET {path}{suffix}": Example(may=ADMIN, path=more),
        f"GET {path}/{{role_id}}{suffix}": Example(may=ADMIN, path=given),
        f"PUT {path}/{{role_id}}{suffix}": Example(may=ADMIN, path=more),
        f"DELETE {path}/{{role_id}}{suffix}": Example(may=ADMIN, path=given),
    }
    if place == "/OS-INHERIT/projects/{project_id}":
        del found[f"GET {path}{suffix}"]
    return found


def all_grants() -> dict[str, Example]:
    found: dict[str, Example] = {}
    for holder in ("user", "group"):
        found |= grants("/projects/{project_id}", {}, holder)
        found |= grants("/domains/{domain_id}", DEFAULT, holder)
        found |= grants("/system", {}, holder)
        found |= grants("/OS-INHERIT/projects/{project_id}", {}, holder, "/inherited_to_projects")
        found |= grants("/OS-INHERIT/domains/{domain_id}", DEFAULT, holder, "/inherited_to_projects")
    return found


ASSOCIATED: Mapping[str, Made] = {"policy_id": lambda t: t.associated_policy}
FILTERED: Mapping[str, Made] = {"project_id": lambda t: t.filtered_project}
CONFIGURED: Mapping[str, Made] = {"domain_id": lambda t: t.configured_domain}
EP_GROUPS = "/OS-EP-FILTER/endpoint_groups"
EP_GROUP = f"{EP_GROUPS}/{{endpoint_group_id}}"
EP_PROJECT = "/OS-EP-FILTER/projects/{project_id}"
CONFIG = "/domains/{domain_id}/config"
READ_CONFIG = ("identity:get_domain_config",)
LIMIT = {"config": {"list_limit": 7}}


def associations() -> dict[str, Example]:
    found: dict[str, Example] = {}
    for place in ("endpoints/{endpoint_id}", "services/{service_id}", "services/{service_id}/regions/{region_id}"):
        path = f"/policies/{{policy_id}}/OS-ENDPOINT-POLICY/{place}"
        found[f"GET {path}"] = Example(may=ADMIN, path=ASSOCIATED)
        found[f"PUT {path}"] = Example(may=ADMIN)
        found[f"DELETE {path}"] = Example(may=ADMIN, path=ASSOCIATED)
    return found


EXAMPLES: Mapping[str, Example | tuple[Example, ...]] = {
    "GET /domains": Example(may=ADMIN),
    "GET /domains/{domain_id}": Example(may=ADMIN),
    "POST /domains": Example(may=ADMIN, body={"domain": {"name": "new"}}),
    "PATCH /domains/{domain_id}": Example(may=ADMIN, body={"domain": {"description": "large"}}),
    "DELETE /domains/{domain_id}": Example(may=ADMIN),
    "GET /projects": Example(may=ADMIN),
    "GET /projects/{project_id}": Example(may=ADMIN),
    "POST /projects": Example(may=ADMIN, body={"project": {"name": "new", "domain_id": "default"}}),
    "PATCH /projects/{project_id}": Example(may=ADMIN, body={"project": {"description": "large"}}),
    "DELETE /projects/{project_id}": Example(may=ADMIN),
    "GET /projects/{project_id}/tags": Example(may=ADMIN),
    "PUT /projects/{project_id}/tags": Example(may=ADMIN, body={"tags": ["red"]}),
    "DELETE /projects/{project_id}/tags": Example(may=ADMIN),
    "GET /projects/{project_id}/tags/{tag}": Example(may=ADMIN),
    "PUT /projects/{project_id}/tags/{tag}": Example(may=ADMIN, path={"tag": "red"}),
    "DELETE /projects/{project_id}/tags/{tag}": Example(may=ADMIN),
    # -- roles
    "GET /roles": Example(may=ADMIN),
    "GET /roles/{role_id}": Example(may=ADMIN),
    "POST /roles": Example(may=ADMIN, body={"role": {"name": "new"}}),
    "PATCH /roles/{role_id}": Example(may=ADMIN, body={"role": {"description": "large"}}),
    "DELETE /roles/{role_id}": Example(may=ADMIN),
    "GET /roles/{prior_role_id}/implies": Example(may=ADMIN, path=IMPLIED),
    "GET /roles/{prior_role_id}/implies/{implied_role_id}": Example(may=ADMIN, path=IMPLIED),
    "HEAD /roles/{prior_role_id}/implies/{implied_role_id}": Example(may=ADMIN, path=IMPLIED),
    "PUT /roles/{prior_role_id}/implies/{implied_role_id}": Example(may=ADMIN, path=NOT_IMPLIED),
    "DELETE /roles/{prior_role_id}/implies/{implied_role_id}": Example(may=ADMIN, path=IMPLIED),
    "GET /role_inferences": Example(may=ADMIN),
    "GET /role_assignments": Example(may=ADMIN),
    **all_grants(),
    # -- groups
    "GET /groups": Example(may=ADMIN),
    "GET /groups/{group_id}": Example(may=ADMIN),
    "POST /groups": Example(may=ADMIN, body={"group": {"name": "new", "domain_id": "default"}}),
    "PATCH /groups/{group_id}": Example(may=ADMIN, body={"group": {"description": "large"}}),
    "DELETE /groups/{group_id}": Example(may=ADMIN),
    "GET /groups/{group_id}/users": Example(may=ADMIN),
    "GET /groups/{group_id}/users/{user_id}": Example(may=ADMIN, path=IN_GROUP),
    "PUT /groups/{group_id}/users/{user_id}": Example(may=ADMIN),
    "DELETE /groups/{group_id}/users/{user_id}": Example(may=ADMIN, path=IN_GROUP),
    # -- catalog
    "GET /regions": Example(may=ANYONE),
    "GET /regions/{region_id}": Example(may=ANYONE),
    "POST /regions": Example(may=ADMIN, body={"region": {}}),
    "PUT /regions/{region_id}": Example(may=ADMIN, path={"region_id": "new"}, body={"region": {}}),
    "PATCH /regions/{region_id}": Example(may=ADMIN, body={"region": {"description": "large"}}),
    "DELETE /regions/{region_id}": Example(may=ADMIN),
    "GET /services": Example(may=ADMIN),
    "GET /services/{service_id}": Example(may=ADMIN),
    "POST /services": Example(may=ADMIN, body={"service": {"type": "new"}}),
    "PATCH /services/{service_id}": Example(may=ADMIN, body={"service": {"name": "renamed"}}),
    "DELETE /services/{service_id}": Example(may=ADMIN),
    "GET /endpoints": Example(may=ADMIN),
    "GET /endpoints/{endpoint_id}": Example(may=ADMIN),
    "POST /endpoints": Example(
        may=ADMIN,
        body={"endpoint": {"service_id": lambda t: t.service, "interface": "admin", "url": "https://example.org/"}},
    ),
    "PATCH /endpoints/{endpoint_id}": Example(may=ADMIN, body={"endpoint": {"url": "https://example.org/new"}}),
    "DELETE /endpoints/{endpoint_id}": Example(may=ADMIN),
    # -- filters of the catalog
    f"GET {EP_GROUPS}": Example(may=ADMIN),
    f"POST {EP_GROUPS}": Example(
        may=ADMIN, body={"endpoint_group": {"name": "new", "filters": {"interface": "public"}}}
    ),
    f"GET {EP_GROUP}": Example(may=ADMIN),
    f"PATCH {EP_GROUP}": Example(may=ADMIN, body={"endpoint_group": {"name": "renamed"}}),
    f"DELETE {EP_GROUP}": Example(may=ADMIN),
    f"GET {EP_GROUP}/endpoints": Example(may=ADMIN),
    f"GET {EP_GROUP}/projects": Example(may=ADMIN),
    f"GET {EP_GROUP}/projects/{{project_id}}": Example(may=ADMIN, path=FILTERED),
    f"PUT {EP_GROUP}/projects/{{project_id}}": Example(may=ADMIN),
    f"DELETE {EP_GROUP}/projects/{{project_id}}": Example(may=ADMIN, path=FILTERED),
    f"GET {EP_PROJECT}/endpoint_groups": Example(may=ADMIN),
    f"GET {EP_PROJECT}/endpoints": Example(may=ADMIN),
    f"GET {EP_PROJECT}/endpoints/{{endpoint_id}}": Example(may=ADMIN, path=FILTERED),
    f"PUT {EP_PROJECT}/endpoints/{{endpoint_id}}": Example(may=ADMIN),
    f"DELETE {EP_PROJECT}/endpoints/{{endpoint_id}}": Example(may=ADMIN, path=FILTERED),
    "GET /OS-EP-FILTER/endpoints/{endpoint_id}/projects": Example(may=ADMIN),
    # -- policies
    "GET /policies": Example(may=ADMIN),
    "GET /policies/{policy_id}": Example(may=ADMIN),
    "POST /policies": Example(may=ADMIN, body={"policy": {"type": "text", "blob": "x"}}),
    "PATCH /policies/{policy_id}": Example(may=ADMIN, body={"policy": {"blob": "y"}}),
    "DELETE /policies/{policy_id}": Example(may=ADMIN),
    "GET /policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints": Example(may=ADMIN, path=ASSOCIATED),
    "GET /endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy": Example(
        may=ADMIN, path={"endpoint_id": lambda t: t.associated_policy and t.endpoint}
    ),
    **associations(),
    # -- limits
    "GET /registered_limits": Example(may=ANYONE),
    "GET /registered_limits/{registered_limit_id}": Example(may=ANYONE),
    "POST /registered_limits": Example(may=ADMIN, body={"registered_limits": [lambda t: t.new_registered_limit]}),
    "PATCH /registered_limits/{registered_limit_id}": Example(
        may=ADMIN, body={"registered_limit": {"default_limit": 7}}
    ),
    "DELETE /registered_limits/{registered_limit_id}": Example(may=ADMIN),
    "GET /limits": Example(may=ANYONE),
    "GET /limits/model": Example(may=ANYONE),
    "GET /limits/{limit_id}": Example(may=PROJECT),
    "POST /limits": Example(may=ADMIN, body={"limits": [lambda t: t.new_limit]}),
    "PATCH /limits/{limit_id}": Example(may=ADMIN, body={"limit": {"resource_limit": 4}}),
    "DELETE /limits/{limit_id}": Example(may=ADMIN),
    # -- options of domains
    f"PUT {CONFIG}": Example(may=ADMIN, body={"config": {"identity": {"list_limit": 5}}}),
    f"GET {CONFIG}": Example(may=ADMIN, path=CONFIGURED),
    f"PATCH {CONFIG}": Example(may=ADMIN, path=CONFIGURED, body={"config": {"identity": {"list_limit": 6}}}),
    f"DELETE {CONFIG}": Example(may=ADMIN, path=CONFIGURED),
    f"GET {CONFIG}/{{group}}": Example(may=ADMIN, path=CONFIGURED, rules=READ_CONFIG),
    f"PATCH {CONFIG}/{{group}}": Example(may=ADMIN, path=CONFIGURED, body={"config": {"identity": {"list_limit": 6}}}),
    f"DELETE {CONFIG}/{{group}}": Example(may=ADMIN, path=CONFIGURED),
    f"GET {CONFIG}/{{group}}/{{option}}": Example(may=ADMIN, path=CONFIGURED, rules=READ_CONFIG),
    f"PATCH {CONFIG}/{{group}}/{{option}}": Example(may=ADMIN, path=CONFIGURED, body=LIMIT),
    f"DELETE {CONFIG}/{{group}}/{{option}}": Example(may=ADMIN, path=CONFIGURED),
    "GET /domains/config/default": Example(may=ADMIN),
    "GET /domains/config/{group}/default": Example(may=ADMIN),
    "GET /domains/config/{group}/{option}/default": Example(may=ADMIN),
    # -- tokens
    "GET /auth/tokens": Example(may=SERVICE, headers=SUBJECT),
    "HEAD /auth/tokens": Example(may=ADMIN, headers=SUBJECT),
    "DELETE /auth/tokens": Example(may=ADMIN, headers=SUBJECT),
    "GET /auth/projects": Example(may=ANYONE),
    "GET /auth/domains": Example(may=ANYONE),
    "GET /auth/system": Example(may=ANYONE),
    "GET /auth/catalog": Example(may=ANYONE),
    # -- application credentials
    f"GET {CREDENTIALS}": Example(may=ADMIN | OWNER, path=OF_OWNER),
    f"GET {CREDENTIALS}/{{application_credential_id}}": Example(may=ADMIN | OWNER, path=OF_OWNER),
    f"POST {CREDENTIALS}": Example(
        may=OWNER, path=OF_OWNER, body={"application_credential": {"name": "new", "roles": [{"name": "reader"}]}}
    ),
    f"DELETE {CREDENTIALS}/{{application_credential_id}}": Example(may=ADMIN | OWNER, path=OF_OWNER),
    "GET /users/{user_id}/access_rules": Example(may=OWNER, path=OF_OWNER),
    "GET /users/{user_id}/access_rules/{access_rule_id}": Example(may=OWNER, path=OF_OWNER),
    "DELETE /users/{user_id}/access_rules/{access_rule_id}": Example(may=OWNER, path=OF_OWNER),
    # -- credentials
    "GET /credentials": Example(may=ANYONE),
    "GET /credentials/{credential_id}": Example(may=ADMIN | OWNER),
    "POST /credentials": Example(
        may=ADMIN | OWNER, body={"credential": {"type": "cert", "blob": "x", "user_id": lambda t: t.owner}}
    ),
    "PATCH /credentials/{credential_id}": Example(may=ADMIN | OWNER, body={"credential": {"blob": "y"}}),
    "DELETE /credentials/{credential_id}": Example(may=ADMIN | OWNER),
    f"GET {EC2}": Example(may=ADMIN | OWNER, path=OF_OWNER),
    f"GET {EC2}/{{access}}": Example(may=ADMIN | OWNER, path=OF_OWNER),
    f"POST {EC2}": Example(may=ADMIN | OWNER, path=OF_OWNER, body={"tenant_id": lambda t: t.owner_project}),
    f"DELETE {EC2}/{{access}}": Example(may=ADMIN | OWNER, path=OF_OWNER),
    "POST /ec2tokens": Example(may=SERVICE, body={"credentials": lambda t: t.signed}),
    "POST /s3tokens": Example(may=SERVICE, body={"credentials": lambda t: t.signed_for_s3}),
    # -- OAuth 1.0
    "GET /OS-OAUTH1/consumers": Example(may=ADMIN),
    "GET /OS-OAUTH1/consumers/{consumer_id}": Example(may=ADMIN),
    "POST /OS-OAUTH1/consumers": Example(may=ADMIN, body={"consumer": {"description": "large"}}),
    "PATCH /OS-OAUTH1/consumers/{consumer_id}": Example(may=ADMIN, body={"consumer": {"description": "small"}}),
    "DELETE /OS-OAUTH1/consumers/{consumer_id}": Example(may=ADMIN),
    "PUT /OS-OAUTH1/authorize/{request_token_id}": Example(may=ADMIN, body={"roles": [{"id": lambda t: t.admin_role}]}),
    f"GET {ACCESS}": Example(may=ADMIN, path=OF_ADMIN),
    f"GET {ACCESS}/{{access_token_id}}": Example(may=ADMIN, path=OF_ADMIN),
    f"DELETE {ACCESS}/{{access_token_id}}": Example(may=ADMIN, path=OF_ADMIN),
    f"GET {ACCESS}/{{access_token_id}}/roles": Example(may=ADMIN, path=OF_ADMIN),
    f"GET {ACCESS}/{{access_token_id}}/roles/{{role_id}}": Example(may=ADMIN, path=OF_ADMIN),
    "GET /OS-REVOKE/events": Example(may=SERVICE),
    # -- trusts
    "GET /OS-TRUST/trusts": Example(may=ADMIN, rules=("identity:list_trusts",)),
    "POST /OS-TRUST/trusts": Example(may=OWNER, body={"trust": lambda t: t.new_trust}),
    "GET /OS-TRUST/trusts/{trust_id}": Example(may=ADMIN | OWNER),
    "DELETE /OS-TRUST/trusts/{trust_id}": Example(may=ADMIN | OWNER),
    "GET /OS-TRUST/trusts/{trust_id}/roles": Example(may=ADMIN | OWNER),
    "GET /OS-TRUST/trusts/{trust_id}/roles/{role_id}": Example(may=ADMIN | OWNER, path=TRUSTED),
    # -- users
    "GET /users": Example(may=ADMIN),
    "GET /users/{user_id}": Example(may=ADMIN),
    "POST /users": Example(may=ADMIN, body=NEW_USER),
    "PATCH /users/{user_id}": Example(may=ADMIN, body={"user": {"description": "large"}}),
    "DELETE /users/{user_id}": Example(may=ADMIN),
    "DELETE /users/{user_id}/tokens": Example(may=ADMIN),
    "GET /users/{user_id}/projects": Example(may=ADMIN),
    "GET /users/{user_id}/groups": Example(may=ADMIN),
}
