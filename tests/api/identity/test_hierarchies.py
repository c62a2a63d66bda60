"""Projects below projects, domains as projects, and what is said of projects: endpoints, policies, limits, options."""

from __future__ import annotations

import pytest

from cumulet.testing import JsonObject
from tests.api.identity.place import UNSCOPED, Place, Session, password_auth, project


class Tree:
    """A project, one below it and one below that."""

    def __init__(self, place: Place) -> None:
        self.place, self.admin = place, place.admin()
        self.top = self.made("top")
        self.middle = self.made("middle", self.top)
        self.leaf = self.made("leaf", self.middle)

    def made(self, name: str, parent: str | None = None) -> str:
        above = {"parent_id": parent} if parent else {"domain_id": "default"}
        made = self.admin.made("project", "projects", name=name, **above)
        assert made["parent_id"] == (parent or "default")
        return str(made["id"])

    def enable(self, project_id: str, enabled: bool) -> int:
        return self.admin.patch(f"/projects/{project_id}", {"project": {"enabled": enabled}}).status_code


@pytest.fixture
def tree(place: Place) -> Tree:
    return Tree(place)


def test_a_project_shows_what_is_above_and_below_it(tree: Tree) -> None:
    admin = tree.admin
    path = f"/projects/{tree.middle}"
    shown = admin.get(f"{path}?parents_as_ids&subtree_as_ids").json()["project"]
    assert shown["parents"] == {tree.top: {"default": None}}
    assert shown["subtree"] == {tree.leaf: None}
    # As upstream: only where the caller has a role.
    assert admin.get(f"{path}?parents_as_list&subtree_as_list").json()["project"]["subtree"] == []
    member, me = admin.id_of("roles", "member"), admin.body["user"]["id"]
    admin.put(f"/OS-INHERIT/projects/{tree.top}/users/{me}/roles/{member}/inherited_to_projects")
    listed = tree.place.admin().get(f"{path}?parents_as_list&subtree_as_list").json()["project"]
    assert [below["project"]["id"] for below in listed["subtree"]] == [tree.leaf]
    assert listed["parents"] == []
    found = admin.get(f"/projects?parent_id={tree.top}").json()["projects"]
    assert [one["id"] for one in found] == [tree.middle]
    assert tree.top in {one["id"] for one in admin.get("/projects?parent_id=default").json()["projects"]}


def test_a_branch_is_no_deeper_than_it_may_be_and_stays_in_its_domain(tree: Tree) -> None:
    admin, deepest = tree.admin, tree.made("fifth", tree.made("fourth", tree.leaf))
    other = admin.made("domain", "domains", name="other")["id"]
    for status, body in (
        (403, {"name": "sixth", "parent_id": deepest}),
        (400, {"name": "abroad", "parent_id": tree.top, "domain_id": other}),
        (400, {"name": "lost", "parent_id": "nowhere"}),
    ):
        assert admin.post("/projects", {"project": body}).status_code == status, body
    moved = {"project": {"parent_id": tree.leaf}}
    assert admin.patch(f"/projects/{tree.top}", moved).status_code == 400


def test_no_enabled_project_is_below_a_disabled_one(tree: Tree) -> None:
    assert tree.enable(tree.top, False) == 403
    assert tree.admin.delete(f"/projects/{tree.middle}").status_code == 403
    assert [tree.enable(p, False) for p in (tree.leaf, tree.middle, tree.top)] == [200] * 3
    assert tree.enable(tree.leaf, True) == 403
    assert tree.admin.post("/projects", {"project": {"name": "x", "parent_id": tree.leaf}}).status_code == 403
    assert [tree.admin.delete(f"/projects/{p}").status_code for p in (tree.leaf, tree.middle, tree.top)] == [204] * 3


def test_a_role_on_a_project_is_inherited_below_it_and_ends_there_too(tree: Tree) -> None:
    admin, demo = tree.admin, tree.admin.id_of("users", "demo")
    grant = f"/OS-INHERIT/projects/{tree.top}/users/{demo}/roles/{admin.id_of('roles', 'member')}/inherited_to_projects"
    assert admin.put(grant).status_code == 204
    tokens = [tree.place.login("demo", scope={"project": {"id": p}}) for p in (tree.middle, tree.leaf)]
    there = password_auth("demo", tree.place.passwords.by_user["demo"], {"project": {"id": tree.top}})
    assert tree.place.authenticate(there).status_code == 401, "it is not held where it was given"
    counting = admin.get(f"/role_assignments?effective&user.id={demo}&include_subtree&scope.project.id={tree.top}")
    places = {a["scope"]["project"]["id"] for a in counting.json()["role_assignments"]}
    assert places == {tree.middle, tree.leaf}
    assert admin.delete(grant).status_code == 204
    assert not any(token.still_counts() for token in tokens)


def test_a_role_that_is_not_inherited_leads_to_no_project_below(tree: Tree) -> None:
    admin, demo = tree.admin, tree.admin.id_of("users", "demo")
    for grant in (
        f"/projects/{tree.top}/users/{demo}",
        f"/OS-INHERIT/projects/{tree.middle}/users/{demo}",
    ):
        below = "/inherited_to_projects" if "INHERIT" in grant else ""
        assert admin.put(f"{grant}/roles/{admin.id_of('roles', 'member')}{below}").status_code == 204
    listed = {one["id"] for one in tree.place.login("demo").get("/auth/projects").json()["projects"]}
    assert listed & {tree.top, tree.middle, tree.leaf} == {tree.top, tree.leaf}


def test_a_domain_s_manager_touches_no_branch_an_administrator_works_in(tree: Tree) -> None:
    admin = tree.admin
    head = admin.made("user", "users", name="head", password="heads-own")["id"]
    admin.put(f"/domains/default/users/{head}/roles/{admin.id_of('roles', 'manager')}")
    manager = tree.place.login("head", "heads-own", {"domain": {"id": "default"}})
    boss = admin.made("user", "users", name="boss", password="boss-own-1")["id"]
    admin.put(f"/projects/{tree.leaf}/users/{boss}/roles/{admin.id_of('roles', 'admin')}")
    for project_id in (tree.top, tree.leaf):
        assert manager.patch(f"/projects/{project_id}", {"project": {"name": "renamed"}}).status_code == 403
    # Nor makes a domain: that is for administrators.
    assert manager.post("/projects", {"project": {"name": "mine", "is_domain": True}}).status_code == 403


def test_a_domain_is_a_project_that_acts_as_one(place: Place) -> None:
    admin = place.admin()
    made = admin.made("project", "projects", name="guests", is_domain=True, description="d")
    assert (made["is_domain"], made["domain_id"], made["parent_id"]) == (True, None, None)
    path = f"/projects/{made['id']}"
    assert admin.get(f"/domains/{made['id']}").json()["domain"]["description"] == "d"
    assert admin.get(path).json()["project"] == made
    listed = admin.get("/projects?is_domain=true").json()["projects"]
    assert {one["id"] for one in listed} == {"default", made["id"]}
    assert made["id"] not in {one["id"] for one in admin.get("/projects").json()["projects"]}
    assert (
        admin.post("/projects", {"project": {"name": "x", "is_domain": True, "domain_id": "default"}}).status_code
        == 400
    )
    assert admin.delete(path).status_code == 403
    assert admin.patch(path, {"project": {"enabled": False}}).json()["project"]["enabled"] is False
    assert admin.delete(path).status_code == 204
    assert admin.get(f"/domains/{made['id']}").status_code == 404


def catalog(session: Session) -> set[str]:
    return {e["id"] for service in session.get("/auth/catalog").json()["catalog"] for e in service["endpoints"]}


def test_a_catalog_shows_the_endpoints_its_project_was_given(place: Place) -> None:
    admin, demo = place.admin(), place.login("demo", scope=project("demo"))
    home, everything = demo.body["project"]["id"], catalog(demo)
    endpoints = admin.get("/endpoints").json()["endpoints"]
    assert everything == {e["id"] for e in endpoints}
    one = endpoints[0]["id"]
    by_name = f"/OS-EP-FILTER/projects/{home}/endpoints/{one}"
    assert admin.put(by_name).status_code == 204
    assert catalog(demo) == {one}
    assert catalog(admin) == everything
    filters = {"interface": "internal"}
    group = admin.made("endpoint_group", "OS-EP-FILTER/endpoint_groups", name="inner", filters=filters)["id"]
    by_group = f"/OS-EP-FILTER/endpoint_groups/{group}/projects/{home}"
    assert admin.put(by_group).status_code == 204
    inner = {e["id"] for e in endpoints if e["interface"] == "internal"}
    assert catalog(demo) == inner | {one}
    assert [admin.delete(path).status_code for path in (by_name, by_group)] == [204, 204]
    assert catalog(demo) == everything
    for wrong in ({}, {"interface": "outer"}, {"colour": "red"}):
        body = {"endpoint_group": {"name": "wrong", "filters": wrong}}
        assert admin.post("/OS-EP-FILTER/endpoint_groups", body).status_code == 400


def test_the_nearest_policy_is_an_endpoint_s(place: Place) -> None:
    admin = place.admin()
    [endpoint, *_] = admin.get("/endpoints").json()["endpoints"]
    made = [admin.made("policy", "policies", type="text", blob=str(n))["id"] for n in range(3)]
    asked = f"/endpoints/{endpoint['id']}/OS-ENDPOINT-POLICY/policy"
    assert admin.get(asked).status_code == 404
    service = f"services/{endpoint['service_id']}"
    places = [service, f"{service}/regions/{endpoint['region_id']}", f"endpoints/{endpoint['id']}"]
    for policy, where in zip(made, places, strict=True):
        assert admin.put(f"/policies/{policy}/OS-ENDPOINT-POLICY/{where}").status_code == 204
        assert admin.get(asked).json()["policy"]["id"] == policy
    listed = admin.get(f"/policies/{made[2]}/OS-ENDPOINT-POLICY/endpoints").json()["endpoints"]
    assert [one["id"] for one in listed] == [endpoint["id"]]
    # There is at most one policy for a place.
    assert admin.put(f"/policies/{made[0]}/OS-ENDPOINT-POLICY/{places[2]}").status_code == 204
    assert admin.get(f"/policies/{made[2]}/OS-ENDPOINT-POLICY/{places[2]}").status_code == 404


def test_a_limit_needs_a_registered_one_and_is_its_project_s_to_see(place: Place) -> None:
    admin, demo = place.admin(), place.login("demo", scope=project("demo"))
    service = admin.get("/services").json()["services"][0]["id"]
    named: JsonObject = {"service_id": service, "resource_name": "cores"}
    home = {"project_id": demo.body["project"]["id"]}
    limit = {**named, **home, "resource_limit": 5}
    assert admin.post("/limits", {"limits": [limit]}).status_code == 403
    registered = {"registered_limits": [{**named, "default_limit": 10}]}
    [kept] = admin.post("/registered_limits", registered).json()["registered_limits"]
    assert admin.post("/registered_limits", registered).status_code == 409
    [made] = admin.post("/limits", {"limits": [limit]}).json()["limits"]
    other = {**limit, "project_id": admin.body["project"]["id"]}
    assert admin.post("/limits", {"limits": [other]}).status_code == 201
    assert admin.post("/limits", {"limits": [limit]}).status_code == 409
    assert [one["id"] for one in demo.get("/limits").json()["limits"]] == [made["id"]]
    assert len(admin.get("/limits?resource_name=cores").json()["limits"]) == 2
    of_domain = {**named, "domain_id": "default", "resource_limit": 5}
    assert admin.post("/limits", {"limits": [of_domain]}).status_code == 201
    assert place.login("demo", scope=UNSCOPED).get("/limits").json()["limits"] == []
    assert [one["id"] for one in demo.get("/limits").json()["limits"]] == [made["id"]]
    assert admin.delete(f"/registered_limits/{kept['id']}").status_code == 403
    for wrong in ({**limit, "domain_id": "default"}, {**named, "resource_limit": 1}, {**limit, "resource_limit": -2}):
        assert admin.post("/limits", {"limits": [wrong]}).status_code == 400
    assert demo.get("/limits/model").json()["model"]["name"] == "flat"


def test_a_domain_s_options_take_effect_or_are_refused(place: Place) -> None:
    admin = place.admin()
    config = "/domains/default/config"
    assert admin.get(config).status_code == 404
    for n in range(3):
        admin.made("user", "users", name=f"u{n}")
    assert len(admin.get("/users?domain_id=default").json()["users"]) == 5
    assert admin.put(config, {"config": {"identity": {"list_limit": 2}}}).status_code == 201
    assert len(admin.get("/users?domain_id=default").json()["users"]) == 2
    assert admin.get(f"{config}/identity/list_limit").json() == {"config": {"list_limit": 2}}
    assert admin.patch(f"{config}/identity/list_limit", {"config": {"list_limit": 3}}).status_code == 200
    assert len(admin.get("/users?domain_id=default").json()["users"]) == 3
    for status, wrong in (
        (501, {"ldap": {"url": "ldap://x"}}),
        (501, {"identity": {"driver": "ldap"}}),
        (400, {"identity": {"list_limit": 0}}),
        (403, {"identity": {"colour": "red"}}),
        (403, {"painting": {"colour": "red"}}),
        (400, {}),
    ):
        assert admin.patch(config, {"config": wrong}).status_code == status, wrong
    assert admin.delete(config).status_code == 204
    assert len(admin.get("/users?domain_id=default").json()["users"]) == 5
    member = place.login("demo", scope=project("demo"))
    assert member.get(f"{config}/security_compliance").status_code == 200
    assert member.get(f"{config}/identity").status_code == 403
