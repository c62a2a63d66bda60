"""Getting a token, showing it, exchanging it and ending it."""

from __future__ import annotations

import pytest

from tests.api.identity.place import BASE, SYSTEM, UNSCOPED, V3, Place, project


def test_a_password_gives_a_token_for_a_project_with_roles_and_catalog(place: Place) -> None:
    admin = place.admin()
    token = admin.body
    assert token["methods"] == ["password"]
    assert token["user"] | {"id": ""} == {
        "id": "",
        "name": "admin",
        "domain": {"id": "default", "name": "Default"},
        "password_expires_at": None,
    }
    assert token["project"]["name"] == "admin"
    assert token["project"]["domain"] == {"id": "default", "name": "Default"}
    assert token["is_domain"] is False
    assert [role["name"] for role in token["roles"]] == ["admin", "manager", "member", "reader"]
    assert len(token["audit_ids"]) == 1
    urls = {
        entry["type"]: endpoint["url"]
        for entry in token["catalog"]
        for endpoint in entry["endpoints"]
        if endpoint["interface"] == "public"
    }
    assert urls == {
        "identity": f"{BASE}/identity",
        "compute": f"{BASE}/compute/v2.1",
        "network": f"{BASE}/network",
        "image": f"{BASE}/image",
        "placement": f"{BASE}/placement",
    }


def test_the_catalog_speaks_of_the_address_the_client_came_by(place: Place) -> None:
    admin = place.admin()
    answer = admin.get("http://10.1.2.3:9/identity/v3/auth/catalog")
    assert {e["url"].split("/")[2] for s in answer.json()["catalog"] for e in s["endpoints"]} == {"10.1.2.3:9"}


def test_the_catalog_is_left_out_on_request(place: Place) -> None:
    admin = place.admin()
    shown = admin.get("/auth/tokens?nocatalog", X_Subject_Token=str(admin.token)).json()["token"]
    assert "catalog" not in shown
    assert "roles" in shown


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        (project("admin"), "project"),
        (SYSTEM, "system"),
        (UNSCOPED, None),
        ("unscoped", None),
        (None, None),
    ],
)
def test_every_scope_can_be_asked_for(place: Place, scope: object, shown: str | None) -> None:
    token = place.login("admin", scope=scope).body
    assert {"project", "domain", "system"} & token.keys() == ({shown} if shown else set())
    assert ("roles" in token) == ("catalog" in token) == (shown is not None)


def test_without_a_scope_the_default_project_counts_while_it_works(place: Place) -> None:
    admin = place.admin()
    demo, demo_project = admin.id_of("users", "demo"), admin.id_of("projects", "demo")
    assert admin.patch(f"/users/{demo}", {"user": {"default_project_id": demo_project}}).status_code == 200
    assert place.login("demo").body["project"]["id"] == demo_project
    assert "project" not in place.login("demo", scope=UNSCOPED).body
    assert admin.patch(f"/projects/{demo_project}", {"project": {"enabled": False}}).status_code == 200
    assert "project" not in place.login("demo").body


def test_a_token_for_a_domain(place: Place) -> None:
    admin = place.admin()
    role = admin.id_of("roles", "manager")
    demo = admin.id_of("users", "demo")
    refused = place.authenticate(
        {
            "identity": {"methods": ["token"], "token": {"id": place.login("demo").token}},
            "scope": {"domain": {"id": "default"}},
        }
    )
    assert refused.status_code == 401
    assert admin.put(f"/domains/default/users/{demo}/roles/{role}").status_code == 204
    token = place.login("demo", scope={"domain": {"name": "Default"}}).body
    assert token["domain"] == {"id": "default", "name": "Default"}
    assert [r["name"] for r in token["roles"]] == ["manager", "member", "reader"]


def test_a_token_is_validated_by_its_bearer_and_by_an_administrator_only(place: Place) -> None:
    admin, demo, other = place.admin(), place.login("demo"), place.login("demo", scope=project("demo"))
    for bearer in (admin, demo, other):
        answer = bearer.get("/auth/tokens", X_Subject_Token=str(demo.token))
        assert answer.status_code == 200
        assert answer.headers["x-subject-token"] == demo.token
        assert "x-subject-token" in answer.headers["vary"].lower()
        assert answer.json()["token"]["audit_ids"] == demo.body["audit_ids"]
        head = bearer.request("HEAD", "/auth/tokens", headers={"X-Subject-Token": str(demo.token)})
        assert (head.status_code, head.content) == (200, b"")
    assert demo.get("/auth/tokens", X_Subject_Token=str(admin.token)).status_code == 403
    assert admin.get("/auth/tokens", X_Subject_Token="nonsense").status_code == 404
    assert admin.get("/auth/tokens").status_code == 404


def test_a_revoked_token_is_worthless_at_once_and_so_is_every_token_made_from_it(place: Place) -> None:
    root = place.login("demo")
    child = place.exchanged(root, project("demo"))
    grandchild = place.exchanged(child, UNSCOPED)
    sibling = place.exchanged(root, project("demo"))
    assert child.delete("/auth/tokens", {"X-Subject-Token": str(child.token)}).status_code == 204
    assert [s.still_counts() for s in (root, child, grandchild, sibling)] == [True, False, False, True]
    assert place.exchange(child, UNSCOPED).status_code == 404
    assert root.delete("/auth/tokens", {"X-Subject-Token": str(root.token)}).status_code == 204
    assert [s.still_counts() for s in (root, sibling)] == [False, False]
    assert place.admin().get("/auth/tokens", X_Subject_Token=str(root.token)).status_code == 404


def test_a_stranger_cannot_revoke_a_token(place: Place) -> None:
    admin, demo = place.admin(), place.login("demo")
    assert demo.delete("/auth/tokens", {"X-Subject-Token": str(admin.token)}).status_code == 403
    assert admin.still_counts()


def test_a_token_lives_for_an_hour(place: Place) -> None:
    demo = place.login("demo")
    place.clock.advance(3599)
    assert demo.still_counts()
    place.clock.advance(1)
    assert not demo.still_counts()


def test_an_exchanged_token_ends_with_the_first_one_and_names_it(place: Place) -> None:
    first = place.login("demo")
    place.clock.advance(1800)
    second = place.exchanged(first, project("demo"))
    assert second.body["expires_at"] == first.body["expires_at"]
    assert second.body["issued_at"] > first.body["issued_at"]
    assert second.body["audit_ids"][1:] == first.body["audit_ids"]
    assert sorted(second.body["methods"]) == ["password", "token"]
    third = place.exchanged(second, UNSCOPED)
    assert third.body["audit_ids"][1:] == first.body["audit_ids"]
    place.clock.advance(1800)
    assert not third.still_counts()


def test_a_token_for_the_system_gives_none_for_a_project(place: Place) -> None:
    system = place.login("admin", scope=SYSTEM)
    assert place.exchange(system, project("admin")).status_code == 403
    assert place.exchange(system, {"domain": {"id": "default"}}).status_code == 403
    assert place.exchanged(system, SYSTEM).body["system"] == {"all": True}


def test_a_chain_of_exchanges_has_an_end(place: Place) -> None:
    session = place.login("demo")
    statuses = []
    for _ in range(40):
        answer = place.exchange(session, UNSCOPED)
        statuses.append(answer.status_code)
        if answer.status_code != 201:
            break
        session = type(session)(place, answer.headers["x-subject-token"], answer.json()["token"])
    assert statuses[-1] == 403
    assert statuses.count(201) == 31


@pytest.mark.parametrize(
    ("auth", "status"),
    [
        ({}, 400),
        ({"identity": {}}, 400),
        ({"identity": {"methods": []}}, 400),
        ({"identity": {"methods": ["password"]}}, 400),
        ({"identity": {"methods": ["password"], "password": {"user": {"password": "x"}}}}, 400),
        ({"identity": {"methods": ["password"], "password": {"user": {"name": "demo", "password": "x"}}}}, 400),
        ({"identity": {"methods": ["magic"]}}, 401),
        ({"identity": {"methods": ["application_credential"], "application_credential": {}}}, 400),
        ({"identity": {"methods": ["mapped"], "mapped": {}}}, 501),
        ({"identity": {"methods": ["token"], "token": {"id": "gAAAAA"}}}, 404),
        ({"identity": {"methods": ["password"] * 9, "password": {}}}, 400),
        (
            {
                "identity": {"methods": ["password"], "password": {"user": {"id": "x", "password": "x"}}},
                "scope": {"project": {"id": "a"}, "system": {"all": True}},
            },
            400,
        ),
        (
            {"identity": {"methods": ["password"], "password": {"user": {"id": "x", "password": "x"}}}, "scope": {}},
            400,
        ),
        (
            {
                "identity": {"methods": ["password"], "password": {"user": {"id": "x", "password": "x"}}},
                "scope": {"project": {"name": "p"}},
            },
            400,
        ),
        ({"identity": {"methods": ["password"], "password": {"user": {"id": "x", "password": "x" * 1025}}}}, 400),
    ],
)
def test_what_is_no_request_for_a_token_is_refused(place: Place, auth: dict[str, object], status: int) -> None:
    answer = place.authenticate(auth)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == status
    assert "x" * 100 not in answer.text


def test_version_documents_need_no_token(place: Place) -> None:
    assert place.nobody.get(f"{BASE}/identity").status_code == 300
    for url in (V3, f"{V3}/"):
        answer = place.nobody.get(url)
        assert answer.status_code == 200
        assert answer.json()["version"]["id"] == "v3.14"


def test_what_a_bearer_may_choose_as_scope(place: Place) -> None:
    admin, demo = place.login("admin", scope=UNSCOPED), place.login("demo", scope=UNSCOPED)
    assert [p["name"] for p in demo.get("/auth/projects").json()["projects"]] == ["demo"]
    assert demo.get("/auth/domains").json()["domains"] == []
    assert demo.get("/auth/system").json()["system"] == []
    assert admin.get("/auth/system").json()["system"] == [{"all": True}]
    assert demo.get("/auth/catalog").status_code == 403
    assert place.exchanged(demo, project("demo")).get("/auth/catalog").json()["catalog"]
