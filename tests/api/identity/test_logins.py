"""Logging in. Whoever guesses learns nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import argon2
import pytest

from cumulet.identity import bootstrap, store
from cumulet.web.audit import Audit
from tests.api.identity.place import Place, password_auth, project

REFUSAL = "The request you have made requires authentication."


def attempt(place: Place, user: Mapping[str, object] | str, password: str, scope: object = None) -> tuple[int, str]:
    answer = place.authenticate(password_auth(user, password, scope))
    return answer.status_code, answer.json().get("error", {}).get("message", "")


def test_nobody_can_tell_why_a_login_was_refused(place: Place) -> None:
    admin = place.admin()
    admin.made("user", "users", name="locked", domain_id="default", password="right-one", enabled=False)
    admin.made("user", "users", name="passwordless", domain_id="default")
    domain = admin.made("domain", "domains", name="closed")["id"]
    admin.made("user", "users", name="inside", domain_id=domain, password="right-one")
    admin.patch(f"/domains/{domain}", {"domain": {"enabled": False}})
    answers = [
        place.authenticate(password_auth(user, "right-one"))
        for user in (
            "demo",
            "nobody",
            "locked",
            "passwordless",
            {"id": "0" * 32},
            {"name": "inside", "domain": {"id": domain}},
            {"name": "inside", "domain": {"name": "no such domain"}},
        )
    ]
    assert {(a.status_code, a.text) for a in answers} == {(401, answers[0].text)}
    assert answers[0].json()["error"]["message"] == REFUSAL
    assert len({frozenset(a.headers) for a in answers}) == 1


@pytest.mark.parametrize(
    "scope",
    [
        project("admin"),
        project("no such project"),
        {"project": {"id": "0" * 32}},
        {"project": {"name": "demo", "domain": {"id": "no such domain"}}},
        {"domain": {"id": "default"}},
        {"domain": {"name": "no such domain"}},
        {"system": {"all": True}},
    ],
)
def test_a_scope_out_of_reach_is_refused_like_one_that_is_not_there(place: Place, scope: object) -> None:
    assert attempt(place, "demo", place.passwords.by_user["demo"], scope) == (401, REFUSAL)


@pytest.mark.parametrize("user", ["demo", "nobody", {"id": "0" * 32}])
def test_after_ten_failures_in_a_minute_even_the_right_password_must_wait(
    place: Place, user: Mapping[str, object] | str
) -> None:
    assert {attempt(place, user, f"guess {n}")[0] for n in range(10)} == {401}
    place.clock.advance(20)
    refused = place.authenticate(password_auth(user, place.passwords.by_user["demo"]))
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "40"
    place.clock.advance(40)
    assert attempt(place, user, "guess")[0] == 401


def test_the_limit_counts_for_one_user_at_one_address_and_only_failures(place: Place) -> None:
    demo = place.admin().id_of("users", "demo")
    right = place.passwords.by_user["demo"]
    for _ in range(20):
        assert attempt(place, "demo", right)[0] == 201
    for _ in range(10):
        attempt(place, "demo", "wrong")
    assert attempt(place, {"id": demo}, right)[0] == 429  # by another name, the same user
    assert attempt(place, "admin", place.passwords.by_user["admin"])[0] == 201
    place.address = "192.0.2.2"
    assert attempt(place, "demo", right)[0] == 201


def test_changing_ones_password_is_limited_alike(place: Place) -> None:
    demo = place.admin().id_of("users", "demo")

    def change(original: str) -> int:
        body = {"user": {"original_password": original, "password": "a-new-one"}}
        return place.nobody.post(f"/users/{demo}/password", body).status_code

    assert {change("wrong") for _ in range(10)} == {401}
    assert change(place.passwords.by_user["demo"]) == 429
    assert attempt(place, "demo", place.passwords.by_user["demo"])[0] == 429
    place.clock.advance(60)
    assert change(place.passwords.by_user["demo"]) == 204
    assert attempt(place, "demo", "a-new-one")[0] == 201


def test_a_password_and_a_token_of_two_users_do_not_add_up(place: Place) -> None:
    admin = place.admin()
    auth = password_auth("demo", place.passwords.by_user["demo"])
    auth["identity"] |= {"methods": ["password", "token"], "token": {"id": admin.token}}
    assert place.authenticate(auth).status_code == 401
    auth["identity"]["token"] = {"id": place.login("demo").token}
    assert place.authenticate(auth).status_code == 201


def test_passwords_and_tokens_stay_out_of_answers_and_logs(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    admin = place.admin()
    secret = "correct horse"
    texts = [
        admin.post("/users", {"user": {"name": "u", "password": secret}}).text,
        admin.post("/users", {"user": {"name": 5, "password": secret}}).text,
        admin.post("/users", {"user": {"name": "u", "password": [secret]}}).text,
        admin.get("/users").text,
        place.authenticate(password_auth("u", secret)).text,
        place.authenticate(password_auth("u", "wrong " + secret)).text,
        place.authenticate({"identity": {"methods": ["password"], "password": {"user": {"password": secret}}}}).text,
        place.authenticate({"identity": {"methods": "password", "password": secret}}).text,
        caplog.text,
    ]
    assert not [text for text in texts if secret in text or str(admin.token) in text or "argon2" in text]


def test_who_has_logged_in_is_kept_and_a_name_that_was_only_claimed_is_not(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    password = place.passwords.by_user["demo"]
    session = place.login("demo", scope=project("demo"))
    demo = session.body["user"]["id"]
    credential = session.made("application_credential", f"users/{demo}/application_credentials", name="program")
    shown = {"id": credential["id"], "secret": credential["secret"]}
    change = {"user": {"original_password": password, "password": "a-new-one"}}
    caplog.set_level("INFO", "cumulet.access")
    caplog.clear()
    place.app._audit = audit = Audit(tmp_path / "audit.jsonl")
    answers = [
        place.authenticate(password_auth("demo", password)),
        place.authenticate({"identity": {"methods": ["token"], "token": {"id": session.token}}}),
        place.authenticate({"identity": {"methods": ["application_credential"], "application_credential": shown}}),
        place.authenticate(password_auth("demo", "wrong")),
        place.authenticate(password_auth("demo", password, {"project": {"id": "0" * 32}})),
        place.nobody.get(""),
        place.nobody.post(f"/users/{demo}/password", change),
        place.nobody.post(f"/users/{demo}/password", change),
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 401, 401, 200, 204, 401]
    lines = [record for record in caplog.records if record.name == "cumulet.access"]
    assert [vars(line)["user_id"] for line in lines] == [demo, demo, demo, None, None, None, demo, None]
    audit.close()
    events = [json.loads(text) for text in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [event["initiator"]["id"] for event in events] == [demo, demo, demo, None, None, demo, None]


@pytest.mark.parametrize("name", ["demo", "nobody"])
def test_other_ways_to_name_the_same_user_do_not_tell_whether_it_exists(place: Place, name: str) -> None:
    ways: list[dict[str, object]] = [
        {"name": name, "domain": {"id": "default"}},
        {"name": name, "domain": {"name": "Default"}},
        {"name": name, "domain": {"id": "default", "name": "ignored"}},
    ]
    statuses = [attempt(place, ways[n % 3], "wrong")[0] for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2


@pytest.mark.parametrize("known", [True, False])
def test_a_name_beside_an_id_gives_no_further_attempts(place: Place, known: bool) -> None:
    user = place.admin().id_of("users", "demo") if known else "0" * 32
    statuses = [attempt(place, {"id": user, "domain": {"id": str(n)}, "name": str(n)}, "wrong")[0] for n in range(11)]
    assert statuses == [401] * 10 + [429]


def test_every_login_costs_one_comparison_of_the_same_price(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = place.admin()
    admin.made("user", "users", name="locked", domain_id="default", password="right-one", enabled=False)
    admin.made("user", "users", name="passwordless", domain_id="default")
    compared: list[str] = []
    verify = argon2.PasswordHasher.verify

    def counting(hasher: argon2.PasswordHasher, stored: str, password: str) -> bool:
        compared.append(stored.rsplit("$", 2)[0])
        found: bool = verify(hasher, stored, password)
        return found

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counting)
    for user in ("demo", "locked", "passwordless", "nobody", {"id": "0" * 32}):
        attempt(place, user, "wrong")
    attempt(place, "demo", place.passwords.by_user["demo"])
    assert compared == ["$argon2id$v=19$m=64,t=2,p=1"] * 6


def test_a_hash_made_with_other_settings_is_renewed_at_the_next_login(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"
    cheap = Place(tmp_path, url, argon2_memory_kib=64)
    passwords = cheap.passwords.by_user
    bootstrap.write_clouds_yaml(tmp_path / "clouds.yaml", auth_url="", cacert=None, passwords=passwords, region="R")
    cheap.close()
    dear = Place(tmp_path, url, argon2_memory_kib=128)

    def stored() -> str:
        user = dear.database.read(lambda tx: store.user_by_name(tx, "default", "demo"))
        assert user is not None
        return str(user.password_hash)

    assert attempt(dear, "demo", "wrong")[0] == 401
    assert "m=64," in stored()
    assert attempt(dear, "demo", passwords["demo"])[0] == 201
    assert "m=128," in stored()
    assert attempt(dear, "demo", passwords["demo"])[0] == 201
    dear.close()


def test_a_body_without_a_token_is_short(place: Place) -> None:
    auth = password_auth("demo", place.passwords.by_user["demo"])
    assert place.authenticate(auth | {"padding": "x" * 40_000}).status_code == 413
    name = {"user": {"name": "x" * 40_000}}  # with a token it may be longer, and is refused for what it says
    assert place.admin().post("/users", name).status_code == 400
