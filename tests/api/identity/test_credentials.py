"""Credentials are sealed in the database; EC2 keys and one-time passwords prove who somebody is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from sqlalchemy import select

from cumulet.identity import credential_store, credentials, ec2_signatures, one_time_passwords
from cumulet.identity.key_rotation import ROTATE_AFTER_SECONDS, rotate_keys
from cumulet.testing import JsonObject
from tests.api.identity.aws import Signer
from tests.api.identity.place import UNSCOPED, Place, Session, project

KEY = b"12345678901234567890"


class Holder:
    """A member of a project, and its EC2 credential."""

    def __init__(self, place: Place) -> None:
        self.place, self.admin = place, place.admin()
        self.session = place.login("demo", scope=project("demo"))
        self.user = self.session.body["user"]["id"]
        self.path = f"/users/{self.user}/credentials/OS-EC2"
        made = self.session.post(self.path, {"tenant_id": self.session.body["project"]["id"]})
        assert made.status_code == 201, made.text
        self.ec2 = made.json()["credential"]

    def signer(self, **changes: str) -> Signer:
        now_us = self.place.clock.now_us()
        return Signer(now_us, changes.get("access", self.ec2["access"]), changes.get("secret", self.ec2["secret"]))

    def ask(self, signed: JsonObject, path: str = "/ec2tokens") -> Any:
        return self.admin.post(path, {"credentials": signed})

    def keep(self, kind: str, blob: str) -> str:
        identifier: str = self.session.made("credential", "credentials", type=kind, blob=blob, user_id=self.user)["id"]
        return identifier

    def factors(self, *methods: str, code: str = "") -> int:
        named = {"id": self.user}
        identity: JsonObject = {"methods": list(methods)}
        if "password" in methods:
            identity["password"] = {"user": {**named, "password": self.place.passwords.by_user["demo"]}}
        if "totp" in methods:
            identity["totp"] = {"user": {**named, "passcode": code}}
        return self.place.authenticate({"identity": identity, "scope": project("demo")}).status_code

    def code(self, key: bytes = KEY, *, earlier: int = 0) -> str:
        """By RFC 6238, written apart from what is tested."""
        counter = self.place.clock.now_us() // 30_000_000 - earlier
        digest = hmac.digest(key, counter.to_bytes(8, "big"), "sha1")
        at = digest[19] % 16
        number = int.from_bytes(digest[at : at + 4], "big") % 2**31
        return str(number)[-6:].zfill(6)


@pytest.fixture
def holder(place: Place) -> Holder:
    return Holder(place)


@pytest.mark.parametrize("how", ["version_2", "version_4"])
def test_who_signed_a_request_gets_a_token_that_ends_with_the_credential(holder: Holder, how: str) -> None:
    answer = holder.ask(getattr(holder.signer(), how)())
    assert answer.status_code == 200, answer.text
    token = Session(holder.place, answer.headers["x-subject-token"], answer.json()["token"])
    assert token.body["user"]["id"] == holder.user
    assert token.body["methods"] == ["ec2credential"]
    assert token.still_counts()
    # It makes no other token and no credential.
    assert holder.place.exchange(token, UNSCOPED).status_code == 403
    assert token.get("/credentials").status_code == 403
    assert holder.session.delete(f"{holder.path}/{holder.ec2['access']}").status_code == 204
    assert holder.session.get(f"{holder.path}/{holder.ec2['access']}").status_code == 404
    assert not token.still_counts()
    assert holder.ask(getattr(holder.signer(), how)()).status_code == 404


def test_after_a_new_secret_tokens_of_the_old_one_end_and_those_of_the_new_one_count(holder: Holder) -> None:
    def token() -> Session:
        answer = holder.ask(holder.signer().version_4())
        assert answer.status_code == 200, answer.text
        return Session(holder.place, answer.headers["x-subject-token"], {})

    before = token()
    identifier = hashlib.sha256(holder.ec2["access"].encode()).hexdigest()
    holder.ec2["secret"] = "another one"
    blob = json.dumps({"access": holder.ec2["access"], "secret": holder.ec2["secret"]})
    assert holder.session.patch(f"/credentials/{identifier}", {"credential": {"blob": blob}}).status_code == 200
    assert not before.still_counts()
    assert token().still_counts()


def test_a_wrong_signature_gets_no_token(holder: Holder) -> None:
    assert holder.ask(holder.signer(secret="0" * 64).version_4()).status_code == 401
    assert holder.ask(holder.signer(access="0" * 32).version_4()).status_code == 404
    signer = holder.signer()
    wrong: list[JsonObject] = [{"verb": "POST"}, {"path": "/other"}, {"params": {}}, {"signature": ""}]
    for changes in wrong:
        assert holder.ask(signer.version_4(**changes)).status_code == 401, changes
    for version in ("0", "1", "3"):
        params = {**signer.version_2()["params"], "SignatureVersion": version}
        assert holder.ask(signer.version_2(params=params)).status_code == 401
    holder.place.clock.advance(901)
    for signed in (signer.version_4(), signer.version_2()):
        assert holder.ask(signed).status_code == 401
    assert holder.ask(signer.s3(), "/s3tokens").status_code == 401
    assert holder.ask(holder.signer().s3(), "/s3tokens").status_code == 200
    assert holder.ask(holder.signer().s3(signature="x"), "/s3tokens").status_code == 401


def test_what_is_signed_is_no_longer_than_what_was_sent(holder: Holder) -> None:
    """Each header that a signature names goes into the text: one that is named thousands of times would fill the
    memory, in a transaction that all other writers wait for."""
    signed = holder.signer().version_4()
    many = [f"x-{number}" for number in range(ec2_signatures.MOST_SIGNED_HEADERS)]

    def text_of(*names: str) -> str:
        told = signed["headers"]["Authorization"].replace("host;x-amz-date", ";".join(names))
        sent = {**signed, "headers": {**signed["headers"], "X-Long": "x" * 1000, "Authorization": told}}
        return ec2_signatures.signature_of(ec2_signatures.read(sent), b"secret")

    assert text_of("host", "x-long")
    assert text_of(*many)
    for names in ((*many, "host"), ("host", "x-long", "x-long"), ("x-long",) * 10_000):
        with pytest.raises(ec2_signatures.Unsigned):
            text_of(*names)


def test_the_time_of_a_request_counts_only_where_it_is_signed(holder: Holder) -> None:
    signer = holder.signer()
    posted, dated = signer.version_4(signed="POST"), signer.version_2(without=("Timestamp",))
    assert holder.ask(posted).status_code == 200
    assert holder.ask(dated).status_code == 401
    holder.place.clock.advance(901)
    later = holder.signer()
    posted["params"]["Timestamp"] = later.version_2()["params"]["Timestamp"]
    assert holder.ask(posted).status_code == 401
    assert holder.ask({**dated, "headers": later.version_4()["headers"]}).status_code == 401


def test_a_member_gets_no_token_for_a_signature(holder: Holder) -> None:
    assert holder.session.post("/ec2tokens", {"credentials": holder.signer().version_4()}).status_code == 403


def test_an_ec2_token_ends_with_the_role(holder: Holder) -> None:
    answer = holder.ask(holder.signer().version_4())
    token = Session(holder.place, answer.headers["x-subject-token"], {})
    member, home = holder.admin.id_of("roles", "member"), holder.session.body["project"]["id"]
    holder.admin.delete(f"/projects/{home}/users/{holder.user}/roles/{member}")
    assert not token.still_counts()
    assert holder.ask(holder.signer().version_4()).status_code == 401


def test_a_user_s_blob_names_no_trust(holder: Holder) -> None:
    for name in ("trust_id", "app_cred_id", "access_token_id"):
        blob = json.dumps({"access": "a", "secret": "b", name: "x"})
        body = {"type": "ec2", "blob": blob, "user_id": holder.user, "project_id": holder.ec2["tenant_id"]}
        assert holder.session.post("/credentials", {"credential": body}).status_code == 400


def test_secrets_are_sealed_in_the_database_and_their_keys_rotate(holder: Holder) -> None:
    identifier = holder.keep("cert", "a very secret text")
    place, c = holder.place, credential_store.credentials.c

    def stored() -> str:
        return str(place.database.read(lambda tx: tx.scalar(select(c.sealed).where(c.id == identifier))))

    def shown() -> str:
        return str(holder.session.get(f"/credentials/{identifier}").json()["credential"]["blob"])

    assert "secret" not in stored()
    for _ in range(5):
        before, keys = stored(), sorted(path.name for path in (place.folder / "credential-keys").iterdir())
        rotate_keys(place.database, place.settings, place.clock)
        assert stored() == before
        place.clock.advance(ROTATE_AFTER_SECONDS + 1)
        holder.session = place.login("demo", scope=project("demo"))
        rotate_keys(place.database, place.settings, place.clock)
        assert stored() != before
        assert sorted(path.name for path in (place.folder / "credential-keys").iterdir()) != keys
        assert shown() == "a very secret text"


def test_a_one_time_password_is_right_for_a_minute(holder: Holder) -> None:
    holder.keep("totp", base64.b32encode(KEY).decode().rstrip("="))
    assert holder.factors("totp", code=holder.code()) == 201
    assert holder.factors("totp", code=holder.code(earlier=1)) == 201
    assert holder.factors("totp", code=holder.code(earlier=2)) == 401
    assert holder.factors("totp", code="") == 401


def test_codes_are_guessed_no_faster_than_passwords(holder: Holder) -> None:
    holder.keep("totp", base64.b32encode(KEY).decode())
    answers = [holder.factors("totp", code=f"{n:06d}") for n in range(11)]
    assert answers == [401] * 10 + [429]


def test_a_user_has_few_devices_for_one_time_passwords_with_short_secrets(holder: Holder) -> None:
    session = holder.session
    longest = base64.b32encode(KEY * 4).decode()
    assert len(longest) == one_time_passwords.LONGEST_SECRET

    def answer(kind: str, blob: str) -> tuple[int, str]:
        body = {"type": kind, "blob": blob, "user_id": holder.user}
        made = session.post("/credentials", {"credential": body})
        return made.status_code, made.text

    status, text = answer("totp", longest + "A")
    assert (status, "blob" in text) == (400, True)
    paths = [f"/credentials/{holder.keep('totp', longest)}" for _ in range(one_time_passwords.MOST_DEVICES)]
    status, text = answer("totp", longest)
    assert (status, "maximum of 8" in text) == (403, True)
    assert session.patch(paths[0], {"credential": {"blob": longest + "A"}}).status_code == 400
    assert session.patch(paths[0], {"credential": {"type": "totp", "blob": longest}}).status_code == 200
    # Nor does another kind become one too many, or too long.
    short, long = (f"/credentials/{holder.keep('cert', blob)}" for blob in ("short", "A" * 129))
    assert session.patch(short, {"credential": {"type": "totp"}}).status_code == 403
    assert session.patch(long, {"credential": {"type": "totp"}}).status_code == 400
    assert session.delete(paths[0]).status_code == 204
    assert session.patch(short, {"credential": {"type": "totp"}}).status_code == 200


@pytest.mark.parametrize("bytes_of_key", [20, 80])
def test_a_code_is_compared_with_few_devices_whatever_was_kept_before_there_were_bounds(
    holder: Holder, monkeypatch: pytest.MonkeyPatch, bytes_of_key: int
) -> None:
    with monkeypatch.context() as before:
        before.setattr(one_time_passwords, "LONGEST_SECRET", credentials.LONGEST_BLOB)
        before.setattr(one_time_passwords, "MOST_DEVICES", credentials.MOST_OF_USER)
        for _ in range(12):
            holder.keep("totp", "A" * credentials.LONGEST_BLOB)
        key = (KEY * 4)[:bytes_of_key]
        for _ in range(12):
            holder.keep("totp", base64.b32encode(key).decode())
    opened: list[int] = []
    compared: list[int] = []
    keys = holder.place.identity.credential_keys
    open_one, show = keys.open, one_time_passwords.one_time_password

    def open_noted(sealed: str) -> bytes | None:
        opened.append(len(sealed))
        return open_one(sealed)

    def show_noted(key: bytes, counter: int) -> str:
        compared.append(counter)
        return show(key, counter)

    monkeypatch.setattr(keys, "open", open_noted)
    monkeypatch.setattr(one_time_passwords, "one_time_password", show_noted)
    assert holder.factors("totp", code=holder.code(key)) == 201
    assert len(opened) == one_time_passwords.MOST_DEVICES
    assert max(opened) < 300
    assert len(compared) == 2 * one_time_passwords.MOST_DEVICES


def test_rules_ask_for_several_factors_at_once(holder: Holder) -> None:
    holder.keep("totp", base64.b32encode(KEY).decode())
    rules = {"multi_factor_auth_enabled": True, "multi_factor_auth_rules": [["password", "totp"]]}
    assert holder.admin.patch(f"/users/{holder.user}", {"user": {"options": rules}}).status_code == 200
    assert holder.factors("password") == 401
    assert holder.factors("totp", code=holder.code()) == 401
    assert holder.factors("password", "totp", code="000000") == 401
    assert holder.factors("password", "totp", code=holder.code()) == 201
    unknown = {"multi_factor_auth_rules": [["password", "retina"]]}
    assert holder.admin.patch(f"/users/{holder.user}", {"user": {"options": unknown}}).status_code == 400


def test_a_password_and_another_s_code_are_nobody_s_login(holder: Holder) -> None:
    holder.keep("totp", base64.b32encode(KEY).decode())
    admin = {"id": holder.admin.body["user"]["id"], "password": holder.place.passwords.by_user["admin"]}
    code = {"id": holder.user, "passcode": holder.code()}
    identity = {"methods": ["password", "totp"], "password": {"user": admin}, "totp": {"user": code}}
    assert holder.place.authenticate({"identity": identity}).status_code == 401


def test_a_project_of_others_is_for_a_credential_or_a_trust_like_one_that_never_was(holder: Holder) -> None:
    others = holder.admin.made("project", "projects", name="others")["id"]
    trust = {"trustor_user_id": holder.user, "trustee_user_id": holder.user, "impersonation": False}
    said = set()
    for project_id in (others, "0" * 32):
        key = {"type": "ec2", "blob": '{"access": "a"}', "user_id": holder.user, "project_id": project_id}
        for path, body in (
            ("/credentials", {"credential": key}),
            (holder.path, {"tenant_id": project_id}),
            ("/OS-TRUST/trusts", {"trust": {**trust, "project_id": project_id, "roles": [{"name": "member"}]}}),
        ):
            answer = holder.session.post(path, body)
            said.add((answer.status_code, answer.text.replace(project_id, "")))
    assert [status for status, _ in said] == [404]
    assert holder.admin.post(holder.path, {"tenant_id": others}).status_code == 201
    assert holder.admin.post(holder.path, {"tenant_id": "0" * 32}).status_code == 404


@pytest.mark.parametrize("end", ["project", "domain"])
def test_what_somebody_had_in_a_project_goes_with_it_and_with_its_domain(holder: Holder, end: str) -> None:
    """The user is of another domain, and stays."""
    admin, user = holder.admin, holder.user
    domain = admin.made("domain", "domains", name="lodge")["id"]
    lodge = admin.made("project", "projects", name="lodge", domain_id=domain)["id"]
    assert admin.put(f"/projects/{lodge}/users/{user}/roles/{admin.id_of('roles', 'member')}").status_code == 204
    assert holder.session.post(holder.path, {"tenant_id": lodge}).status_code == 201
    assert admin.patch(f"/users/{user}", {"user": {"default_project_id": lodge}}).status_code == 200
    listed = f"/credentials?user_id={user}"
    assert len(admin.get(listed).json()["credentials"]) == 2
    if end == "domain":
        assert admin.patch(f"/domains/{domain}", {"domain": {"enabled": False}}).status_code == 200
    assert admin.delete(f"/{end}s/{domain if end == 'domain' else lodge}").status_code == 204
    (left,) = admin.get(listed).json()["credentials"]
    assert left["project_id"] == holder.session.body["project"]["id"]
    assert "default_project_id" not in admin.get(f"/users/{user}").json()["user"]


def test_a_user_keeps_so_many_and_sees_only_its_own(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    holder.admin.made("credential", "credentials", type="cert", blob="x", user_id=holder.admin.body["user"]["id"])
    assert [c["user_id"] for c in holder.session.get("/credentials").json()["credentials"]] == [holder.user]
    assert len(holder.admin.get("/credentials").json()["credentials"]) == 2
    monkeypatch.setattr(credentials, "MOST_OF_USER", 1)
    body = {"type": "cert", "blob": "x", "user_id": holder.user}
    assert holder.session.post("/credentials", {"credential": body}).status_code == 403


def test_what_clients_send_unchanged_is_no_change(holder: Holder) -> None:
    """As `openstack credential set`, which sends user, type and data."""
    identifier = holder.keep("cert", "one")
    path = f"/credentials/{identifier}"

    def change(**wanted: object) -> tuple[int, JsonObject]:
        answer = holder.session.patch(path, {"credential": wanted})
        return answer.status_code, answer.json().get("credential", {})

    status, changed = change(user_id=holder.user, type="cert", blob="two", project_id=None)
    assert (status, changed["blob"]) == (200, "two")
    status, changed = change(type="token", colour="blue")
    assert (status, changed["blob"], changed["type"], changed["colour"]) == (200, "two", "token", "blue")
    for refused in ({"user_id": "somebody"}, {"project_id": holder.session.body["project"]["id"]}):
        assert change(**refused)[0] == 403
    assert change(type="ec2")[0] == 400
    assert holder.session.get(path).json()["credential"] == changed


def test_an_ec2_key_does_not_become_another_kind(holder: Holder) -> None:
    identifier = hashlib.sha256(holder.ec2["access"].encode()).hexdigest()
    for change in ({"type": "cert"}, {"blob": "no JSON"}):
        assert holder.session.patch(f"/credentials/{identifier}", {"credential": change}).status_code == 400
