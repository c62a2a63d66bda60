"""Random sequences of logins, exchanges, revocations and waiting: each token counts exactly as long as it should."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.api.identity.place import UNSCOPED, Place, Session, project


@dataclass
class Known:
    """A token as the model knows it."""

    session: Session
    scoped: bool
    expires_us: int
    parent: Known | None
    ended: bool = False
    descendants: list[Known] = field(default_factory=list)

    def end(self) -> None:
        self.ended = True
        for child in self.descendants:
            child.end()


class Chains(RuleBasedStateMachine):
    """One user with one role in one project, an administrator, and time."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.place = Place(Path(self._folder.name))
        self.admin = self.place.admin()
        self.tokens: list[Known] = []
        self.password = self.place.passwords.by_user["demo"]
        self.user_enabled = self.project_enabled = self.has_role = True

    @initialize()
    def find(self) -> None:
        self.user, self.home = self.admin.id_of("users", "demo"), self.admin.id_of("projects", "demo")
        member = self.admin.id_of("roles", "member")
        self.grant = f"/projects/{self.home}/users/{self.user}/roles/{member}"

    def counts(self, token: Known) -> bool:
        alive = not token.ended and self.user_enabled and token.expires_us > self.place.clock.now_us()
        return alive and (not token.scoped or (self.project_enabled and self.has_role))

    def scope(self, scoped: bool) -> Any:
        return project("demo") if scoped else UNSCOPED

    def may(self, scoped: bool) -> bool:
        return self.user_enabled and (not scoped or (self.project_enabled and self.has_role))

    @rule(scoped=st.booleans())
    def login(self, scoped: bool) -> None:
        self.place.clock.advance(6)  # stay below the limit of failed logins
        if self.may(scoped):
            session = self.place.login("demo", self.password, self.scope(scoped))
            expires = (self.place.clock.now_us() // 1_000_000 + 3600) * 1_000_000
            self.tokens.append(Known(session, scoped, expires, None))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), scoped=st.booleans())
    def exchange(self, data: st.DataObject, scoped: bool) -> None:
        parent = data.draw(st.sampled_from(self.tokens))
        answer = self.place.exchange(parent.session, self.scope(scoped))
        if not self.counts(parent):
            assert answer.status_code == 404
        elif not self.may(scoped):
            assert answer.status_code == 401
        else:
            assert answer.status_code == 201, answer.text
            made = Session(self.place, answer.headers["x-subject-token"], answer.json()["token"])
            assert made.body["expires_at"] == parent.session.body["expires_at"]
            assert made.body["audit_ids"][-1] == parent.session.body["audit_ids"][-1]
            assert made.body["audit_ids"][0] not in {t.session.body["audit_ids"][0] for t in self.tokens}
            child = Known(made, scoped, parent.expires_us, parent)
            parent.descendants.append(child)
            self.tokens.append(child)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(self.tokens))
        self.admin_again()
        answer = self.admin.delete("/auth/tokens", {"X-Subject-Token": str(token.session.token)})
        assert answer.status_code == (204 if self.counts(token) else 404)
        if answer.status_code == 204:
            token.end()

    @rule(seconds=st.sampled_from([0.000001, 1, 600, 1799.5, 3600]))
    def pass_time(self, seconds: float) -> None:
        self.place.clock.advance(seconds)

    @rule()
    def set_password(self) -> None:
        self.password = f"password {len(self.tokens)} {self.place.clock.now_us()}"
        self.change(f"/users/{self.user}", {"user": {"password": self.password}})
        for token in self.tokens:
            token.end()

    @rule(enabled=st.booleans())
    def enable_user(self, enabled: bool) -> None:
        self.change(f"/users/{self.user}", {"user": {"enabled": enabled}})
        self.user_enabled = enabled
        if not enabled:
            for token in self.tokens:
                token.end()

    @rule(enabled=st.booleans())
    def enable_project(self, enabled: bool) -> None:
        self.change(f"/projects/{self.home}", {"project": {"enabled": enabled}})
        self.project_enabled = enabled
        if not enabled:
            for token in self.tokens:
                token.ended = token.ended or token.scoped

    @rule(given=st.booleans())
    def give_role(self, given: bool) -> None:
        self.admin_again()
        answer = self.admin.put(self.grant) if given else self.admin.delete(self.grant)
        assert answer.status_code in (204, 404)
        self.has_role = given

    @invariant()
    def every_token_counts_as_it_should(self) -> None:
        for token in self.tokens:
            assert token.session.still_counts() == self.counts(token)

    def change(self, path: str, body: object) -> None:
        self.admin_again()
        assert self.admin.patch(path, body).status_code == 200

    def admin_again(self) -> None:
        if not self.admin.still_counts():
            self.admin = self.place.admin()

    def teardown(self) -> None:
        self.place.close()
        self._folder.cleanup()


TestChains = Chains.TestCase
TestChains.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
