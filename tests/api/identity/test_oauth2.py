"""OAuth 2.0: an application credential's id and secret get a token by the client credentials grant."""

from __future__ import annotations

import base64
from urllib.parse import urlencode

import httpx
import pytest

from tests.api.identity.place import V3, Place, Session, project

FORM = "application/x-www-form-urlencoded"


class Program:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.session = place.login("demo", scope=project("demo"))
        self.user = self.session.body["user"]["id"]
        path = f"users/{self.user}/application_credentials"
        self.credential = self.session.made("application_credential", path, name="program")

    def ask(self, *, media: str = FORM, basic: str = "", **fields: str) -> httpx.Response:
        """basic: what is in the header, ``ID:SECRET``."""
        headers = {"Content-Type": media}
        if basic:
            headers["Authorization"] = f"Basic {base64.b64encode(basic.encode()).decode()}"
        return self.send(urlencode(fields).encode(), headers)

    def send(self, content: bytes, headers: dict[str, str]) -> httpx.Response:
        place = self.place
        asked = place._client.request("POST", f"{V3}/OS-OAUTH2/token", content=content, headers=headers)
        return place._runner.run(asked)

    def token(self) -> Session:
        known = f"{self.credential['id']}:{self.credential['secret']}"
        answer = self.ask(basic=known, grant_type="client_credentials")
        assert answer.status_code == 200, answer.text
        return Session(self.place, answer.json()["access_token"], {})


@pytest.fixture
def program(place: Place) -> Program:
    return Program(place)


def test_the_access_log_names_the_user_of_a_program(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cumulet.access")
    caplog.clear()
    program.token()
    known = f"{program.credential['id']}:wrong"
    assert program.ask(basic=known, grant_type="client_credentials").status_code == 401
    assert [vars(line)["user_id"] for line in caplog.records if line.name == "cumulet.access"] == [program.user, None]


def test_a_program_gets_a_token_by_header_or_form(program: Program) -> None:
    identifier, secret = program.credential["id"], program.credential["secret"]
    known = f"{identifier}:{secret}"
    for answer in (
        program.ask(basic=known, grant_type="client_credentials"),
        program.ask(grant_type="client_credentials", client_id=identifier, client_secret=secret),
        # The header comes first, as upstream.
        program.ask(basic=known, grant_type="client_credentials", client_id="x", client_secret="y"),
    ):
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
        assert answer.headers["cache-control"] == "no-store"
        shown = program.place.admin().get("/auth/tokens", X_Subject_Token=body["access_token"]).json()["token"]
        assert shown["application_credential"]["id"] == identifier
        assert shown["methods"] == ["application_credential"]


def test_its_token_is_sent_as_a_bearer_s(program: Program) -> None:
    token = program.token().token
    nobody = program.place.nobody
    assert nobody.request("GET", "/auth/projects", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert nobody.request("GET", "/auth/projects", headers={"Authorization": f"bearer  {token}"}).status_code == 200
    for header in ("Bearer", "Bearer x", f"Basic {token}", f"Bearer{token}"):
        assert nobody.request("GET", "/auth/projects", headers={"Authorization": header}).status_code == 401, header


def test_it_ends_with_the_credential(program: Program) -> None:
    token = program.token()
    assert token.still_counts()
    path = f"/users/{program.user}/application_credentials/{program.credential['id']}"
    assert program.session.delete(path).status_code == 204
    assert not token.still_counts()


def test_errors_have_the_form_of_oauth(program: Program) -> None:
    known = {"client_id": program.credential["id"], "client_secret": program.credential["secret"]}
    grant = {"grant_type": "client_credentials"}
    cases: list[tuple[httpx.Response, int, str]] = [
        (program.ask(**known), 400, "invalid_request"),
        (program.ask(**known, **grant, media="application/json"), 400, "invalid_request"),
        (program.ask(**known, grant_type="password"), 400, "unsupported_grant_type"),
        (program.ask(**grant), 401, "invalid_client"),
        (program.ask(**grant, client_id=known["client_id"]), 401, "invalid_client"),
        (program.ask(**grant, **{**known, "client_secret": "wrong"}), 401, "invalid_client"),
        (program.ask(**grant, **{**known, "client_id": "0" * 32}), 401, "invalid_client"),
        (program.ask(**grant, **{**known, "client_id": "0" * 256}), 401, "invalid_client"),
        (program.ask(**grant, **{**known, "client_secret": "0" * 1025}), 401, "invalid_client"),
        (program.send(b"\xff=1", {"Content-Type": FORM}), 400, "invalid_request"),
        (program.send(b"grant_type=a&grant_type=b", {"Content-Type": FORM}), 400, "invalid_request"),
        (program.send(b"grant_type=client_credentials", {"Content-Type": FORM, "Authorization": "Basic ("}), 401, ""),
    ]
    for answer, status, code in cases:
        body = answer.json()
        assert (answer.status_code, set(body)) == (status, {"error", "error_description"}), answer.text
        assert body["error"] == (code or "invalid_client")
        assert program.credential["secret"] not in answer.text
    assert program.send(b"a" * 40_000, {"Content-Type": FORM}).status_code == 413


def test_a_user_whose_rules_ask_for_more_gets_none(program: Program) -> None:
    options = {"multi_factor_auth_enabled": True, "multi_factor_auth_rules": [["password", "totp"]]}
    admin = program.place.admin()
    assert admin.patch(f"/users/{program.user}", {"user": {"options": options}}).status_code == 200
    known = f"{program.credential['id']}:{program.credential['secret']}"
    assert program.ask(basic=known, grant_type="client_credentials").status_code == 401
