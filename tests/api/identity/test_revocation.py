"""Tokens that exist already lose a right with the next request after it was taken away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.api.identity.place import SYSTEM, UNSCOPED, Place, Session, project

Act = Callable[[Session, str, str], object]

ACTS: dict[str, Act] = {
    "the user is disabled": lambda a, user, p: a.patch(f"/users/{user}", {"user": {"enabled": False}}),
    "the user is deleted": lambda a, user, p: a.delete(f"/users/{user}"),
    "an administrator ends them": lambda a, user, p: a.delete(f"/users/{user}/tokens"),
    "an administrator gives another password": lambda a, user, p: a.patch(
        f"/users/{user}", {"user": {"password": "a-new-one"}}
    ),
    "the user gives another password": lambda a, user, p: a.place.nobody.post(
        f"/users/{user}/password",
        {"user": {"original_password": a.place.passwords.by_user["demo"], "password": "another-one"}},
    ),
}
PROJECT_ACTS: dict[str, Act] = {
    "the project is disabled": lambda a, user, p: a.patch(f"/projects/{p}", {"project": {"enabled": False}}),
    "the project is deleted": lambda a, user, p: a.delete(f"/projects/{p}"),
    "the last role is taken away": lambda a, user, p: a.delete(
        f"/projects/{p}/users/{user}/roles/{a.id_of('roles', 'member')}"
    ),
}


@pytest.mark.parametrize("act", ACTS)
def test_all_tokens_of_a_user_end_with_what_they_rest_on(place: Place, act: str) -> None:
    admin = place.admin()
    tokens = [place.login("demo", scope=UNSCOPED), place.login("demo", scope=project("demo"))]
    tokens.append(place.exchanged(tokens[0], project("demo")))
    assert all(token.still_counts() for token in tokens)
    answer = ACTS[act](admin, admin.id_of("users", "demo"), admin.id_of("projects", "demo"))
    assert answer.status_code in (200, 204)  # type: ignore[attr-defined]
    assert not any(token.still_counts() for token in tokens)
    assert all(place.exchange(token, UNSCOPED).status_code == 404 for token in tokens)
    assert admin.still_counts()


@pytest.mark.parametrize("act", PROJECT_ACTS)
def test_tokens_for_a_project_end_with_what_they_rest_on(place: Place, act: str) -> None:
    admin = place.admin()
    unscoped, scoped = place.login("demo", scope=UNSCOPED), place.login("demo", scope=project("demo"))
    answer = PROJECT_ACTS[act](admin, admin.id_of("users", "demo"), admin.id_of("projects", "demo"))
    assert answer.status_code in (200, 204)  # type: ignore[attr-defined]
    assert unscoped.still_counts()
    assert not scoped.still_counts()
    assert place.exchange(unscoped, project("demo")).status_code == 401


def test_tokens_do_not_come_back_with_the_user_the_project_or_the_domain(place: Place) -> None:
    admin = place.admin()
    domain, lodge = (admin.made("domain", "domains", name=name)["id"] for name in ("guests", "lodge"))
    home = admin.made("project", "projects", name="guests", domain_id=lodge)["id"]
    user = admin.made("user", "users", name="guest", domain_id=domain, password="guests-own")["id"]
    admin.put(f"/projects/{home}/users/{user}/roles/{admin.id_of('roles', 'member')}")
    for path in (f"/users/{user}", f"/projects/{home}", f"/domains/{domain}", f"/domains/{lodge}"):
        kind = path.split("/")[1][:-1]
        token = place.login({"id": user}, "guests-own", {"project": {"id": home}})
        assert token.still_counts()
        for enabled in (False, True):
            assert admin.patch(path, {kind: {"enabled": enabled}}).status_code == 200
            assert not token.still_counts()
    # The clock has not moved, and a new token counts nevertheless.
    assert place.login({"id": user}, "guests-own", {"project": {"id": home}}).still_counts()


def test_a_token_keeps_only_the_roles_that_are_left(place: Place) -> None:
    admin = place.admin()
    demo, home = admin.id_of("users", "demo"), admin.id_of("projects", "demo")
    grant = f"/projects/{home}/users/{demo}/roles/{admin.id_of('roles', 'admin')}"
    assert admin.put(grant).status_code == 204
    promoted = place.login("demo", scope=project("demo"))
    assert promoted.get("/users").status_code == 200
    assert admin.delete(grant).status_code == 204
    assert promoted.get("/users").status_code == 403
    shown = promoted.get("/auth/tokens", X_Subject_Token=str(promoted.token)).json()["token"]
    assert [role["name"] for role in shown["roles"]] == ["member", "reader"]


def test_a_role_reaches_tokens_through_what_implies_it_and_leaves_them_with_it(place: Place) -> None:
    admin = place.admin()
    prior, implied = (admin.made("role", "roles", name=name)["id"] for name in ("operator", "watcher"))
    demo, home = admin.id_of("users", "demo"), admin.id_of("projects", "demo")
    admin.put(f"/projects/{home}/users/{demo}/roles/{prior}")
    token = place.login("demo", scope=project("demo"))

    def roles() -> set[str]:
        shown = token.get("/auth/tokens", X_Subject_Token=str(token.token)).json()["token"]
        return {role["name"] for role in shown["roles"]}

    assert roles() == {"member", "reader", "operator"}
    assert admin.put(f"/roles/{prior}/implies/{implied}").status_code == 201
    assert roles() == {"member", "reader", "operator", "watcher"}
    assert admin.delete(f"/roles/{prior}/implies/{implied}").status_code == 204
    assert roles() == {"member", "reader", "operator"}
    assert admin.delete(f"/roles/{prior}").status_code == 204
    assert roles() == {"member", "reader"}


def test_losing_the_system_ends_tokens_for_it(place: Place) -> None:
    admin = place.admin()
    system = place.login("admin", scope=SYSTEM)
    admin.delete(f"/system/users/{admin.id_of('users', 'admin')}/roles/{admin.id_of('roles', 'admin')}")
    assert not system.still_counts()
    assert admin.still_counts()
