"""Only administrators change an administrator, whatever the operation. Names and scopes give no way around that."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.identity.place import SYSTEM, UNSCOPED, Place, Session, project

DEFAULT = {"domain": {"id": "default"}}
HELD = [("project", "admin"), ("domain", "admin"), ("system", "admin"), ("system", "reader"), ("project", "service")]


def role(admin: Session, name: str) -> str:
    return admin.id_of("roles", name)


def domain_manager(place: Place) -> Session:
    admin = place.admin()
    user = admin.made("user", "users", name="head", password="heads-own")["id"]
    admin.put(f"/domains/default/users/{user}/roles/{role(admin, 'manager')}")
    return place.login("head", "heads-own", DEFAULT)


def victim(place: Place, where: str, held: str) -> str:
    """Somebody in Default who holds a role in one place only."""
    admin = place.admin()
    user: str = admin.made("user", "users", name="boss", password="boss-own-1")["id"]
    home = admin.made("project", "projects", name="boss")["id"]
    other = admin.made("domain", "domains", name="elsewhere")["id"]
    scope = {"project": f"/projects/{home}", "domain": f"/domains/{other}", "system": "/system"}[where]
    assert admin.put(f"{scope}/users/{user}/roles/{role(admin, held)}").status_code == 204
    return user


def changes(admin: Session, user: str) -> list[tuple[str, str, Any]]:
    demo, member = admin.id_of("projects", "demo"), role(admin, "member")
    grant = f"/projects/{demo}/users/{user}/roles/{member}"
    return [
        ("PATCH", f"/users/{user}", {"user": {"password": "taken-over"}}),
        ("PATCH", f"/users/{user}", {"user": {"enabled": False}}),
        ("PATCH", f"/users/{user}", {"user": {"name": "renamed"}}),
        ("PATCH", f"/users/{user}", {"user": {"default_project_id": demo}}),
        ("PUT", grant, None),
        ("PUT", f"/domains/default/users/{user}/roles/{member}", None),
        ("DELETE", grant, None),
        ("DELETE", f"/users/{user}", None),
    ]


@pytest.mark.parametrize(("where", "held"), HELD)
def test_a_domain_s_manager_changes_no_administrator(place: Place, where: str, held: str) -> None:
    user, manager, admin = victim(place, where, held), domain_manager(place), place.admin()
    admin.put(f"/projects/{admin.id_of('projects', 'demo')}/users/{user}/roles/{role(admin, 'member')}")
    before = admin.get(f"/users/{user}").json(), admin.get(f"/role_assignments?user.id={user}").json()
    for method, path, body in changes(admin, user):
        assert manager.request(method, path, body).status_code == 403, (method, path)
        assert (admin.get(f"/users/{user}").json(), admin.get(f"/role_assignments?user.id={user}").json()) == before
    place.login("boss", "boss-own-1", UNSCOPED)


def test_a_domain_s_manager_changes_whom_they_manage(place: Place) -> None:
    manager, admin = domain_manager(place), place.admin()
    user = admin.made("user", "users", name="staff", password="staffs-own")["id"]
    for method, path, body in changes(admin, user)[:5] + changes(admin, user)[6:]:
        assert manager.request(method, path, body).status_code in (200, 204), (method, path)


def test_a_domain_s_manager_deletes_no_project_that_an_administrator_works_in(place: Place) -> None:
    manager, admin = domain_manager(place), place.admin()
    home, demo = admin.id_of("projects", "admin"), admin.id_of("projects", "demo")
    assert manager.patch(f"/projects/{home}", {"project": {"enabled": False}}).status_code == 403
    assert manager.delete(f"/projects/{home}").status_code == 403
    assert admin.still_counts()
    assert manager.patch(f"/projects/{demo}", {"project": {"description": "x"}}).status_code == 200


@pytest.mark.parametrize("name", ["ADMIN", "Admin", "aDMIN", "Manager", "READER", "Service"])
def test_no_role_is_spelled_like_another_one(place: Place, name: str) -> None:
    admin = place.admin()
    assert admin.post("/roles", {"role": {"name": name}}).status_code == 409
    made = admin.made("role", "roles", name="harmless")["id"]
    assert admin.patch(f"/roles/{made}", {"role": {"name": name}}).status_code == 409
    assert admin.patch(f"/roles/{made}", {"role": {"name": "Harmless"}}).status_code == 200


def test_a_token_for_the_system_never_becomes_one_for_a_project(place: Place) -> None:
    system = place.login("admin", scope=SYSTEM)
    assert place.exchange(system, project("admin")).status_code == 403
    assert place.exchange(system, DEFAULT).status_code == 403
    for way in ((UNSCOPED,), (None,), (SYSTEM,), (UNSCOPED, UNSCOPED), (UNSCOPED, SYSTEM, UNSCOPED), (None, None)):
        token = system
        for scope in way:
            token = place.exchanged(token, scope)
            assert "project" not in token.body
        assert place.exchange(token, project("admin")).status_code == 403, way
        assert place.exchange(token, DEFAULT).status_code == 403, way
    plain = place.login("admin", scope=UNSCOPED)
    assert "project" in place.exchanged(plain, project("admin")).body


@pytest.mark.parametrize("password", ["", "x", "1234567"])
def test_a_new_password_has_eight_characters(place: Place, password: str) -> None:
    admin, demo = place.admin(), place.admin().id_of("users", "demo")
    own = place.passwords.by_user["demo"]
    refused = [
        admin.post("/users", {"user": {"name": "u", "password": password}}),
        admin.patch(f"/users/{demo}", {"user": {"password": password}}),
        place.nobody.post(f"/users/{demo}/password", {"user": {"original_password": own, "password": password}}),
    ]
    assert [answer.status_code for answer in refused] == [400] * 3
    assert all("password" in answer.text for answer in refused)
    place.login("demo")
