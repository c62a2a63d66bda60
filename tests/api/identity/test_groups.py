"""Groups: members have their roles, in tokens and lists. An inherited role counts below its place, not on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cumulet.identity import groups
from cumulet.testing import JsonObject
from tests.api.identity.place import SYSTEM, UNSCOPED, Place, Session, project

DEFAULT = {"domain": {"id": "default"}}


class Crew:
    """A user who is a member of a group, and a project; nothing is given yet."""

    def __init__(self, place: Place) -> None:
        self.place, self.admin = place, place.admin()
        self.user = self.admin.made("user", "users", name="crew", password="crews-own")["id"]
        self.group = self.admin.made("group", "groups", name="crew")["id"]
        self.home = self.admin.made("project", "projects", name="home")["id"]
        assert self.admin.put(self.membership).status_code == 204

    @property
    def membership(self) -> str:
        return f"/groups/{self.group}/users/{self.user}"

    def role(self, name: str) -> str:
        return self.admin.id_of("roles", name)

    def give(self, place: str, role: str, *, inherited: bool = False, holder: str = "") -> str:
        path = f"{place}/{holder or f'groups/{self.group}'}/roles/{self.role(role)}"
        path = f"/OS-INHERIT{path}/inherited_to_projects" if inherited else path
        assert self.admin.put(path).status_code == 204
        return path

    def login(self, scope: object) -> Session:
        return self.place.login("crew", "crews-own", scope)

    def refused(self, scope: object) -> bool:
        named = {"name": "crew", "domain": {"id": "default"}, "password": "crews-own"}
        identity = {"methods": ["password"], "password": {"user": named}}
        return self.place.authenticate({"identity": identity, "scope": scope}).status_code == 401

    def assignments(self, query: str) -> list[JsonObject]:
        found: list[dict[str, object]] = self.admin.get(f"/role_assignments?{query}").json()["role_assignments"]
        return found


@pytest.fixture
def crew(place: Place) -> Crew:
    return Crew(place)


def roles(session: Session) -> set[str]:
    return {role["name"] for role in session.body["roles"]}


@pytest.mark.parametrize(
    ("where", "scope"),
    [("project", project("home")), ("domain", DEFAULT), ("system", SYSTEM)],
    ids=lambda x: str(x)[:8],
)
def test_a_group_s_role_is_in_its_members_tokens(crew: Crew, where: str, scope: object) -> None:
    assert crew.refused(scope)
    crew.give({"project": f"/projects/{crew.home}", "domain": "/domains/default", "system": "/system"}[where], "member")
    assert roles(crew.login(scope)) == {"member", "reader"}


def test_an_inherited_role_counts_below_and_not_where_it_was_given(crew: Crew) -> None:
    crew.give("/domains/default", "member", inherited=True)
    assert crew.refused(DEFAULT)
    session = crew.login(project("home"))
    assert roles(session) == {"member", "reader"}
    shown = {p["name"] for p in session.get("/auth/projects").json()["projects"]}
    assert {"home", "demo", "admin"} <= shown
    other = crew.admin.made("domain", "domains", name="other")["id"]
    crew.admin.made("project", "projects", name="abroad", domain_id=other)
    assert crew.refused(project("abroad", other))


ACTS: dict[str, Callable[[Crew, str], str]] = {
    "the user leaves the group": lambda c, grant: c.membership,
    "the group is deleted": lambda c, grant: f"/groups/{c.group}",
    "the group loses the role": lambda c, grant: grant,
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("inherited", [False, True])
def test_a_token_ends_with_the_group_that_it_rests_on(crew: Crew, act: str, inherited: bool) -> None:
    grant = crew.give("/domains/default" if inherited else f"/projects/{crew.home}", "member", inherited=inherited)
    unscoped, scoped = crew.login(UNSCOPED), crew.login(project("home"))
    assert scoped.still_counts()
    assert crew.admin.delete(ACTS[act](crew, grant)).status_code == 204
    assert not scoped.still_counts()
    assert unscoped.still_counts()
    assert crew.refused(project("home"))


def test_lists_say_what_was_given_and_what_counts(crew: Crew) -> None:
    crew.give(f"/projects/{crew.home}", "member")
    [given] = crew.assignments(f"group.id={crew.group}")
    assert given["group"] == {"id": crew.group}
    assert given["links"]["assignment"].endswith(
        f"/projects/{crew.home}/groups/{crew.group}/roles/{crew.role('member')}"
    )
    assert crew.assignments(f"user.id={crew.user}") == []
    counting = crew.assignments(f"effective&user.id={crew.user}")
    assert {a["role"]["id"] for a in counting} == {crew.role("member"), crew.role("reader")}
    assert all(a["links"]["membership"].endswith(crew.membership) for a in counting)
    assert "group" not in counting[0]
    [named] = crew.assignments(f"include_names&group.id={crew.group}")
    assert named["group"]["name"] == "crew"


def test_a_role_that_is_asked_for_is_found_among_more_assignments_than_a_page_has(tmp_path: Path) -> None:
    with contextlib.closing(Place(tmp_path, largest_page=3)) as place:
        crew = Crew(place)
        for where in (f"/projects/{crew.home}", "/domains/default", "/system"):
            crew.give(where, "member")
        crew.give(f"/projects/{crew.home}", "service", holder=f"users/{crew.user}")
        [counting] = crew.assignments(f"effective&role.id={crew.role('service')}")
        assert counting["user"]["id"] == crew.user


def test_an_inherited_assignment_is_listed_for_each_project_that_inherits(crew: Crew) -> None:
    crew.give("/domains/default", "reader", inherited=True, holder=f"users/{crew.user}")
    [given] = crew.assignments(f"user.id={crew.user}&scope.OS-INHERIT:inherited_to=projects")
    assert given["scope"] == {"domain": {"id": "default"}, "OS-INHERIT:inherited_to": "projects"}
    [counting] = crew.assignments(f"effective&user.id={crew.user}&scope.project.id={crew.home}")
    assert counting["scope"] == {"project": {"id": crew.home}, "OS-INHERIT:inherited_to": "projects"}
    assert "/OS-INHERIT/domains/default/" in counting["links"]["assignment"]
    everywhere = {a["scope"]["project"]["id"] for a in crew.assignments(f"effective&user.id={crew.user}")}
    assert everywhere == {p["id"] for p in crew.admin.get("/projects?domain_id=default").json()["projects"]}


def head_of_default(place: Place) -> Session:
    admin = place.admin()
    user = admin.made("user", "users", name="head", password="heads-own")["id"]
    admin.put(f"/domains/default/users/{user}/roles/{admin.id_of('roles', 'manager')}")
    return place.login("head", "heads-own", DEFAULT)


@pytest.mark.parametrize("where", ["/projects/{home}", "/domains/default", "/system", "/OS-INHERIT/domains/default"])
def test_a_domain_s_manager_changes_no_group_that_makes_administrators(crew: Crew, where: str) -> None:
    head, admin = head_of_default(crew.place), crew.admin
    helper = admin.made("user", "users", name="helper")["id"]
    own_group = head.made("group", "groups", name="mine", domain_id="default")["id"]
    assert head.put(f"/groups/{own_group}/users/{helper}").status_code == 204
    inherited = where.startswith("/OS-INHERIT")
    crew.give(where.removeprefix("/OS-INHERIT").format(home=crew.home), "admin", inherited=inherited)
    member = crew.role("member")
    attempts: list[tuple[str, str, object]] = [
        ("PUT", f"/groups/{crew.group}/users/{helper}", None),
        ("DELETE", crew.membership, None),
        ("PATCH", f"/groups/{crew.group}", {"group": {"name": "renamed"}}),
        ("DELETE", f"/groups/{crew.group}", None),
        ("PUT", f"/projects/{crew.home}/groups/{crew.group}/roles/{member}", None),
        # Whoever is in it is an administrator now, and protected as one.
        ("PATCH", f"/users/{crew.user}", {"user": {"password": "taken-over"}}),
        ("PUT", f"/groups/{own_group}/users/{crew.user}", None),
        ("DELETE", f"/users/{crew.user}", None),
    ]
    for method, path, body in attempts:
        assert head.request(method, path, body).status_code == 403, (method, path)
    assert admin.get(crew.membership).status_code == 204
    assert head.patch(f"/users/{helper}", {"user": {"description": "x"}}).status_code == 200


def test_a_user_is_in_so_many_groups_and_no_more(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_GROUPS_OF_USER", 1)
    second = crew.admin.made("group", "groups", name="second")["id"]
    assert crew.admin.put(crew.membership).status_code == 204  # once more is no error
    assert crew.admin.put(f"/groups/{second}/users/{crew.user}").status_code == 403
    assert [g["name"] for g in crew.admin.get(f"/users/{crew.user}/groups").json()["groups"]] == ["crew"]
