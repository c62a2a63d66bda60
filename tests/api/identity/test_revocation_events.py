"""OS-REVOKE: services that keep tokens are told what has ended."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import insert

from cumulet.clock import iso_us
from cumulet.identity import store
from tests.api.identity.place import Place, project


def test_what_ended_is_listed_while_tokens_of_it_would_still_be_good(place: Place) -> None:
    admin = place.admin()
    assert admin.get("/OS-REVOKE/events").json()["events"] == []
    gone = place.login("demo", scope=project("demo"))
    assert admin.delete("/auth/tokens", {"X-Subject-Token": str(gone.token)}).status_code == 204
    [event] = admin.get("/OS-REVOKE/events").json()["events"]
    at = f"{iso_us(place.clock.now_us())}Z"
    assert event == {"audit_id": gone.body["audit_ids"][0], "issued_before": at, "revoked_at": at}

    place.clock.advance(10)
    later = f"{iso_us(place.clock.now_us())}Z"
    user = gone.body["user"]["id"]
    assert admin.delete(f"/users/{user}/tokens").status_code == 204
    made = admin.made("project", "projects", name="p", domain_id="default")
    assert admin.patch(f"/projects/{made['id']}", {"project": {"enabled": False}}).status_code == 200
    domain = admin.made("domain", "domains", name="d")
    assert admin.patch(f"/domains/{domain['id']}", {"domain": {"enabled": False}}).status_code == 200
    events = admin.get(f"/OS-REVOKE/events?since={later}").json()["events"]
    assert [set(event) - {"issued_before", "revoked_at"} for event in events] == [
        {"user_id"},
        {"project_id"},
        {"domain_id"},
    ]
    assert [events[0]["user_id"], events[1]["project_id"], events[2]["domain_id"]] == [user, made["id"], domain["id"]]
    assert len(admin.get("/OS-REVOKE/events").json()["events"]) == 4

    place.clock.advance(3700)
    assert place.admin().get("/OS-REVOKE/events").json()["events"] == []


def test_who_asks_again_since_the_last_one_gets_all_however_many_an_answer_has(tmp_path: Path) -> None:
    place = Place(tmp_path, largest_page=3)
    admin, ended = place.admin(), set()
    for user in [admin.made("user", "users", name=f"u{n}", domain_id="default")["id"] for n in range(3)]:
        place.clock.advance(1)
        assert admin.delete(f"/users/{user}/tokens").status_code == 204
        ended.add(("user_id", user))
        for _ in range(2):
            place.clock.advance(1)
            session = place.login("demo", scope=project("demo"))
            assert admin.delete("/auth/tokens", {"X-Subject-Token": str(session.token)}).status_code == 204
            ended.add(("audit_id", session.body["audit_ids"][0]))
    seen, since = set(), ""
    for _ in range(len(ended)):
        events = admin.get(f"/OS-REVOKE/events?since={since}").json()["events"]
        assert len(events) <= 3
        since = events[-1]["revoked_at"]
        seen |= {(name, event[name]) for event in events for name in ("audit_id", "user_id") if name in event}
    assert seen == ended
    place.close()


def test_a_trust_that_was_deleted_is_listed(place: Place) -> None:
    admin = place.admin()
    demo = place.login("demo", scope=project("demo"))
    user = demo.body["user"]["id"]
    body = {"trustor_user_id": user, "trustee_user_id": user, "impersonation": False, "roles": [{"name": "member"}]}
    trust = demo.made("trust", "OS-TRUST/trusts", **body, project_id=demo.body["project"]["id"])
    assert demo.delete(f"/OS-TRUST/trusts/{trust['id']}").status_code == 204
    [event] = admin.get("/OS-REVOKE/events").json()["events"]
    assert event["OS-TRUST:trust_id"] == trust["id"]
    # Upstream's events know nothing of application credentials, and neither do these.
    path = f"users/{user}/application_credentials"
    made = demo.made("application_credential", path, name="x")
    assert demo.delete(f"/{path}/{made['id']}").status_code == 204
    assert len(admin.get("/OS-REVOKE/events").json()["events"]) == 1


def test_a_token_that_a_process_of_the_version_before_ended_is_listed(place: Place) -> None:
    """It notes no time; one long ago would say that the token still counts."""
    admin = place.admin()
    ends_us = place.clock.now_us() + 3_600_000_000
    older = insert(store.revoked_tokens).values(audit_id="x", expires_at_us=ends_us)
    place.database.write(lambda tx: tx.execute(older))
    now = f"{iso_us(place.clock.now_us())}Z"
    for since in ("", now):
        [event] = admin.get(f"/OS-REVOKE/events?since={since}").json()["events"]
        assert event == {"audit_id": "x", "issued_before": now, "revoked_at": now}


def test_a_time_that_cannot_be_read_is_refused(place: Place) -> None:
    assert place.admin().get("/OS-REVOKE/events?since=yesterday").status_code == 400
