"""Who lets others act by application credentials and trusts, and who acts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cumulet.testing import JsonObject
from tests.api.identity.place import UNSCOPED, Place, Session, project


class Maker:
    """Somebody with two roles in a project who lets others act, and somebody who acts."""

    def __init__(self, place: Place) -> None:
        self.place, self.admin = place, place.admin()
        self.home = self.admin.made("project", "projects", name="home")["id"]
        self.ids = {}
        for name in ("maker", "helper", "third"):
            self.ids[name] = self.admin.made("user", "users", name=name, password=f"{name}-own")["id"]
        self.roles = {role["name"]: role["id"] for role in self.admin.get("/roles").json()["roles"]}
        self.extra = self.admin.made("role", "roles", name="extra")["id"]
        self.grants = [f"/projects/{self.home}/users/{self.ids['maker']}/roles/{r}" for r in self._given()]
        for grant in self.grants:
            assert self.admin.put(grant).status_code == 204

    def _given(self) -> Iterator[str]:
        yield self.roles["member"]
        yield self.extra

    def session(self, name: str = "maker", scope: object = None) -> Session:
        return self.place.login(name, f"{name}-own", scope or (project("home") if name == "maker" else UNSCOPED))

    # -- application credentials

    def credential(self, session: Session | None = None, **body: object) -> JsonObject:
        session = session or self.session()
        path = f"/users/{self.ids['maker']}/application_credentials"
        made = session.post(path, {"application_credential": {"name": "program", **body}})
        assert made.status_code == 201, made.text
        found: dict[str, object] = made.json()["application_credential"]
        return found

    def enter(self, credential: Mapping[str, object], **changes: object) -> Session:
        method = {"id": credential["id"], "secret": credential["secret"], **changes}
        identity = {"methods": ["application_credential"], "application_credential": method}
        answer = self.place.authenticate({"identity": identity})
        if answer.status_code != 201:
            return Session(self.place, None, answer.json())
        return Session(self.place, answer.headers["x-subject-token"], answer.json()["token"])

    # -- trusts

    def trust(self, session: Session | None = None, **body: object) -> JsonObject:
        made = (session or self.session()).post("/OS-TRUST/trusts", {"trust": self.new_trust(**body)})
        assert made.status_code == 201, made.text
        found: dict[str, object] = made.json()["trust"]
        return found

    def new_trust(self, **body: object) -> JsonObject:
        return {
            "trustor_user_id": self.ids["maker"],
            "trustee_user_id": self.ids["helper"],
            "project_id": self.home,
            "impersonation": True,
            "roles": [{"name": "extra"}],
            **body,
        }

    def use(self, trust: Mapping[str, object], name: str = "helper") -> Session:
        return self.place.login(name, f"{name}-own", {"OS-TRUST:trust": {"id": trust["id"]}})

    def refused(self, trust: Mapping[str, object], name: str = "helper") -> int:
        named = {"name": name, "domain": {"id": "default"}, "password": f"{name}-own"}
        identity = {"methods": ["password"], "password": {"user": named}}
        auth = {"identity": identity, "scope": {"OS-TRUST:trust": {"id": trust["id"]}}}
        return self.place.authenticate(auth).status_code
