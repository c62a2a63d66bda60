"""OAuth 1.0a: a consumer asks, a user consents, the consumer logs in as the user with the roles it was given."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Table, select

from cumulet.db.engine import Tx
from cumulet.identity import expired, oauth1_consumers, oauth1_requests, oauth1_store, oauth1_tokens
from cumulet.identity.key_rotation import rotate_keys
from cumulet.identity.oauth1_signatures import is_signed, read
from cumulet.testing import JsonObject
from tests.api.identity.oauth import authorization, read_token
from tests.api.identity.place import UNSCOPED, V3, Place, Session, project

CONSUMERS = "/OS-OAUTH1/consumers"


class Story:
    """An administrator, and a consumer that they made."""

    def __init__(self, place: Place) -> None:
        self.place, self.admin = place, place.admin()
        self.user = self.admin.body["user"]["id"]
        self.project = self.admin.body["project"]["id"]
        self.consumer = self.admin.made("consumer", CONSUMERS[1:], description="a program")
        self.path = f"/users/{self.user}/OS-OAUTH1/access_tokens"
        self._nonces = itertools.count()

    def signed(self, path: str, token: dict[str, str] | None = None, **more: str) -> dict[str, str]:
        now = self.place.clock.now_us() / 1e6
        seconds = float(more.pop("seconds", now))
        nonce = more.pop("nonce", f"{next(self._nonces)}")
        secret = more.pop("secret", self.consumer["secret"])
        consumer = {"id": more.pop("consumer", self.consumer["id"]), "secret": secret}
        return authorization(f"{V3}{path}", seconds, nonce, consumer, token, **more)

    def post(self, path: str, headers: dict[str, str], body: object = None) -> httpx.Response:
        return self.place.nobody.request("POST", path, body, headers)

    def ask(self, **more: str) -> httpx.Response:
        """Ask for a request token."""
        asked = {"callback": "oob", **more}
        headers = {"Requested-Project-Id": asked.pop("project", self.project)}
        signed = self.signed("/OS-OAUTH1/request_token", None, **asked)
        return self.post("/OS-OAUTH1/request_token", headers | signed)

    def consent(self, token: dict[str, str], *roles: str) -> httpx.Response:
        named = [{"name": role} for role in roles or ("member",)]
        return self.admin.put(f"/OS-OAUTH1/authorize/{token['id']}", {"roles": named})

    def exchange(self, token: dict[str, str], verifier: str, **more: str) -> httpx.Response:
        path = "/OS-OAUTH1/access_token"
        return self.post(path, self.signed(path, token, verifier=verifier, **more))

    def access(self, *roles: str) -> dict[str, str]:
        """An access token with these roles."""
        answer = self.ask()
        assert answer.status_code == 201, answer.text
        token = read_token(answer.text)
        consent = self.consent(token, *roles)
        assert consent.status_code == 200, consent.text
        answer = self.exchange(token, consent.json()["token"]["oauth_verifier"])
        assert answer.status_code == 201, answer.text
        return read_token(answer.text)

    def log_in(self, access: dict[str, str], scope: object = None, **more: str) -> httpx.Response:
        auth: JsonObject = {"identity": {"methods": ["oauth1"], "oauth1": {}}}
        if scope is not None:
            auth["scope"] = scope
        return self.post("/auth/tokens", self.signed("/auth/tokens", access, **more), {"auth": auth})

    def session(self, access: dict[str, str]) -> Session:
        answer = self.log_in(access)
        assert answer.status_code == 201, answer.text
        return Session(self.place, answer.headers["x-subject-token"], answer.json()["token"])


@pytest.fixture
def story(place: Place) -> Story:
    return Story(place)


@pytest.mark.parametrize("method", ["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "PLAINTEXT"])
def test_a_consumer_logs_in_with_the_roles_it_was_given(story: Story, method: str) -> None:
    answer = story.ask(method=method)
    assert answer.status_code == 201, answer.text
    assert answer.headers["content-type"] == "application/x-www-form-urlencoded"
    token = read_token(answer.text)
    verifier = story.consent(token).json()["token"]["oauth_verifier"]
    access = read_token(story.exchange(token, verifier, method=method).text)
    answer = story.log_in(access, project("demo"), method=method)
    body = answer.json()["token"]
    # Whatever scope it asks for: it is the one of the request token.
    assert (body["user"]["id"], body["project"]["id"], body["methods"]) == (story.user, story.project, ["oauth1"])
    assert {role["name"] for role in body["roles"]} == {"member", "reader"}
    assert body["OS-OAUTH1"] == {"access_token_id": access["id"], "consumer_id": story.consumer["id"]}


def test_a_consumer_s_token_makes_nothing_that_would_outlive_it(story: Story) -> None:
    session = story.session(story.access("admin"))
    assert story.place.exchange(session, UNSCOPED).status_code == 403
    body = {"application_credential": {"name": "x"}}
    assert session.post(f"/users/{story.user}/application_credentials", body).status_code == 403
    trust = {"trustor_user_id": story.user, "trustee_user_id": story.user, "impersonation": True}
    trust |= {"project_id": story.project, "roles": [{"name": "member"}]}
    assert session.post("/OS-TRUST/trusts", {"trust": trust}).status_code == 403
    assert session.get("/credentials").status_code == 403
    assert session.get(story.path).status_code == 403
    other = read_token(story.ask().text)
    assert session.put(f"/OS-OAUTH1/authorize/{other['id']}", {"roles": [{"name": "member"}]}).status_code == 403


def test_each_signed_request_is_taken_once(story: Story) -> None:
    access = story.access()
    assert story.log_in(access, nonce="same").status_code == 201
    assert story.log_in(access, nonce="same").status_code == 401
    assert story.ask(nonce="again").status_code == 201
    assert story.ask(nonce="again").status_code == 401
    # If its time is as far ahead as it may be, it is remembered until that time is as far behind.
    ahead = str(story.place.clock.now_us() // 1_000_000 + 600)
    assert story.log_in(access, nonce="ahead", seconds=ahead).status_code == 201
    story.place.clock.advance(1200)
    assert story.log_in(access, nonce="ahead", seconds=ahead).status_code == 401
    story.place.clock.advance(1)
    assert story.log_in(access, nonce="same").status_code == 201


def test_a_request_token_is_exchanged_once_and_with_its_verifier_only(story: Story) -> None:
    token = read_token(story.ask().text)
    assert "does not have an authorizing user" in story.exchange(token, "abcdefgh").text
    verifier = story.consent(token).json()["token"]["oauth_verifier"]
    assert "does not match stored verifier" in story.exchange(token, verifier[::-1] + "x").text
    assert story.exchange(token, verifier, secret="0" * 32).status_code == 401
    assert story.exchange({**token, "secret": "0" * 32}, verifier).status_code == 401
    assert story.exchange(token, verifier).status_code == 201
    assert story.exchange(token, verifier).status_code == 404


def test_a_request_token_is_for_its_consumer_only(story: Story) -> None:
    token = read_token(story.ask().text)
    verifier = story.consent(token).json()["token"]["oauth_verifier"]
    other = story.admin.made("consumer", CONSUMERS[1:])
    answer = story.exchange(token, verifier, consumer=other["id"], secret=other["secret"])
    assert answer.status_code == 401
    access = read_token(story.exchange(token, verifier).text)
    assert story.log_in(access, consumer=other["id"], secret=other["secret"]).status_code == 401
    assert story.log_in(access, consumer="0" * 32).status_code == 401
    assert story.log_in(access).status_code == 201


def test_a_wrong_signature_is_refused(story: Story) -> None:
    answer = story.ask(secret="0" * 32)
    assert (answer.status_code, "Invalid signature" in answer.text) == (401, True)
    assert story.ask(signed_for=f"{V3}/OS-OAUTH1/access_token").status_code == 401
    assert story.ask(consumer="0" * 32).status_code == 404
    assert story.ask(project="0" * 32).status_code == 404
    # Who shows no signature does not learn which projects there are.
    assert story.ask(project="0" * 32, secret="0" * 32).status_code == 401
    now = story.place.clock.now_us() / 1e6
    for wrong in (
        {"method": "RSA-SHA1"},
        {"version": "2.0"},
        {"seconds": str(now - 700)},
        {"seconds": str(now + 700)},
        {"timestamp": "soon"},
        {"timestamp": "123456789٣"},
        {"nonce": "x" * 256},
        {"without": "nonce"},
        {"without": "timestamp"},
        {"without": "signature"},
        {"without": "signature_method"},
        {"without": "consumer_key"},
        {"without": "callback"},
    ):
        assert story.ask(**wrong).status_code == 400, wrong
    for header in ("", "Basic eDp5", "OAuth", "OAuth oauth_token", 'OAuth a="b", a="c"', 'OAuth a="b'):
        answer = story.post("/OS-OAUTH1/request_token", {"Authorization": header} if header else {})
        assert answer.status_code == 400, header
    assert (
        story.post("/OS-OAUTH1/request_token", story.signed("/OS-OAUTH1/request_token", callback="oob"))
        .json()["error"]["message"]
        .startswith("Expecting to find Requested-Project-Id")
    )


def test_a_login_that_is_not_signed_right_is_401_whatever_is_wrong(story: Story) -> None:
    access = story.access()
    for wrong in ({"secret": "0" * 32}, {"method": "RSA-SHA1"}, {"without": "token"}, {"without": "nonce"}):
        assert story.log_in(access, **wrong).status_code == 401, wrong
    assert story.log_in({**access, "id": "0" * 32}).status_code == 401
    assert story.log_in({**access, "secret": "0" * 32}).status_code == 401
    both = {"identity": {"methods": ["oauth1", "token"], "oauth1": {}, "token": {"id": story.admin.token}}}
    assert story.post("/auth/tokens", story.signed("/auth/tokens", access), {"auth": both}).status_code == 401


def test_a_query_is_part_of_what_is_signed() -> None:
    """As in RFC 5849, 3.4.1, of a request without a form."""
    url, consumer = "https://example.com:443/r", {"id": "9djdj82h48djs9d2", "secret": "j49sk3j29djd"}
    token = {"id": "kkk9d7dh3k39sjv7", "secret": "dh893hdasih9"}
    header = authorization(f"{url.replace(':443', '')}?b5=%3D%253D&a3=a", 137131201, "7d8f3e4a", consumer, token)
    query = [("b5", "=%3D"), ("a3", "a")]
    signed = read(header["Authorization"], "POST", url, query)
    assert is_signed(signed, consumer["secret"], token["secret"])
    assert not is_signed(read(header["Authorization"], "POST", url, query[:1]), consumer["secret"], token["secret"])


def test_consent_gives_what_one_has_and_no_more(story: Story) -> None:
    story.admin.made("role", "roles", name="other")
    token = read_token(story.ask().text)
    assert story.consent(token, "other").status_code == 401
    assert story.consent(token, "never was").status_code == 404
    assert story.admin.put(f"/OS-OAUTH1/authorize/{token['id']}", {"roles": []}).status_code == 400
    assert story.consent({"id": "0" * 32}).status_code == 404


def test_tokens_end_with_what_they_rest_on(story: Story) -> None:
    access = story.access()
    session = story.session(access)
    assert session.still_counts()
    assert story.admin.get(f"{story.path}/{access['id']}").status_code == 200
    assert story.admin.delete(f"{story.path}/{access['id']}").status_code == 204
    assert not session.still_counts()
    assert story.log_in(access).status_code == 401
    again = story.access()
    session = story.session(again)
    assert story.admin.delete(f"{CONSUMERS}/{story.consumer['id']}").status_code == 204
    assert not session.still_counts()
    events = story.admin.get("/OS-REVOKE/events").json()["events"]
    assert {event["OS-OAUTH1:access_token_id"] for event in events} == {access["id"], again["id"]}
    assert story.log_in(again).status_code == 401
    assert story.admin.get(story.path).json()["access_tokens"] == []


def test_they_end_with_the_role_the_project_and_the_user(story: Story) -> None:
    admin = story.admin
    role = admin.made("role", "roles", name="lent")
    for what in ("role", "project", "user"):
        made = admin.made("project", "projects", name=f"p-{what}", domain_id="default")
        user = admin.made("user", "users", name=f"u-{what}", domain_id="default", password="long enough")
        place = f"/projects/{made['id']}/users/{user['id']}/roles"
        for name in ("lent", "admin"):
            assert admin.put(f"{place}/{admin.id_of('roles', name)}").status_code == 204
        token = read_token(story.ask(project=made["id"]).text)
        own = story.place.login(f"u-{what}", "long enough", project(f"p-{what}"))
        path = f"/OS-OAUTH1/authorize/{token['id']}"
        verifier = own.put(path, {"roles": [{"id": role["id"]}]}).json()["token"]["oauth_verifier"]
        access = read_token(story.exchange(token, verifier).text)
        session = story.session(access)
        gone = {"role": f"{place}/{role['id']}", "project": f"/projects/{made['id']}", "user": f"/users/{user['id']}"}
        assert admin.delete(gone[what]).status_code == 204
        assert not session.still_counts(), what
        assert story.log_in(access).status_code == 401, what


def test_they_end_by_themselves(story: Story) -> None:
    waiting = read_token(story.ask().text)
    access = story.access()
    story.place.clock.advance(oauth1_tokens.REQUEST_TOKEN_SECONDS)
    story.admin = story.place.admin()
    assert story.consent(waiting).status_code == 401
    assert story.exchange(waiting, "abcdefgh").status_code == 401
    story.place.clock.advance(oauth1_tokens.ACCESS_TOKEN_SECONDS - oauth1_tokens.REQUEST_TOKEN_SECONDS - 600)
    session = story.session(access)
    # It lives at most as long as what it was made from.
    story.place.clock.advance(600)
    assert not session.still_counts()
    answer = story.log_in(access)
    assert (answer.status_code, "expired" in answer.text) == (401, True)


def test_access_tokens_are_shown_without_secrets(story: Story) -> None:
    access = story.access("admin")
    [shown] = story.admin.get(story.path).json()["access_tokens"]
    assert shown == story.admin.get(f"{story.path}/{access['id']}").json()["access_token"]
    assert set(shown) == {"id", "authorizing_user_id", "project_id", "consumer_id", "expires_at", "links"}
    assert shown["expires_at"].endswith("Z")
    roles = story.admin.get(f"{story.path}/{access['id']}/roles").json()["roles"]
    assert [role["name"] for role in roles] == ["admin"]
    one = story.admin.get(f"{story.path}/{access['id']}/roles/{roles[0]['id']}").json()["role"]
    assert one == roles[0]
    assert story.admin.get(f"{story.path}/{access['id']}/roles/{'0' * 32}").status_code == 404
    assert story.admin.get(f"/users/{'0' * 32}/OS-OAUTH1/access_tokens/{access['id']}").status_code == 404


def test_consumers_are_made_changed_and_shown_without_their_secrets(story: Story) -> None:
    path = f"{CONSUMERS}/{story.consumer['id']}"
    shown = story.admin.get(path).json()["consumer"]
    assert shown == {name: value for name, value in story.consumer.items() if name != "secret"}
    assert shown in story.admin.get(CONSUMERS).json()["consumers"]
    changed = story.admin.patch(path, {"consumer": {"description": None, "colour": "red"}}).json()["consumer"]
    assert (changed["description"], changed["colour"]) == (None, "red")
    for body in ({"secret": "mine"}, {}, {"description": 1}):
        assert story.admin.patch(path, {"consumer": body}).status_code == 400, body
    assert story.admin.post(CONSUMERS, {"consumer": {"secret": "mine"}}).status_code == 400


def test_all_of_it_is_bounded(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (oauth1_consumers, "MOST_CONSUMERS"),
        (oauth1_tokens, "MOST_REQUEST_TOKENS"),
        (oauth1_tokens, "MOST_ACCESS_TOKENS"),
    ):
        monkeypatch.setattr(module, name, 1)
    assert story.admin.post(CONSUMERS, {"consumer": {}}).status_code == 403
    story.access()
    token = read_token(story.ask().text)
    assert story.ask().status_code == 403
    verifier = story.consent(token).json()["token"]["oauth_verifier"]
    assert story.exchange(token, verifier).status_code == 403
    monkeypatch.setattr(oauth1_requests, "MOST_NONCES", 1)
    assert story.ask().status_code == 429


def test_secrets_are_sealed_and_are_sealed_anew_when_the_keys_rotate(story: Story, tmp_path: Path) -> None:
    waiting = read_token(story.ask().text)
    verifier = story.consent(waiting).json()["token"]["oauth_verifier"]
    access = story.access()
    told = (story.consumer["secret"], waiting["secret"], verifier, access["secret"])
    tables = (oauth1_store.consumers, oauth1_store.request_tokens, oauth1_store.access_tokens)

    def rows_of(table: Table) -> Callable[[Tx], list[str]]:
        return lambda tx: [str(tuple(row)) for row in tx.all(select(table))]

    def kept() -> list[str]:
        return [row for table in tables for row in story.place.database.read(rows_of(table))]

    before = kept()
    assert not any(secret in row for secret in told for row in before)
    for _ in range(4):
        story.place.clock.advance(31 * 24 * 3600)
        rotate_keys(story.place.database, story.place.settings, story.place.clock)
    assert not set(before) & set(kept())
    story.admin = story.place.admin()
    assert story.ask().status_code == 201


def test_what_has_expired_goes_though_nobody_asks_again(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expired, "MOST_AT_ONCE", 2)
    for _ in range(3):
        session = story.session(story.access())
        assert story.admin.delete("/auth/tokens", {"X-Subject-Token": str(session.token)}).status_code == 204
        story.ask()
    place, sweep = story.place, expired.Expired(db=story.place.database, clock=story.place.clock)

    def left() -> list[int]:
        asyncio.run(sweep.round())
        return place.database.read(lambda tx: [len(tx.all(select(table))) for table, _ in expired.TABLES])

    assert left() == [3, 12, 3, 3]
    place.clock.advance(1201)
    assert left() == [3, 0, 3, 3]
    place.clock.advance(3600)
    assert left() == [0, 0, 3, 3]
    place.clock.advance(oauth1_tokens.REQUEST_TOKEN_SECONDS)
    assert left() == [0, 0, 0, 3]
    place.clock.advance(oauth1_tokens.ACCESS_TOKEN_SECONDS)
    assert left() == [0, 0, 0, 0]
