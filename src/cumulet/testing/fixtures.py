"""For suites written like Nova's own: `PolicyFixture`, `NeutronFixture`, `OSAPIFixture`. Secure: they are the product.

Fixtures used at the same time share one cloud, started by the first, stopped with the last. There is nothing to switch
off: tokens come from passwords, every request passes the real rules, networks belong to projects. To allow more (or
less) than the defaults, a test says so with `PolicyFixture(rules={...})`, as an operator would in policy.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fixtures
import yaml

from cumulet.testing.client import Answer, Client, JsonObject
from cumulet.testing.running import TestCloud, cloud
from cumulet.web.policy import RULES


class OpenStackApiException(Exception):
    """An answer with a status of 400 or more. `status_code` and `text` are the response's."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status}: {answer.text}")
        self.status_code = answer.status
        self.text = answer.text
        self.response = answer


class _Shared:
    """The one cloud of the fixtures in use."""

    def __init__(self) -> None:
        self._users = 0
        self._stack = ExitStack()
        self._cloud: TestCloud | None = None
        self.policy_file: Path | None = None

    def use(self) -> TestCloud:
        if self._cloud is None:
            self._cloud = self._stack.enter_context(cloud(hosts=2, policy_file=self.policy_file))
        self._users += 1
        return self._cloud

    def let_go(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._cloud = None
            self._stack.close()

    @property
    def running(self) -> bool:
        return self._cloud is not None


_shared = _Shared()


class PolicyFixture(fixtures.Fixture):
    """The real policy. `rules` overrides some rules by name, as policy.yaml would; use it before the other fixtures."""

    def __init__(self, rules: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._overrides = dict(rules or {})

    def _setUp(self) -> None:
        if self._overrides:
            if _shared.running:
                raise RuntimeError("PolicyFixture(rules=...) comes before the fixtures that start the cloud")
            folder = self.useFixture(fixtures.TempDir()).path
            _shared.policy_file = Path(folder) / "policy.yaml"
            _shared.policy_file.write_text(yaml.safe_dump(self._overrides), encoding="utf-8")
            self.addCleanup(setattr, _shared, "policy_file", None)
        self.cloud = _shared.use()
        self.addCleanup(_shared.let_go)

    @property
    def rules(self) -> dict[str, str]:
        """Every rule in force: name -> check string."""
        return {rule.name: self._overrides.get(rule.name, rule.check) for rule in RULES.values() if not rule.base}


class NeutronFixture(fixtures.Fixture):
    """Real networks of real projects: a network with a subnet for the fixtures' own project, none for the other one."""

    def __init__(self, test: object = None) -> None:
        super().__init__()

    def _setUp(self) -> None:
        self.cloud = _shared.use()
        self.addCleanup(_shared.let_go)
        member = self.cloud.persona("member")
        self.network = _created(member, "network", {"name": "fixture"})
        self.subnet = _created(
            member, "subnet", {"network_id": self.network["id"], "cidr": "192.168.1.0/24", "ip_version": 4}
        )

    def list_ports(self, persona: str = "member") -> list[JsonObject]:
        """The ports this persona can see."""
        ports: list[JsonObject] = self.cloud.persona(persona).request("GET", "/network/v2.0/ports")["ports"]
        return ports


def _created(client: Client, kind: str, values: Mapping[str, object]) -> JsonObject:
    answer = client.request("POST", f"/network/v2.0/{kind}s", {kind: values})
    if answer.status != 201:
        raise OpenStackApiException(answer)
    made: JsonObject = answer[kind]
    return made


class OSAPIFixture(fixtures.Fixture):
    """The API over HTTPS. `.api` is a member, `.admin_api` an administrator; there are more."""

    def __init__(self, api_version: str = "v2.1", microversion: str = "2.96") -> None:
        super().__init__()
        if api_version != "v2.1":
            raise ValueError(f"there is no API version {api_version!r}, only v2.1")
        self._microversion = microversion

    def _setUp(self) -> None:
        self.cloud = _shared.use()
        self.addCleanup(_shared.let_go)
        self.api = self._client("member")
        self.admin_api = self._client("admin")
        self.manager_api = self._client("manager")
        self.reader_api = self._client("reader")
        self.other_api = self._client("other_member")

    def _client(self, persona: str) -> ComputeClient:
        return ComputeClient(self.cloud.persona(persona), self._microversion)


class ComputeClient:
    """The calls that Nova's functional tests make, by the names they use there. Raises OpenStackApiException."""

    def __init__(self, client: Client, microversion: str) -> None:
        self._client = client
        self.microversion = microversion
        self.project_id = client.project_id

    def api_request(self, method: str, path: str, body: object = None) -> Answer:
        answer = self._client.compute(method, path, body, version=self.microversion)
        if answer.status >= 400:
            raise OpenStackApiException(answer)
        return answer

    def api_get(self, path: str) -> Answer:
        return self.api_request("GET", path)

    def api_post(self, path: str, body: object) -> Answer:
        return self.api_request("POST", path, body)

    def api_put(self, path: str, body: object) -> Answer:
        return self.api_request("PUT", path, body)

    def api_delete(self, path: str) -> Answer:
        return self.api_request("DELETE", path)

    def post_server(self, body: Mapping[str, object]) -> JsonObject:
        """The `server` of the answer, or the whole answer where that is a `reservation_id`."""
        answer: JsonObject = self.api_post("/servers", body).json
        made: JsonObject = answer.get("server", answer)
        return made

    def post_server_action(self, server_id: str, action: Mapping[str, object]) -> Any:
        return self.api_post(f"/servers/{server_id}/action", action).json

    def get_server(self, server_id: str) -> JsonObject:
        found: JsonObject = self.api_get(f"/servers/{server_id}")["server"]
        return found

    def get_servers(self, detail: bool = True, search_opts: Mapping[str, str] | None = None) -> list[JsonObject]:
        query = "&".join(f"{key}={value}" for key, value in (search_opts or {}).items())
        found: list[JsonObject] = self.api_get(f"/servers{'/detail' if detail else ''}?{query}")["servers"]
        return found

    def delete_server(self, server_id: str) -> None:
        self.api_delete(f"/servers/{server_id}")

    def get_flavors(self) -> list[JsonObject]:
        found: list[JsonObject] = self.api_get("/flavors/detail")["flavors"]
        return found

    def get_images(self) -> list[JsonObject]:
        found: list[JsonObject] = self._client.request("GET", "/image/v2/images")["images"]
        return found

    def get_migrations(self) -> list[JsonObject]:
        found: list[JsonObject] = self.api_get("/os-migrations")["migrations"]
        return found

    def get_instance_actions(self, server_id: str) -> list[JsonObject]:
        found: list[JsonObject] = self.api_get(f"/servers/{server_id}/os-instance-actions")["instanceActions"]
        return found

    def wait_for_state_change(self, server: JsonObject, status: str) -> JsonObject:
        """Wait until the server has this status and no task; returns the server."""
        return self._client.wait_for_status(server["id"], status)
