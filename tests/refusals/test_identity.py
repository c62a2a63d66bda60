"""What Identity refuses and no story comes upon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import cumulet.testing
from cumulet.testing import Answer

from .table import Refusal, Scene, table

REFUSALS, refused = table()


def made(scene: Scene, kind: str, **attributes: Any) -> dict[str, Any]:
    answer = scene.identity("POST", f"/{kind}s", {kind: {"name": scene.new_name(), **attributes}})
    assert answer.status == 201, answer.text
    found: dict[str, Any] = answer[kind]
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


@refused(400, "at the same time")
def parents_in_both_forms(scene: Scene) -> Answer:
    return scene.identity("GET", f"/projects/{scene.admin.project_id}?parents_as_list&parents_as_ids")


@refused(403, "of none")
def a_role_of_a_domain_implied_by_one_of_none(scene: Scene) -> Answer:
    implied = made(scene, "role", domain_id=made(scene, "domain")["id"])["id"]
    return scene.identity("PUT", f"/roles/{made(scene, 'role')['id']}/implies/{implied}")


@refused(400, "Could not find domain")
def a_role_of_a_domain_that_is_not(scene: Scene) -> Answer:
    return scene.identity("POST", "/roles", {"role": {"name": scene.new_name(), "domain_id": "nowhere"}})


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with cumulet.testing.cloud(hosts=1) as cloud:
        yield Scene(cloud)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused(scene: Scene, refusal: Refusal) -> None:
    refusal.check(scene)
