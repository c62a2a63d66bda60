"""Two API processes on one PostgreSQL: what one takes away counts no more in the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.identity import bootstrap
from cumulet.testing.databases import NoPostgresql, postgresql_server
from tests.api.identity.place import UNSCOPED, Place, Session, project

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """Of a server of our own."""
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(postgresql_server())
        except NoPostgresql as problem:
            pytest.skip(str(problem))
        yield url


def _what_is_delegated_ends_everywhere(one: Place, other: Place) -> None:
    """A group's role, an inherited one, an application credential and a trust, each taken away."""
    admin, owner = one.admin(), one.login("demo", scope=project("demo"))
    demo, home = owner.body["user"]["id"], owner.body["project"]["id"]
    member = admin.id_of("roles", "member")
    group = admin.made("group", "groups", name="crew")["id"]
    below = admin.made("project", "projects", name="below", parent_id=home)["id"]
    membership = f"/groups/{group}/users/{demo}"
    grant = f"/OS-INHERIT/projects/{home}/groups/{group}/roles/{member}/inherited_to_projects"
    assert [admin.put(path).status_code for path in (membership, grant)] == [204, 204]
    credentials = f"/users/{demo}/application_credentials"
    made = owner.post(credentials, {"application_credential": {"name": "x"}}).json()["application_credential"]
    method = {"id": made["id"], "secret": made["secret"]}
    identity = {"methods": ["application_credential"], "application_credential": method}
    entered = one.authenticate({"identity": identity})
    new = {"trustor_user_id": demo, "trustee_user_id": admin.body["user"]["id"], "project_id": home}
    trust = owner.post("/OS-TRUST/trusts", {"trust": {**new, "impersonation": False, "roles": [{"id": member}]}})
    trust_id = trust.json()["trust"]["id"]
    for session, path in (
        (one.login("demo", scope={"project": {"id": below}}), membership),
        (Session(one, entered.headers["x-subject-token"], {}), f"{credentials}/{made['id']}"),
        (one.login("admin", scope={"OS-TRUST:trust": {"id": trust_id}}), f"/OS-TRUST/trusts/{trust_id}"),
    ):
        elsewhere = Session(other, session.token, session.body)
        assert elsewhere.still_counts()
        assert elsewhere.still_counts()
        assert admin.delete(path).status_code == 204
        assert not elsewhere.still_counts()
    assert admin.delete(f"/projects/{below}").status_code == 204


def test_two_processes_agree_on_every_token(database_url: str, tmp_path: Path) -> None:
    one = Place(tmp_path, database_url)
    passwords = one.passwords.by_user
    bootstrap.write_clouds_yaml(tmp_path / "clouds.yaml", auth_url="", cacert=None, passwords=passwords, region="R")
    other = Place(tmp_path, database_url, clock_seed=8)
    assert other.passwords.origin == "kept"
    admin = one.admin()
    demo = admin.id_of("users", "demo")
    try:
        _what_is_delegated_ends_everywhere(one, other)
        for act in ("revoke", "password", "disable"):
            session = one.login("demo", passwords["demo"] if act != "disable" else "another-one", project("demo"))
            elsewhere = Session(other, session.token, session.body)
            assert elsewhere.still_counts()
            assert elsewhere.still_counts()
            if act == "revoke":
                session.delete("/auth/tokens", {"X-Subject-Token": str(session.token)})
            elif act == "password":
                admin.patch(f"/users/{demo}", {"user": {"password": "another-one"}})
            else:
                admin.patch(f"/users/{demo}", {"user": {"enabled": False}})
            assert not elsewhere.still_counts()
            assert not session.still_counts()
        assert admin.patch(f"/users/{demo}", {"user": {"enabled": True}}).status_code == 200
        assert other.login("demo", "another-one", UNSCOPED).still_counts()
        page = admin.get(f"/users?limit=1&marker={admin.id_of('users', 'admin')}").json()
        assert [user["name"] for user in page["users"]] == ["demo"]
    finally:
        one.close()
        other.close()
