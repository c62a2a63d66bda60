"""Users, projects, domains, roles and the catalog as an administrator keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.testing import JsonObject
from tests.api.identity.place import V3, Place, password_auth, project


def names(answer: Any, collection: str) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [thing["name"] for thing in answer.json()[collection]]


def test_a_user_is_made_shown_changed_and_deleted(place: Place) -> None:
    admin = place.admin()
    made = admin.made("user", "users", name="ada", password="their-own", email="ada@test", description="first")
    assert made == {
        "id": made["id"],
        "name": "ada",
        "domain_id": "default",
        "enabled": True,
        "email": "ada@test",
        "description": "first",
        "password_expires_at": None,
        "options": {},
        "links": {"self": f"{V3}/users/{made['id']}"},
    }
    assert admin.get(f"/users/{made['id']}").json() == {"user": made}
    changed = admin.patch(f"/users/{made['id']}", {"user": {"name": "lovelace", "email": "l@test"}}).json()["user"]
    assert changed == made | {"name": "lovelace", "email": "l@test"}
    assert place.login("lovelace", "their-own").still_counts()
    assert admin.delete(f"/users/{made['id']}").status_code == 204
    assert admin.get(f"/users/{made['id']}").status_code == 404


def test_attributes_of_any_name_do_not_hide_a_user_s_own(place: Place) -> None:
    admin = place.admin()
    made = admin.made("user", "users", name="u", password_hash="x", links="x", id="x", tokens_not_before_us=-1)
    assert made["id"] != "x"
    assert made["links"] == {"self": f"{V3}/users/{made['id']}"}
    assert admin.get("/users?name=u").json()["users"] == [made]
    assert place.authenticate(password_auth("u", "x")).status_code == 401


@pytest.mark.parametrize(
    ("collection", "kind", "first"),
    [
        ("users", "user", {"name": "n", "domain_id": "default"}),
        ("projects", "project", {"name": "n", "domain_id": "default"}),
        ("domains", "domain", {"name": "n"}),
        ("roles", "role", {"name": "n"}),
    ],
)
def test_a_name_is_taken_once(place: Place, collection: str, kind: str, first: dict[str, str]) -> None:
    admin = place.admin()
    admin.made(kind, collection, **first)
    assert admin.post(f"/{collection}", {kind: first}).status_code == 409
    other = admin.made(kind, collection, **{**first, "name": "m"})
    assert admin.patch(f"/{collection}/{other['id']}", {kind: {"name": "n"}}).status_code == 409
    if "domain_id" in first:
        elsewhere = admin.made("domain", "domains", name="elsewhere")["id"]
        assert admin.post(f"/{collection}", {kind: {**first, "domain_id": elsewhere}}).status_code == 201


@pytest.mark.parametrize(
    ("collection", "kind"),
    [("users", "user"), ("projects", "project"), ("domains", "domain"), ("roles", "role")],
)
@pytest.mark.parametrize("name", ["", "   ", 5, None, "x" * 256])
def test_a_name_is_text_of_some_length(place: Place, collection: str, kind: str, name: object) -> None:
    assert place.admin().post(f"/{collection}", {kind: {"name": name}}).status_code == 400


def test_unknown_and_foreign_look_alike_to_whoever_may_see_neither(place: Place) -> None:
    admin, demo = place.admin(), place.login("demo", scope=project("demo"))
    there = admin.made("project", "projects", name="secret")["id"]
    user = admin.id_of("users", "admin")
    for real, path in ((there, "/projects/{}"), (user, "/users/{}"), (user, "/users/{}/projects")):
        foreign, missing = demo.get(path.format(real)), demo.get(path.format("0" * 32))
        assert (foreign.status_code, foreign.text) == (missing.status_code, missing.text) == (403, foreign.text)


def test_lists_are_filtered_and_paged_in_the_database(place: Place) -> None:
    admin = place.admin()
    for n in range(5):
        admin.made("user", "users", name=f"u{n}", enabled=n % 2 == 0)
    assert names(admin.get("/users?name=u3"), "users") == ["u3"]
    assert names(admin.get("/users?name=u%25"), "users") == []
    assert names(admin.get("/users?enabled=false"), "users") == ["u1", "u3"]
    assert names(admin.get("/users?domain_id=default&enabled=1"), "users") == ["admin", "demo", "u0", "u2", "u4"]
    assert names(admin.get("/users?domain_id=none"), "users") == []
    seen: list[str] = []
    url: str | None = "/users?limit=3"
    while url is not None:
        answer = admin.get(url).json()
        seen += [user["name"] for user in answer["users"]]
        assert answer["links"]["previous"] is None
        url = answer["links"]["next"]
    assert seen == ["admin", "demo", "u0", "u1", "u2", "u3", "u4"]
    assert admin.get("/users?limit=0").status_code == 400
    assert admin.get("/users?limit=1&marker=unknown").status_code == 404


def test_a_project_is_below_its_domain(place: Place) -> None:
    admin = place.admin()
    made = admin.made("project", "projects", name="p", description="d", tags=["b", "a"], colour="red")
    assert made | {"links": None} == {
        "id": made["id"],
        "name": "p",
        "description": "d",
        "domain_id": "default",
        "parent_id": "default",
        "is_domain": False,
        "enabled": True,
        "tags": ["a", "b"],
        "options": {},
        "colour": "red",
        "links": None,
    }
    shown = admin.get(f"/projects/{made['id']}?parents_as_ids&subtree_as_ids").json()["project"]
    assert shown == made | {"parents": {"default": None}, "subtree": None}
    assert admin.post("/projects", {"project": {"name": "q", "parent_id": "nowhere"}}).status_code == 400
    assert admin.post("/projects", {"project": {"name": "q", "domain_id": "nowhere"}}).status_code == 400
    assert admin.post("/users", {"user": {"name": "u", "domain_id": "nowhere"}}).status_code == 404
    assert admin.patch(f"/projects/{made['id']}", {"project": {"domain_id": "other"}}).status_code == 400


def test_projects_are_found_by_their_tags(place: Place) -> None:
    admin = place.admin()
    for name, tags in (("a", ["x"]), ("b", ["x", "y"]), ("c", ["y", "z"])):
        admin.made("project", "projects", name=name, tags=tags)
    for query, found in (
        ("tags=x", ["a", "b"]),
        ("tags=x,y", ["b"]),
        ("tags-any=x,z", ["a", "b", "c"]),
        ("not-tags=x,y", ["a", "admin", "c", "demo", "service"]),
        ("not-tags-any=x", ["admin", "c", "demo", "service"]),
    ):
        assert names(admin.get(f"/projects?{query}"), "projects") == found
    a = admin.id_of("projects", "a")
    assert admin.put(f"/projects/{a}/tags/new").status_code == 201
    assert admin.get(f"/projects/{a}/tags").json()["tags"] == ["new", "x"]
    assert admin.get(f"/projects/{a}/tags/new").status_code == 204
    assert admin.delete(f"/projects/{a}/tags/new").status_code == 204
    assert admin.get(f"/projects/{a}/tags/new").status_code == 404
    assert admin.put(f"/projects/{a}/tags", {"tags": ["q"] * 2}).status_code == 400
    assert admin.put(f"/projects/{a}/tags", {"tags": [str(n) for n in range(80)]}).status_code == 200
    assert admin.put(f"/projects/{a}/tags/one-more").status_code == 400
    assert admin.delete(f"/projects/{a}/tags").status_code == 204
    assert admin.get(f"/projects/{a}/tags").json()["tags"] == []


def test_a_domain_is_disabled_before_it_goes_and_takes_everything_in_it(place: Place) -> None:
    admin = place.admin()
    domain = admin.made("domain", "domains", name="d")["id"]
    home = admin.made("project", "projects", name="p", domain_id=domain)["id"]
    user = admin.made("user", "users", name="u", domain_id=domain)["id"]
    guest = admin.id_of("users", "demo")
    for grant in (
        f"/projects/{home}/users/{user}",
        f"/projects/{home}/users/{guest}",
        f"/domains/{domain}/users/{user}",
    ):
        assert admin.put(f"{grant}/roles/{admin.id_of('roles', 'member')}").status_code == 204
    assert admin.delete(f"/domains/{domain}").status_code == 403
    assert admin.patch(f"/domains/{domain}", {"domain": {"enabled": False}}).status_code == 200
    assert admin.delete(f"/domains/{domain}").status_code == 204
    for path in (f"/domains/{domain}", f"/projects/{home}", f"/users/{user}"):
        assert admin.get(path).status_code == 404
    left = admin.get("/role_assignments?include_names").json()["role_assignments"]
    assert len(left) == 3


def test_what_is_immutable_must_be_released_first(place: Place) -> None:
    admin = place.admin()
    role = admin.id_of("roles", "member")
    assert admin.delete(f"/roles/{role}").status_code == 403
    assert admin.patch(f"/roles/{role}", {"role": {"name": "x"}}).status_code == 403
    released = admin.patch(f"/roles/{role}", {"role": {"options": {"immutable": False}}})
    assert released.json()["role"]["options"] == {"immutable": False}
    assert admin.delete(f"/roles/{role}").status_code == 204


def test_roles_imply_each_other_but_never_admin_and_never_in_a_circle(place: Place) -> None:
    admin = place.admin()
    ids = {name: admin.id_of("roles", name) for name in ("admin", "manager", "member", "reader", "service")}
    chains = [
        (rule["prior_role"]["name"], [implied["name"] for implied in rule["implies"]])
        for rule in admin.get("/role_inferences").json()["role_inferences"]
    ]
    assert chains == [("admin", ["manager"]), ("manager", ["member"]), ("member", ["reader"])]
    assert admin.put(f"/roles/{ids['service']}/implies/{ids['admin']}").status_code == 403
    assert admin.put(f"/roles/{ids['reader']}/implies/{ids['manager']}").status_code == 400
    assert admin.put(f"/roles/{ids['reader']}/implies/{ids['reader']}").status_code == 400
    assert admin.put(f"/roles/{ids['admin']}/implies/{ids['manager']}").status_code == 409
    assert admin.get(f"/roles/{ids['admin']}/implies/{ids['manager']}").status_code == 200
    assert admin.get(f"/roles/{ids['admin']}/implies/{ids['reader']}").status_code == 404


def test_a_role_of_one_domain_stays_in_it_and_never_shows_in_a_token(place: Place) -> None:
    admin = place.admin()
    local = admin.made("role", "roles", name="local", domain_id="default")["id"]
    operator = admin.made("role", "roles", name="operator")["id"]
    assert admin.put(f"/roles/{local}/implies/{operator}").status_code == 201
    assert "local" not in names(admin.get("/roles"), "roles")
    assert names(admin.get("/roles?domain_id=default"), "roles") == ["local"]
    demo, home = admin.id_of("users", "demo"), admin.id_of("projects", "demo")
    assert admin.put(f"/projects/{home}/users/{demo}/roles/{local}").status_code == 204
    token = place.login("demo", scope=project("demo")).body
    assert [role["name"] for role in token["roles"]] == ["member", "operator", "reader"]
    domain = admin.made("domain", "domains", name="d")["id"]
    elsewhere = admin.made("project", "projects", name="p", domain_id=domain)["id"]
    assert admin.put(f"/projects/{elsewhere}/users/{demo}/roles/{local}").status_code == 403
    assert admin.put(f"/system/users/{demo}/roles/{local}").status_code == 403
    # As upstream, it may be given on another domain. There, too, the token has the roles that it implies.
    assert admin.put(f"/domains/{domain}/users/{demo}/roles/{local}").status_code == 204
    token = place.login("demo", scope={"domain": {"id": domain}}).body
    assert [role["name"] for role in token["roles"]] == ["operator"]


def test_role_assignments_are_found_by_whom_where_and_what(place: Place) -> None:
    admin = place.admin()
    demo, home = admin.id_of("users", "demo"), admin.id_of("projects", "demo")
    member, reader = admin.id_of("roles", "member"), admin.id_of("roles", "reader")
    link = f"{V3}/projects/{home}/users/{demo}/roles/{member}"
    given = {
        "role": {"id": member},
        "user": {"id": demo},
        "scope": {"project": {"id": home}},
        "links": {"assignment": link},
    }

    def found(query: str) -> list[JsonObject]:
        answer = admin.get(f"/role_assignments?{query}")
        assert answer.status_code == 200, answer.text
        listed: list[dict[str, object]] = answer.json()["role_assignments"]
        return listed

    for query in (f"user.id={demo}", f"scope.project.id={home}", f"role.id={member}"):
        assert found(query) == [given]
    assert found(f"user.id={demo}&role.id={reader}") == []
    implied = {**given, "role": {"id": reader}}
    implied["links"] = {"assignment": link, "prior_role": f"{V3}/prior_role/{member}/implies/{reader}"}
    assert found(f"user.id={demo}&effective") == [given, implied]
    assert found(f"user.id={demo}&role.id={reader}&effective") == [implied]
    [named] = found(f"user.id={demo}&include_names")
    default = {"id": "default", "name": "Default"}
    assert named["user"] == {"id": demo, "name": "demo", "domain": default}
    assert named["scope"] == {"project": {"id": home, "name": "demo", "domain": default}}
    assert named["role"] == {"id": member, "name": "member"}
    assert [a["scope"] for a in found("scope.system=all")] == [{"system": {"all": True}}]
    assert found("group.id=x") == []
    for contradiction in ("user.id=a&group.id=b", "scope.system=all&scope.project.id=p", "effective&group.id=g"):
        assert admin.get(f"/role_assignments?{contradiction}").status_code == 400


def test_grants_are_listed_checked_and_given_twice_without_harm(place: Place) -> None:
    admin = place.admin()
    demo, reader = admin.id_of("users", "demo"), admin.id_of("roles", "reader")
    for where in (f"/projects/{admin.id_of('projects', 'admin')}", "/domains/default", "/system"):
        roles = f"{where}/users/{demo}/roles"
        assert admin.get(f"{roles}/{reader}").status_code == 404
        assert [admin.put(f"{roles}/{reader}").status_code for _ in range(2)] == [204, 204]
        assert admin.get(f"{roles}/{reader}").status_code == 204
        assert names(admin.get(roles), "roles") == ["reader"]
        assert admin.delete(f"{roles}/{reader}").status_code == 204
        assert admin.delete(f"{roles}/{reader}").status_code == 404
        for unknown in (f"{where}/users/nobody/roles/{reader}", f"{roles}/nothing"):
            assert admin.put(unknown).status_code == 404


def test_regions_nest_and_are_kept_while_they_have_endpoints(place: Place) -> None:
    admin = place.admin()
    assert admin.put("/regions/east", {"region": {"description": "e"}}).status_code == 201
    assert admin.put("/regions/east", {"region": {}}).status_code == 409
    assert admin.put("/regions/x", {"region": {"id": "y"}}).status_code == 400
    child = admin.made("region", "regions", parent_region_id="east")["id"]
    assert admin.patch("/regions/east", {"region": {"parent_region_id": child}}).status_code == 400
    assert admin.post("/regions", {"region": {"parent_region_id": "nowhere"}}).status_code == 400
    assert [r["id"] for r in admin.get("/regions?parent_region_id=east").json()["regions"]] == [child]
    service = admin.made("service", "services", type="t")["id"]
    endpoint = admin.made(
        "endpoint", "endpoints", service_id=service, interface="public", url="http://x/", region_id=child
    )
    assert admin.delete("/regions/east").status_code == 403
    assert admin.delete(f"/endpoints/{endpoint['id']}").status_code == 204
    assert admin.delete("/regions/east").status_code == 204
    assert [r["id"] for r in admin.get("/regions").json()["regions"]] == ["RegionOne"]


def test_endpoints_reach_the_catalog_with_the_bearers_ids_in_them(place: Place) -> None:
    admin = place.admin()
    service = admin.made("service", "services", type="block-storage", name="cinder")["id"]
    attributes: JsonObject = {"service_id": service, "interface": "public"}
    made = admin.made("endpoint", "endpoints", **attributes, url="http://x/v3/%(project_id)s", region="RegionTwo")
    admin.made("endpoint", "endpoints", **attributes | {"interface": "internal"}, url="http://x/$(user_id)s")
    assert (made["region"], made["region_id"]) == ("RegionTwo", "RegionTwo")
    for bad in ({"url": "no url"}, {"interface": "secret"}, {"url": "http://x/%(password)s"}, {"service_id": "x"}):
        body = {**attributes, "url": "http://x/", **bad}
        assert admin.post("/endpoints", {"endpoint": body}).status_code == 400

    def cinder(scope: object) -> dict[str, str]:
        token = place.login("admin", scope=scope).body
        [entry] = [entry for entry in token["catalog"] if entry["name"] == "cinder"]
        return {endpoint["interface"]: endpoint["url"] for endpoint in entry["endpoints"]}

    user, home = admin.id_of("users", "admin"), admin.id_of("projects", "admin")
    assert cinder(project("admin")) == {"public": f"http://x/v3/{home}", "internal": f"http://x/{user}"}
    assert cinder({"system": {"all": True}}) == {"internal": f"http://x/{user}"}
    admin.patch(f"/services/{service}", {"service": {"enabled": False}})
    assert "cinder" not in [entry["name"] for entry in admin.get("/auth/catalog").json()["catalog"]]
    admin.delete(f"/services/{service}")
    assert admin.get(f"/endpoints?service_id={service}").json()["endpoints"] == []


@pytest.mark.parametrize(
    "path",
    ["/OS-FEDERATION/mappings", "/OS-FEDERATION/identity_providers"],
)
def test_what_is_not_offered_answers_501(place: Place, path: str) -> None:
    answer = place.admin().get(path)
    assert answer.status_code == 501
    assert path.split("/")[-1] in answer.json()["error"]["message"]


def test_a_second_factor_that_would_not_be_asked_for_is_not_stored(place: Place) -> None:
    options = {"multi_factor_auth_enabled": True, "multi_factor_auth_rules": [["password", "retina"]]}
    assert place.admin().post("/users", {"user": {"name": "u", "options": options}}).status_code == 400


def test_a_locked_password_is_changed_by_administrators_only(place: Place) -> None:
    admin = place.admin()
    user = admin.made("user", "users", name="u", password="the-old-one", options={"lock_password": True})["id"]
    change = {"user": {"original_password": "the-old-one", "password": "the-new-one"}}
    assert place.nobody.post(f"/users/{user}/password", change).status_code == 400
    assert admin.patch(f"/users/{user}", {"user": {"password": "the-new-one"}}).status_code == 200
    assert place.login({"id": user}, "the-new-one").still_counts()


def test_a_domain_administrators_token_sees_its_domain_only(place: Place) -> None:
    admin = place.admin()
    domain = admin.made("domain", "domains", name="d")["id"]
    user = admin.made("user", "users", name="boss", domain_id=domain, password="their-own")["id"]
    admin.made("project", "projects", name="inside", domain_id=domain)
    admin.put(f"/domains/{domain}/users/{user}/roles/{admin.id_of('roles', 'manager')}")
    boss = place.login({"id": user}, "their-own", {"domain": {"id": domain}})
    assert names(boss.get("/users"), "users") == ["boss"]
    assert names(boss.get("/users?domain_id=default"), "users") == []
    assert names(boss.get("/projects"), "projects") == ["inside"]
    assert names(boss.get("/domains"), "domains") == ["d"]
    assert len(boss.get("/role_assignments").json()["role_assignments"]) == 1
    assert boss.post("/users", {"user": {"name": "x", "domain_id": "default"}}).status_code == 403
    assert boss.post("/users", {"user": {"name": "x", "domain_id": domain}}).status_code == 201
