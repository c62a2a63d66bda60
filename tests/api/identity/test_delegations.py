"""Application credentials and trusts give less than their maker has, to nobody else, and end with what they rest on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cumulet.clock import iso_us
from cumulet.identity import application_credentials, trusts
from cumulet.identity.delegations import AccessRule, allows
from cumulet.testing import JsonObject
from tests.api.identity.maker import Maker
from tests.api.identity.place import SYSTEM, UNSCOPED, Place, Session, project

COMPUTE = "https://cloud.test:8774/compute/v2.1/servers"


@pytest.fixture
def maker(place: Place) -> Maker:
    return Maker(place)


def names(session: Session) -> set[str]:
    return {role["name"] for role in session.body["roles"]}


def test_a_program_enters_with_its_secret_and_has_the_roles_it_was_made_with(maker: Maker) -> None:
    some = maker.credential(roles=[{"name": "member"}])
    session = maker.enter(some)
    assert names(session) == {"member", "reader"}
    assert session.body["project"]["id"] == maker.home
    assert session.body["methods"] == ["application_credential"]
    assert session.body["application_credential"] == {"id": some["id"], "name": "program", "restricted": True}
    shown = maker.session().get(f"/users/{maker.ids['maker']}/application_credentials/{some['id']}").json()
    assert "secret" not in shown["application_credential"]
    by_name = {"name": "program", "user": {"name": "maker", "domain": {"id": "default"}}}
    wrong = maker.enter(some, secret="wrong-secret")
    assert wrong.token is None
    assert wrong.body["error"]["code"] == 401
    method = {"secret": some["secret"], **by_name}
    answer = maker.place.authenticate(
        {"identity": {"methods": ["application_credential"], "application_credential": method}}
    )
    assert answer.status_code == 201


def test_it_gets_no_role_its_maker_s_token_has_not(maker: Maker) -> None:
    path = f"/users/{maker.ids['maker']}/application_credentials"
    for role in ("admin", "manager", "service"):
        body = {"application_credential": {"name": "program", "roles": [{"name": role}]}}
        assert maker.session().post(path, body).status_code == 400
    restricted = maker.enter(maker.credential(unrestricted=True, roles=[{"name": "reader"}]))
    body = {"application_credential": {"name": "second", "roles": [{"name": "extra"}]}}
    assert restricted.post(path, body).status_code == 400


def test_a_restricted_program_makes_neither_credentials_nor_trusts_nor_tokens(maker: Maker) -> None:
    made = maker.credential()
    program, path = maker.enter(made), f"/users/{maker.ids['maker']}/application_credentials"
    assert program.post(path, {"application_credential": {"name": "second"}}).status_code == 403
    assert program.delete(f"{path}/{made['id']}").status_code == 403
    assert program.post("/OS-TRUST/trusts", {"trust": maker.new_trust()}).status_code == 403
    assert maker.place.exchange(program).status_code == 403
    assert maker.place.exchange(program, UNSCOPED).status_code == 403
    assert program.delete(f"/users/{maker.ids['maker']}/tokens").status_code == 403
    free = maker.enter(maker.credential(name="free", unrestricted=True))
    assert free.delete(f"/users/{maker.ids['maker']}/tokens").status_code == 403
    assert free.post(path, {"application_credential": {"name": "second"}}).status_code == 201
    assert free.post("/OS-TRUST/trusts", {"trust": maker.new_trust()}).status_code == 403


def test_access_rules_let_through_what_they_name_and_nothing_else(maker: Maker) -> None:
    rules = [{"service": "identity", "method": "GET", "path": "/v3/auth/projects"}]
    program = maker.enter(maker.credential(access_rules=rules))
    assert program.get("/auth/projects").status_code == 200
    assert program.get("/auth/domains").status_code == 401
    assert program.request("HEAD", "/auth/projects").status_code == 401
    assert program.get("/auth/projects/").status_code in (401, 404)
    assert program.get("/auth/tokens", X_Subject_Token=str(program.token)).status_code == 200
    assert program.get("/users").status_code == 401
    none = maker.enter(maker.credential(name="none", access_rules=[]))
    assert none.get("/auth/projects").status_code == 401


def test_a_program_with_access_rules_makes_none_with_other_ones(maker: Maker) -> None:
    path = f"/users/{maker.ids['maker']}/application_credentials"
    rules = [{"service": "identity", "method": "POST", "path": f"/v3{path}"}]
    program = maker.enter(maker.credential(unrestricted=True, access_rules=rules))
    other = {"service": "identity", "method": "GET", "path": "/v3/users"}
    more: list[dict[str, object]] = [{}, {"access_rules": [other]}, {"access_rules": [*rules, other]}]
    for asked in more:
        answer = program.post(path, {"application_credential": {"name": "second", **asked}})
        assert (answer.status_code, "some of these" in answer.text) == (403, True)
    assert maker.credential(program, name="second", access_rules=rules)["access_rules"][0]["path"] == f"/v3{path}"
    maker.credential(program, name="third", access_rules=[])


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/compute/v2.1/servers/x/ips", True),
        ("/compute/v2.1/servers/x/y/ips", False),
        ("/compute/v2.1/servers//ips", False),
        ("/compute/v2.1/servers/x/ips/z", False),
        ("/compute/v2.1/servers/x", False),
        ("/network/x/v2.1/servers/x/ips", False),
    ],
)
def test_a_star_is_one_part_of_a_path(path: str, allowed: bool) -> None:
    for text in ("/v2.1/servers/*/ips", "/v2.1/servers/{server_id}/ips", "/compute/v2.1/servers/*/ips"):
        rule = AccessRule(id="x", user_id="x", service="compute", method="GET", path=text)
        assert allows([rule], "compute", "GET", path) is allowed
        assert not allows([rule], "compute", "POST", path)
        assert not allows([rule], "network", "GET", path)
    anything = AccessRule(id="x", user_id="x", service="compute", method="GET", path="/v2.1/**")
    assert allows([anything], "compute", "GET", "/compute/v2.1/servers/a/b")


def test_a_rule_has_so_many_wildcards_and_no_more(maker: Maker) -> None:
    path = "/" + "**a" * application_credentials.MOST_WILDCARDS
    program = maker.enter(maker.credential(access_rules=[{"service": "identity", "method": "GET", "path": path}]))
    assert program.get("/auth/projects/" + "a" * 60_000).status_code == 401
    rules = [{"service": "compute", "method": "GET", "path": f"{path}**"}]
    body = {"application_credential": {"name": "second", "access_rules": rules}}
    answer = maker.session().post(f"/users/{maker.ids['maker']}/application_credentials", body)
    assert (answer.status_code, "wildcards" in answer.text) == (400, True)


def test_a_rule_in_use_stays_and_one_that_is_not_goes(maker: Maker) -> None:
    rules = [{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]
    made, session = maker.credential(access_rules=rules), maker.session()
    again = maker.credential(name="again", access_rules=rules)
    assert made["access_rules"] == again["access_rules"]
    path = f"/users/{maker.ids['maker']}/access_rules/{made['access_rules'][0]['id']}"
    assert session.delete(path).status_code == 403
    for one in (made, again):
        session.delete(f"/users/{maker.ids['maker']}/application_credentials/{one['id']}")
    assert session.delete(path).status_code == 204


Act = Callable[[Maker, Session, dict[str, object]], object]


def disabled(path: str) -> Act:
    kind = path.split("/")[1][:-1]
    return lambda m, s, made: m.admin.patch(path.format(home=m.home, **m.ids), {kind: {"enabled": False}})


def deleted(path: str) -> Act:
    return lambda m, s, made: m.admin.delete(path.format(home=m.home, **m.ids))


def new_password(name: str) -> Act:
    body = {"user": {"original_password": f"{name}-own", "password": "another-one"}}
    return lambda m, s, made: m.place.nobody.post(f"/users/{m.ids[name]}/password", body)


ACTS: dict[str, Act] = {
    "its maker is disabled": disabled("/users/{maker}"),
    "its maker is deleted": deleted("/users/{maker}"),
    "its maker has another password": new_password("maker"),
    "the project is disabled": disabled("/projects/{home}"),
    "the project is deleted": deleted("/projects/{home}"),
    "its maker loses the role": lambda m, s, made: m.admin.delete(m.grants[1]),
    "the role is deleted": lambda m, s, made: m.admin.delete(f"/roles/{m.extra}"),
    "it ends by itself": lambda m, s, made: m.place.clock.advance(61),
}
OF_CREDENTIALS: dict[str, Act] = {
    **ACTS,
    "it is deleted": lambda m, s, made: s.delete(f"/users/{m.ids['maker']}/application_credentials/{made['id']}"),
    "an administrator deletes it": lambda m, s, made: m.admin.delete(
        f"/users/{m.ids['maker']}/application_credentials/{made['id']}"
    ),
}
OF_TRUSTS: dict[str, Act] = {
    **ACTS,
    "its user is disabled": disabled("/users/{helper}"),
    "its user is deleted": deleted("/users/{helper}"),
    "its user has another password": new_password("helper"),
    "it is deleted": lambda m, s, made: s.delete(f"/OS-TRUST/trusts/{made['id']}"),
    "an administrator deletes it": lambda m, s, made: m.admin.delete(f"/OS-TRUST/trusts/{made['id']}"),
}


def in_a_minute(maker: Maker) -> str:
    return f"{iso_us(maker.place.clock.now_us() + 60_000_000)}Z"


@pytest.mark.parametrize("act", OF_CREDENTIALS)
def test_a_program_s_token_ends_with_what_it_rests_on(maker: Maker, act: str) -> None:
    owner = maker.session()
    made = maker.credential(roles=[{"name": "extra"}], expires_at=in_a_minute(maker))
    program = maker.enter(made)
    assert program.still_counts()
    answer = OF_CREDENTIALS[act](maker, owner, made)
    assert getattr(answer, "status_code", 204) in (200, 204)
    assert not program.still_counts()
    if act != "its maker has another password":
        assert maker.enter(made).token is None


@pytest.mark.parametrize("impersonation", [True, False])
@pytest.mark.parametrize("act", OF_TRUSTS)
def test_a_trust_s_token_ends_with_what_it_rests_on(maker: Maker, act: str, impersonation: bool) -> None:
    owner = maker.session()
    made = maker.trust(impersonation=impersonation, expires_at=in_a_minute(maker))
    token = maker.use(made)
    assert token.body["user"]["id"] == maker.ids["maker" if impersonation else "helper"]
    assert token.body["OS-TRUST:trust"]["id"] == made["id"]
    assert names(token) == {"extra"}
    assert token.still_counts()
    answer = OF_TRUSTS[act](maker, owner, made)
    assert getattr(answer, "status_code", 204) in (200, 204)
    assert not token.still_counts()
    if act != "its maker has another password":
        assert maker.refused(made) in (401, 403, 404)


def test_a_trust_is_its_user_s_alone_and_gives_only_what_its_maker_holds(maker: Maker) -> None:
    trust = maker.trust()
    assert maker.refused(trust, "third") == 403
    assert maker.refused({"id": "0" * 32}) == 404
    owner = maker.session()
    for changes in ({"roles": [{"name": "admin"}]}, {"roles": [{"id": "0" * 32}]}, {"trustee_user_id": "nobody"}):
        assert owner.post("/OS-TRUST/trusts", {"trust": maker.new_trust(**changes)}).status_code == 404
    wrong: list[JsonObject] = [{"roles": []}, {"trustor_user_id": maker.ids["third"]}]
    for refused in wrong:
        assert owner.post("/OS-TRUST/trusts", {"trust": maker.new_trust(**refused)}).status_code == 403
    for never in ("bad", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999999", "0001-01-01T00:00:00+14:00"):
        assert owner.post("/OS-TRUST/trusts", {"trust": maker.new_trust(expires_at=never)}).status_code == 400


def test_a_trust_is_used_so_often_and_no_more(maker: Maker) -> None:
    trust = maker.trust(remaining_uses=2)
    tokens = [maker.use(trust), maker.use(trust)]
    assert maker.refused(trust) == 404
    assert all(token.still_counts() for token in tokens)
    assert maker.session().delete(f"/OS-TRUST/trusts/{trust['id']}").status_code == 204
    assert not any(token.still_counts() for token in tokens)
    assert maker.session().delete(f"/OS-TRUST/trusts/{trust['id']}").status_code == 404


def test_a_trust_s_token_makes_no_other_token_and_no_credential(maker: Maker) -> None:
    token = maker.use(maker.trust())
    assert maker.place.exchange(token, UNSCOPED).status_code == 403
    path = f"/users/{maker.ids['maker']}/application_credentials"
    assert token.post(path, {"application_credential": {"name": "backdoor"}}).status_code == 403
    assert token.get(path).status_code == 403


def test_a_trust_is_passed_on_as_far_as_it_may_be_and_gives_no_more(maker: Maker) -> None:
    first = maker.trust(allow_redelegation=True, redelegation_count=1, roles=[{"name": "member"}, {"name": "extra"}])
    passing = maker.use(first)
    more = {"trustee_user_id": maker.ids["third"], "expires_at": None}
    second = maker.trust(passing, **more)
    assert second["redelegated_trust_id"] == first["id"]
    token = maker.use(second, "third")
    assert names(token) == {"extra"}
    # Not once more, and not after the first is gone.
    again = token.post("/OS-TRUST/trusts", {"trust": maker.new_trust()})
    assert again.status_code == 403
    assert maker.session().delete(f"/OS-TRUST/trusts/{first['id']}").status_code == 204
    assert not token.still_counts()
    assert maker.refused(second, "third") == 404
    plain = maker.use(maker.trust())
    assert plain.post("/OS-TRUST/trusts", {"trust": maker.new_trust()}).status_code == 403


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"roles": [{"name": "member"}]}, "roles are not in redelegated trust"),
        ({"expires_at": "2100-01-01T00:00:00Z"}, "expiration time is more"),
        ({"remaining_uses": 1}, "must not be set in order to redelegate"),
        ({"impersonation": True}, "Impersonation is not allowed"),
        ({"project_id": "elsewhere"}, "for its own project only"),
        ({"allow_redelegation": True, "redelegation_count": 4}, "greater than allowed"),
        ({"allow_redelegation": True, "redelegation_count": 3}, "Modifying"),
    ],
)
def test_a_trust_that_is_passed_on_gives_no_more(maker: Maker, more: JsonObject, words: str) -> None:
    maker.ids["elsewhere"] = maker.admin.made("project", "projects", name="elsewhere")["id"]
    first = maker.trust(impersonation=False, allow_redelegation=True, expires_at=in_a_minute(maker))
    assert first["redelegation_count"] == trusts.MOST_REDELEGATIONS
    own = {"trustor_user_id": maker.ids["helper"], "trustee_user_id": maker.ids["third"], "impersonation": False}
    passing = maker.use(first)
    asked = {**own, **more, "project_id": maker.ids.get(more.get("project_id", ""), maker.home)}
    answer = passing.post("/OS-TRUST/trusts", {"trust": maker.new_trust(**asked)})
    assert (answer.status_code, words in answer.text) == (403, True), answer.text
    token = maker.use(maker.trust(passing, **own), "third")
    assert names(token) == {"extra"}, "who passes it on need not hold it"
    assert maker.admin.delete(maker.grants[1]).status_code == 204
    assert not token.still_counts(), "who made the first one must"


def test_who_is_trusted_with_admin_is_protected_as_an_administrator(maker: Maker) -> None:
    admin = maker.admin
    admins_project, admin_id = admin.id_of("projects", "admin"), admin.body["user"]["id"]
    head = admin.made("user", "users", name="head", password="heads-own")["id"]
    admin.put(f"/domains/default/users/{head}/roles/{maker.roles['manager']}")
    manager = maker.place.login("head", "heads-own", {"domain": {"id": "default"}})
    body = {"user": {"password": "taken-over"}}
    assert manager.patch(f"/users/{maker.ids['third']}", body).status_code == 200
    trust = maker.new_trust(trustor_user_id=admin_id, project_id=admins_project, roles=[{"name": "admin"}])
    assert admin.post("/OS-TRUST/trusts", {"trust": trust}).status_code == 201
    assert manager.patch(f"/users/{maker.ids['helper']}", body).status_code == 403


def test_there_are_so_many_and_no_more(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application_credentials, "MOST_OF_USER", 1)
    monkeypatch.setattr(trusts, "MOST_OF_TRUSTOR", 1)
    maker.credential()
    maker.trust()
    owner = maker.session()
    path = f"/users/{maker.ids['maker']}/application_credentials"
    assert owner.post(path, {"application_credential": {"name": "second"}}).status_code == 403
    assert owner.post("/OS-TRUST/trusts", {"trust": maker.new_trust()}).status_code == 403
    monkeypatch.setattr(application_credentials, "MOST_OF_USER", 2)
    monkeypatch.setattr(application_credentials, "MOST_RULES_OF_USER", 1)
    rules = [{"service": "compute", "method": "GET", "path": f"/v2.1/{name}"} for name in ("servers", "flavors")]
    body = {"application_credential": {"name": "second", "access_rules": rules}}
    assert owner.post(path, body).status_code == 403


def test_room_is_made_by_trusts_that_were_used_up_and_their_tokens_end(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusts, "MOST_OF_TRUSTOR", 1)
    token = maker.use(maker.trust(remaining_uses=1))
    assert token.still_counts()
    maker.trust()
    assert not token.still_counts()


def test_a_program_does_not_choose_its_scope(maker: Maker) -> None:
    made = maker.credential()
    method = {"id": made["id"], "secret": made["secret"]}
    identity = {"methods": ["application_credential"], "application_credential": method}
    for scope in (SYSTEM, UNSCOPED, project("home")):
        assert maker.place.authenticate({"identity": identity, "scope": scope}).status_code == 401
