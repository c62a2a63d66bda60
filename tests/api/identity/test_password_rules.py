"""Rules for passwords that an operator sets: their end, first use, history, least age, and locking users out."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from cumulet.testing import JsonObject
from tests.api.identity.maker import Maker
from tests.api.identity.place import V3, Place, password_auth

DAY = 24 * 3600
FIRST = "the first password"


class Somebody:
    """A user with a password, in a place with these settings."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        options, first = settings.pop("options", {}), settings.pop("first", FIRST)
        self.place = Place(folder, **settings)
        made = self.place.admin().made("user", "users", name="u", password=first, options=options)
        self.id = str(made["id"])

    def log_in(self, password: str = FIRST) -> httpx.Response:
        return self.place.authenticate(password_auth({"id": self.id}, password))

    def change(self, old: str, new: str) -> httpx.Response:
        body = {"user": {"original_password": old, "password": new}}
        return self.place.nobody.post(f"/users/{self.id}/password", body)

    def shown(self) -> JsonObject:
        found: dict[str, object] = self.place.admin().get(f"/users/{self.id}").json()["user"]
        return found

    def set(self, **changes: object) -> None:
        answer = self.place.admin().patch(f"/users/{self.id}", {"user": changes})
        assert answer.status_code == 200, answer.text


def exempt_administrator(place: Place) -> None:
    admin = place.admin()
    exempt = {"user": {"options": {"ignore_user_inactivity": True}}}
    assert admin.patch(f"/users/{admin.id_of('users', 'admin')}", exempt).is_success


def writes_of(place: Place) -> list[str]:
    """The statements that write, from now on."""
    writes: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "pg_logical_emit_message" in statement:
            writes.append("INSERT words in PostgreSQL's log, where elsewhere there is a row")
        elif statement.split()[0] in ("INSERT", "UPDATE", "DELETE"):
            writes.append(statement)

    event.listen(place.database.engine, "before_cursor_execute", note)
    return writes


def test_by_default_no_password_ends_and_any_may_follow(tmp_path: Path) -> None:
    user = Somebody(tmp_path)
    user.place.clock.advance(5000 * DAY)
    assert user.log_in().json()["token"]["user"]["password_expires_at"] is None
    assert user.shown()["password_expires_at"] is None
    assert user.change(FIRST, FIRST).status_code == 204
    user.place.close()


def test_a_password_ends_and_its_user_changes_it(tmp_path: Path) -> None:
    user = Somebody(tmp_path, password_expires_days=30)
    place = user.place
    ends = user.shown()["password_expires_at"]
    assert ends == user.log_in().json()["token"]["user"]["password_expires_at"] == "2027-02-14T08:00:00.000000"
    admin = place.admin()
    for query, found in (
        ("lt:2027-02-15T00:00:00Z", 1),
        ("gte:2027-02-15T00:00:00Z", 0),
        ("eq:2027-02-14T08:00:00Z", 1),
    ):
        users = admin.get(f"/users?password_expires_at={query}").json()["users"]
        assert len(users) == found, query
    for query in ("2027-02-15T00:00:00Z", "at:2027-02-15T00:00:00Z", "lt:tomorrow"):
        assert admin.get(f"/users?password_expires_at={query}").status_code == 400
    place.clock.advance(30 * DAY - 1)
    assert user.log_in().status_code == 201
    place.clock.advance(1)
    answer = user.log_in()
    assert (answer.status_code, "expired" in answer.text) == (401, True)
    # Who does not know it learns nothing.
    assert "expired" not in user.log_in("something else").text
    assert user.change("something else", "another password").status_code == 401
    assert user.change(FIRST, "another password").status_code == 204
    assert user.log_in("another password").status_code == 201
    assert user.shown()["password_expires_at"] == "2027-03-16T08:00:00.000000"
    place.close()


def test_users_are_exempt_by_their_options(tmp_path: Path) -> None:
    user = Somebody(tmp_path, password_expires_days=1, options={"ignore_password_expiry": True})
    assert user.shown()["password_expires_at"] is None
    user.set(options={"ignore_password_expiry": False}, password=FIRST)
    user.place.clock.advance(DAY)
    assert user.log_in().status_code == 401
    user.set(options={"ignore_password_expiry": True})
    assert user.log_in().status_code == 201
    user.place.close()


def test_a_password_that_an_administrator_set_is_changed_first(tmp_path: Path) -> None:
    user = Somebody(tmp_path, change_password_upon_first_use=True)
    assert user.log_in().status_code == 401
    assert user.change(FIRST, "my own password").status_code == 204
    assert user.log_in("my own password").status_code == 201
    user.set(password="set anew by the admin")
    assert user.log_in("set anew by the admin").status_code == 401
    user.set(password=FIRST, options={"ignore_change_password_upon_first_use": True})
    assert user.log_in().status_code == 201
    user.place.close()


def test_the_next_password_is_none_of_the_last_ones(tmp_path: Path) -> None:
    user = Somebody(tmp_path, password_history=3)
    names = [FIRST, "second password", "third password", "fourth password"]
    for old, new in itertools.pairwise(names):
        assert user.change(old, new).status_code == 204, new
    for earlier in names[1:]:
        answer = user.change(names[3], earlier)
        assert (answer.status_code, "identical to a previous password" in answer.text) == (400, True), earlier
    assert user.log_in(names[3]).status_code == 201
    # An administrator may set any, and it counts.
    user.set(password=names[2])
    assert user.change(names[2], names[3]).status_code == 400
    assert user.change(names[2], FIRST).status_code == 204
    user.place.close()


def test_a_password_is_kept_for_a_while(tmp_path: Path) -> None:
    user = Somebody(tmp_path, password_minimum_age_days=2)
    # What an administrator has set may be changed at once.
    assert user.change(FIRST, "second password").status_code == 204
    answer = user.change("second password", "third password")
    assert (answer.status_code, "2 day" in answer.text) == (400, True)
    user.place.clock.advance(2 * DAY - 1)
    assert user.change("second password", "third password").status_code == 400
    user.place.clock.advance(1)
    assert user.change("second password", "third password").status_code == 204
    user.set(password=FIRST)
    assert user.change(FIRST, "fourth password").status_code == 204
    user.place.close()


def test_a_new_password_matches_the_operator_s_pattern(tmp_path: Path) -> None:
    pattern, words = r"(?=.*\d)(?=.*[a-z]).{8,}$", "a letter and a digit"
    user = Somebody(tmp_path, password_regex=pattern, password_regex_description=words, first="1st password")
    place, admin = user.place, user.place.admin()
    weak = {"user": {"name": "weak", "password": FIRST}}
    for refused in (
        admin.post("/users", weak),
        admin.patch(f"/users/{user.id}", {"user": {"password": FIRST}}),
        user.change("1st password", FIRST),
        user.change("1st password", "12345678"),
    ):
        assert (refused.status_code, words in refused.text) == (400, True), refused.text
    assert admin.get("/users?name=weak").json()["users"] == []
    assert user.change("1st password", "2nd password").status_code == 204
    assert user.log_in("2nd password").status_code == 201
    shown = {"password_regex": pattern, "password_regex_description": words}
    path = "/domains/default/config/security_compliance"
    anybody = place.login("demo")
    assert anybody.get(path).json() == {"config": {"security_compliance": shown}}
    assert anybody.get(f"{path}/password_regex").json() == {"config": {"password_regex": pattern}}
    place.close()


def test_too_many_wrong_passwords_lock_a_user_for_a_while(tmp_path: Path) -> None:
    user = Somebody(tmp_path, lockout_failures=3, lockout_seconds=600)
    place = user.place
    for _ in range(2):
        assert user.log_in("wrong password").status_code == 401
    assert user.log_in().status_code == 201
    for _ in range(3):
        place.address = f"192.0.2.{_ + 2}"
        assert user.log_in("wrong password").status_code == 401
    place.address = "192.0.2.9"
    locked, wrong = user.log_in(), user.log_in("wrong password")
    # Nobody is told that it is the lock.
    assert (locked.status_code, locked.json()) == (wrong.status_code, wrong.json()) == (401, wrong.json())
    assert user.change(FIRST, "another password").status_code == 401
    place.clock.advance(599)
    assert user.log_in().status_code == 401
    place.clock.advance(1)
    assert user.log_in().status_code == 201
    for _ in range(3):
        user.log_in("wrong password")
    assert user.log_in().status_code == 401
    user.set(enabled=True)
    assert user.log_in().status_code == 201
    # After a lock has ended, the next one takes as many failures again.
    for _ in range(3):
        user.log_in("wrong password")
    place.clock.advance(601)
    assert user.log_in("wrong password").status_code == 401
    assert user.log_in().status_code == 201
    user.set(options={"ignore_lockout_failure_attempts": True})
    place.clock.advance(601)
    for _ in range(5):
        user.log_in("wrong password")
    assert user.log_in().status_code == 201
    place.close()


def test_right_passwords_of_a_user_who_is_disabled_lock_nobody(tmp_path: Path) -> None:
    user = Somebody(tmp_path, lockout_failures=2, disable_user_account_days_inactive=30)
    exempt_administrator(user.place)
    user.place.clock.advance(30 * DAY)
    assert [user.log_in().status_code for _ in range(3)] == [401] * 3
    user.set(options={"ignore_user_inactivity": True})
    assert user.log_in().status_code == 201
    user.place.close()


def test_every_refused_login_writes_once_so_that_its_time_tells_nothing(tmp_path: Path) -> None:
    """Whether the user exists, is locked, disabled or exempt, and whether the password is right."""
    user = Somebody(tmp_path, lockout_failures=2)
    place = user.place
    admin = place.admin()
    exempt, disabled = (
        admin.made("user", "users", name=name, password=FIRST, **more)["id"]
        for name, more in (
            ("exempt", {"options": {"ignore_lockout_failure_attempts": True}}),
            ("disabled", {"enabled": False}),
        )
    )

    writes = writes_of(place)
    nowhere: dict[str, object] = {"name": "u", "domain": {"id": "nowhere"}}
    tries: list[tuple[dict[str, object], str]] = [
        ({"id": user.id}, "wrong password"),
        ({"id": user.id}, "wrong password"),
        ({"id": user.id}, "wrong password, and locked"),
        ({"id": user.id}, FIRST),
        ({"id": "nobody"}, FIRST),
        (nowhere, FIRST),
        ({"id": exempt}, "wrong password"),
        ({"id": disabled}, "wrong password"),
        ({"id": disabled}, FIRST),
    ]
    for n, (named, password) in enumerate(tries):
        writes.clear()
        assert place.authenticate(password_auth(named, password)).status_code == 401
        assert sorted(one.split()[0] for one in writes) == ["DELETE", "INSERT"], n
    writes.clear()
    assert place.authenticate(password_auth({"id": exempt}, FIRST)).status_code == 201
    assert writes == []
    place.close()


def test_passwords_that_are_tried_at_once_count_as_those_tried_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = Somebody(tmp_path, lockout_failures=3)
    place = user.place
    begun, others_ended = asyncio.Event(), asyncio.Event()
    compare = place.identity.passwords.matches

    async def matches(password_hash: str | None, password: str) -> bool:
        if password == FIRST:
            begun.set()
            await others_ended.wait()
        return await compare(password_hash, password)

    async def status(password: str) -> int:
        auth = {"auth": password_auth({"id": user.id}, password)}
        return (await place._client.post(f"{V3}/auth/tokens", json=auth)).status_code

    async def all_at_once() -> list[int]:
        right = asyncio.create_task(status(FIRST))
        await begun.wait()
        wrong = [await status("wrong password") for _ in range(3)]
        others_ended.set()
        return [*wrong, await right]

    monkeypatch.setattr(place.identity.passwords, "matches", matches)
    assert place._runner.run(all_at_once()) == [401] * 4
    place.close()


def test_a_user_who_has_not_logged_in_for_long_is_disabled(tmp_path: Path) -> None:
    user = Somebody(tmp_path, disable_user_account_days_inactive=30, password_expires_days=0)
    place = user.place
    exempt_administrator(place)
    for _ in range(3):  # Each login counts anew.
        place.clock.advance(29 * DAY)
        assert user.log_in().status_code == 201
        assert user.shown()["enabled"] is True
    place.clock.advance(30 * DAY)
    assert user.shown()["enabled"] is False
    refused, unknown = user.log_in(), place.authenticate(password_auth({"id": "nobody"}, FIRST))
    assert (refused.status_code, refused.json()) == (unknown.status_code, unknown.json()) == (401, unknown.json())
    assert user.change(FIRST, "another password").status_code == 401
    user.set(options={"ignore_user_inactivity": True})
    assert user.shown()["enabled"] is True
    assert user.log_in().status_code == 201
    place.clock.advance(31 * DAY)
    assert user.log_in().status_code == 201, "exempt"
    user.set(options={"ignore_user_inactivity": False})
    place.clock.advance(31 * DAY)
    assert user.log_in().status_code == 401
    user.set(enabled=True)
    assert user.log_in().status_code == 201, "an administrator has enabled it"
    place.close()


def test_a_user_who_never_logged_in_counts_from_when_it_was_made(tmp_path: Path) -> None:
    user = Somebody(tmp_path, disable_user_account_days_inactive=2)
    user.place.clock.advance(2 * DAY)
    assert user.log_in().status_code == 401
    user.place.close()


def test_by_default_nobody_is_disabled_for_being_idle(tmp_path: Path) -> None:
    user = Somebody(tmp_path)
    user.place.clock.advance(5000 * DAY)
    assert user.shown()["enabled"] is True
    assert user.log_in().status_code == 201
    user.place.close()


def test_an_idle_user_gets_no_token_by_what_it_made_before(tmp_path: Path) -> None:
    """An application credential, and an earlier token, as examples of logins without a password."""
    place = Place(tmp_path, disable_user_account_days_inactive=2, token_life_seconds=9 * DAY)
    demo = place.login("demo", scope={"project": {"name": "demo", "domain": {"id": "default"}}})
    path = f"/users/{demo.body['user']['id']}/application_credentials"
    made = demo.post(path, {"application_credential": {"name": "robot"}}).json()["application_credential"]
    shown = {"id": made["id"], "secret": made["secret"]}
    auth = {"identity": {"methods": ["application_credential"], "application_credential": shown}}
    assert place.authenticate(auth).status_code == 201
    place.clock.advance(DAY)
    assert place.authenticate(auth).status_code == 201
    assert place.exchange(demo).status_code == 201
    place.clock.advance(DAY)
    assert place.authenticate(auth).status_code == 401, "only a password counts as activity"
    assert place.exchange(demo).status_code == 401
    place.close()


@pytest.mark.parametrize("impersonation", [True, False])
def test_nobody_acts_for_an_idle_user(tmp_path: Path, impersonation: bool) -> None:
    """Who is trusted logs in every day, and who trusts them does not."""
    place = Place(tmp_path, disable_user_account_days_inactive=2)
    maker = Maker(place)
    trust = maker.trust(impersonation=impersonation)
    place.clock.advance(DAY)
    assert maker.use(trust).token is not None
    place.clock.advance(DAY)
    assert maker.session("helper").token is not None
    assert maker.refused(trust) == 401
    place.close()


def test_that_a_user_was_active_is_written_once_a_day(tmp_path: Path) -> None:
    user = Somebody(tmp_path)
    place = user.place
    place.clock.advance(DAY)
    writes = writes_of(place)
    for _ in range(3):
        assert user.log_in().status_code == 201
    assert [one.split()[1] for one in writes] == ["identity_users"]
    assert user.log_in("wrong password").status_code == 401
    assert len(writes) == 1
    place.close()
