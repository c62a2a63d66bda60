"""The HTTP client of one persona, for tests. It knows tokens and paths, nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from cumulet.web.secret_names import SECRET_NAMES

T = TypeVar("T")
JsonObject = dict[str, Any]
"""An object in an answer. Its keys are the API's: whoever looks into it says what must be there."""

POLL_SECONDS = 0.01
ENDED = "this cloud has ended with its `with` block: nothing can be asked of it any more"
_SECRET = re.compile(rf'(?i)"({"|".join(SECRET_NAMES)})"(\s*:\s*)"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of one response."""

    status: int
    headers: httpx.Headers
    text: str
    json: Any

    def __repr__(self) -> str:
        """For failing tests: no headers, which may hold a token, and no secret of the body."""
        shown = _SECRET.sub(r'"\1"\2"***"', self.text)
        return f"Answer(status={self.status}, text={shown!r})"

    def __getitem__(self, key: str) -> Any:
        return self.json[key]


@dataclass(slots=True)
class Client:
    """One caller. `token` None sends none. `version`: the compute microversion of requests that name no other."""

    http: httpx.Client = field(repr=False)
    token: str | None = field(repr=False)
    project_id: str | None = None
    user_id: str | None = None
    version: str = "2.96"

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        version: str | None = None,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        """Send one request and return its answer, whatever the status. `path` begins at the cloud's root, or is a link
        of this cloud.

        RuntimeError once the cloud has ended. ValueError for a link to another place, which must not get the token.
        """
        if self.http.is_closed:
            raise RuntimeError(ENDED)
        url, ours = httpx.URL(path), self.http.base_url
        if url.host and (url.scheme, url.host, url.port) != (ours.scheme, ours.host, ours.port):
            raise ValueError(f"{url.scheme}://{url.netloc.decode()} is not this cloud, and is not to see its token")
        sent = {"Accept": "application/json"}
        if "/compute/" in path:
            sent["OpenStack-API-Version"] = f"compute {version or self.version}"
        if self.token is not None:
            sent["X-Auth-Token"] = self.token
        sent.update(headers or {})
        if content is not None:
            response = self.http.request(method, path, content=content, headers=sent)
        elif body is not None:
            response = self.http.request(method, path, json=body, headers=sent)
        else:
            response = self.http.request(method, path, headers=sent)
        is_json = response.headers.get("content-type", "").startswith("application/json") and response.content
        return Answer(response.status_code, response.headers, response.text, response.json() if is_json else None)

    def compute(self, method: str, path: str, body: object = None, *, version: str | None = None) -> Answer:
        """``compute("POST", "/servers", {...})``"""
        return self.request(method, f"/compute/v2.1{path}", body, version=version)

    def action(self, server_id: str, action: Mapping[str, object], *, version: str | None = None) -> Answer:
        """``action(server_id, {"os-migrateLive": {...}})``"""
        return self.compute("POST", f"/servers/{server_id}/action", action, version=version)

    def server(self, server_id: str, *, version: str | None = None) -> JsonObject:
        """The server as this caller sees it."""
        answer = self.compute("GET", f"/servers/{server_id}", version=version)
        assert answer.status == 200, answer.text
        found: JsonObject = answer["server"]
        return found

    def wait(self, what: str, condition: Callable[[], T | None], *, seconds: float = 30.0) -> T:
        """Ask until `condition` answers something true; AssertionError names `what` when time is up."""
        until = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > until:
                raise AssertionError(f"waited {seconds:g} s in vain for {what}")
            time.sleep(POLL_SECONDS)

    def wait_for_status(self, server_id: str, status: str, *, seconds: float = 30.0) -> JsonObject:
        """Wait until the server has this status and no task."""

        def reached() -> JsonObject | None:
            server = self.server(server_id)
            idle = server["OS-EXT-STS:task_state"] is None
            assert server["status"] != "ERROR" or status == "ERROR", server.get("fault")
            return server if server["status"] == status and idle else None

        return self.wait(f"server {server_id} to be {status}", reached, seconds=seconds)
