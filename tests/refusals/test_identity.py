"""What Identity refuses and no story comes upon."""

from __future__ import annotations

import pytest

from cumulet.testing import Answer, JsonObject

from .table import Refusal, Scene, table

REFUSALS, refused = table()


def made(scene: Scene, kind: str, **attributes: object) -> JsonObject:
    answer = scene.identity("POST", f"/{kind}s", {kind: {"name": scene.new_name(), **attributes}})
    assert answer.status == 201, answer.text
    found: dict[str, object] = answer[kind]
    return found


@refused(400, "scope.project.id must be specified")
def assignments_below_no_project(scene: Scene) -> Answer:
    return scene.identity("GET", "/role_assignments?include_subtree=true")


@refused(400, "effective, domain and inherited")
def effective_inherited_assignments_of_a_domain(scene: Scene) -> Answer:
    query = "effective&scope.domain.id=default&scope.OS-INHERIT:inherited_to=projects"
    return scene.identity("GET", f"/role_assignments?{query}")


@refused(409, "not permitted to have two with id")
def a_second_domain_of_an_id(scene: Scene) -> Answer:
    chosen = scene.cloud.clock.uuid().replace("-", "")
    made(scene, "domain", explicit_domain_id=chosen)
    again = {"name": scene.new_name(), "explicit_domain_id": chosen}
    return scene.identity("POST", "/domains", {"domain": again})


@refused(409, "Duplicate entry")
def a_second_group_of_a_name(scene: Scene) -> Answer:
    name = made(scene, "group")["name"]
    return scene.identity("POST", "/groups", {"group": {"name": name}})


@refused(404, "not found in group")
def the_membership_of_somebody_else(scene: Scene) -> Answer:
    return scene.identity("GET", membership(scene))


@refused(404, "not found in group")
def the_end_of_a_membership_that_is_not(scene: Scene) -> Answer:
    return scene.identity("DELETE", membership(scene))


def membership(scene: Scene) -> str:
    return f"/groups/{made(scene, 'group')['id']}/users/{made(scene, 'user')['id']}"


@refused(400, "Cannot change Domain ID")
def another_domain_for_a_group(scene: Scene) -> Answer:
    other = made(scene, "domain")["id"]
    return scene.identity("PATCH", f"/groups/{made(scene, 'group')['id']}", {"group": {"domain_id": other}})


@refused(400, "Cannot change Domain ID")
def another_domain_for_a_user(scene: Scene) -> Answer:
    other = made(scene, "domain")["id"]
    return scene.identity("PATCH", f"/users/{made(scene, 'user')['id']}", {"user": {"domain_id": other}})


@refused(400, "`domain_id` is not allowed")
def another_domain_for_a_role(scene: Scene) -> Answer:
    other = made(scene, "domain")["id"]
    return scene.identity("PATCH", f"/roles/{made(scene, 'role')['id']}", {"role": {"domain_id": other}})


@refused(400, "Could not find project")
def a_project_below_another_domain(scene: Scene) -> Answer:
    other = made(scene, "domain")["id"]
    body = {"name": scene.new_name(), "domain_id": "default", "parent_id": other}
    return scene.identity("POST", "/projects", {"project": body})


@refused(400, "Could not find project: ")
def a_project_below_one_of_another_domain(scene: Scene) -> Answer:
    """In the words for one that there is nowhere."""
    elsewhere = made(scene, "project")["id"]
    body = {"name": scene.new_name(), "domain_id": made(scene, "domain")["id"], "parent_id": elsewhere}
    answer = scene.identity("POST", "/projects", {"project": body})
    unknown = scene.identity("POST", "/projects", {"project": {**body, "parent_id": "0" * 32}})
    assert unknown.text.replace("0" * 32, elsewhere) == answer.text
    return answer


@refused(400, "query parameters are repeated more than 16 times.")
def a_list_by_a_filter_that_is_repeated_too_often(scene: Scene) -> Answer:
    asked = [f"name__contains={number}" for number in range(18)]
    assert scene.identity("GET", f"/projects?{'&'.join(asked[1:])}").status == 200
    return scene.identity("GET", f"/projects?{'&'.join(asked)}")


@refused(400, "at the same time")
def parents_in_both_forms(scene: Scene) -> Answer:
    return scene.identity("GET", f"/projects/{scene.admin.project_id}?parents_as_list&parents_as_ids")


@refused(403, "A role without a domain cannot imply a role of a domain.")
def a_role_of_a_domain_implied_by_one_of_none(scene: Scene) -> Answer:
    implied = made(scene, "role", domain_id=made(scene, "domain")["id"])["id"]
    return scene.identity("PUT", f"/roles/{made(scene, 'role')['id']}/implies/{implied}")


@refused(400, "Could not find domain")
def a_role_of_a_domain_that_is_not(scene: Scene) -> Answer:
    return scene.identity("POST", "/roles", {"role": {"name": scene.new_name(), "domain_id": "nowhere"}})


# -- options of domains


@refused(400, "should be a dictionary of options")
def options_of_a_group_that_are_none(scene: Scene) -> Answer:
    path = f"/domains/{made(scene, 'domain')['id']}/config"
    return scene.identity("PUT", path, {"config": {"identity": {}}})


@refused(400, "No options specified")
def no_options(scene: Scene) -> Answer:
    return scene.identity("PUT", f"/domains/{made(scene, 'domain')['id']}/config", {"config": {}})


@refused(403, "any domain other than the default domain")
def what_passwords_must_match_in_another_domain(scene: Scene) -> Answer:
    return scene.identity("GET", f"/domains/{made(scene, 'domain')['id']}/config/security_compliance")


@refused(403, "other than password_regex")
def another_rule_for_passwords(scene: Scene) -> Answer:
    return scene.identity("GET", "/domains/default/config/security_compliance/lockout_duration")


# -- endpoints that projects are shown


def endpoint(scene: Scene) -> str:
    found: str = scene.identity("GET", "/endpoints")["endpoints"][0]["id"]
    return found


def group_in_project(scene: Scene) -> str:
    asked = {"name": scene.new_name(), "filters": {"interface": "public"}}
    group = scene.identity("POST", "/OS-EP-FILTER/endpoint_groups", {"endpoint_group": asked})["endpoint_group"]["id"]
    return f"/OS-EP-FILTER/endpoint_groups/{group}/projects/{made(scene, 'project')['id']}"


@refused(404, "Could not find")
def a_group_of_endpoints_that_a_project_is_not_shown(scene: Scene) -> Answer:
    return scene.identity("GET", group_in_project(scene))


@refused(409, "Duplicate entry")
def a_group_of_endpoints_that_a_project_is_shown(scene: Scene) -> Answer:
    path = group_in_project(scene)
    assert scene.identity("PUT", path).status == 204
    return scene.identity("PUT", path)


@refused(409, "Duplicate entry")
def an_endpoint_that_a_project_is_shown(scene: Scene) -> Answer:
    path = f"/OS-EP-FILTER/projects/{made(scene, 'project')['id']}/endpoints/{endpoint(scene)}"
    assert scene.identity("PUT", path).status == 204
    return scene.identity("PUT", path)


# -- limits


def service(scene: Scene) -> str:
    found: str = scene.identity("GET", "/services")["services"][0]["id"]
    return found


def registered(scene: Scene, **attributes: object) -> Answer:
    body = {"service_id": service(scene), "resource_name": scene.new_name(), "default_limit": 1, **attributes}
    return scene.identity("POST", "/registered_limits", {"registered_limits": [body]})


def limit(scene: Scene, **attributes: object) -> Answer:
    body = {"service_id": service(scene), "resource_name": "anything", "resource_limit": 1, **attributes}
    return scene.identity("POST", "/limits", {"limits": [body]})


@refused(400, "Could not find service")
def a_limit_of_a_service_that_is_not(scene: Scene) -> Answer:
    return registered(scene, service_id="0" * 32)


@refused(400, "Could not find region")
def a_limit_in_a_region_that_is_not(scene: Scene) -> Answer:
    return registered(scene, region_id="nowhere")


@refused(400, "Could not find project")
def a_limit_of_a_project_that_is_not(scene: Scene) -> Answer:
    return limit(scene, project_id="0" * 32)


@refused(400, "Could not find domain")
def a_limit_of_a_domain_that_is_not(scene: Scene) -> Answer:
    return limit(scene, domain_id="0" * 32)


@refused(409, "Duplicate entry")
def a_limit_that_becomes_like_another(scene: Scene) -> Answer:
    one, two = (registered(scene)["registered_limits"][0] for _ in range(2))
    change = {"registered_limit": {"resource_name": one["resource_name"]}}
    return scene.identity("PATCH", f"/registered_limits/{two['id']}", change)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused(scene: Scene, refusal: Refusal) -> None:
    refusal.check(scene)
