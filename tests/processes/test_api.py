"""An API alone, beside a whole cloud on one PostgreSQL: a conductor of the cloud carries what it begins."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

import cumulet.testing
from cumulet.cli.program import run
from cumulet.db.schema import OtherState
from cumulet.processes.api import api_alone
from cumulet.processes.parts import PARTS
from cumulet.processes.serving import Api
from cumulet.settings import Settings
from cumulet.testing import TestCloud
from cumulet.testing.client import Client
from cumulet.testing.databases import VARIABLE, own_database
from cumulet.web.audit import verify
from cumulet.web.sampling import OF_ONE
from tests.identity.test_postgresql import database_url as server_url

__all__ = ["server_url"]


@pytest.fixture
def database_url(server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a database of the test's own: each of its clouds has another folder."""
    monkeypatch.setenv(VARIABLE, server_url)
    with own_database(tmp_path, temporary=True) as url:
        yield url


@contextmanager
def api_beside(cloud: TestCloud, own: Path, **others: str) -> Iterator[tuple[Api, httpx.Client]]:
    """A second API on the cloud's database, with its own port, its own audit trail and settings `others`."""
    stack = AsyncExitStack()
    settings = replace(cloud.embedded.settings, listen_port=0, **others)
    api = cloud.await_(stack.enter_async_context(api_alone(PARTS, settings, own)))
    trusted = ssl.create_default_context(cafile=str(cloud.cacert))
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{api.server.port}", verify=trusted, timeout=60) as http:
            yield api, http
    finally:
        cloud.await_(stack.aclose())


@pytest.mark.postgres
def test_what_is_begun_at_an_api_alone_is_carried_by_the_cloud(database_url: str, tmp_path: Path) -> None:
    with cumulet.testing.cloud(hosts=2, database_url=database_url, lease_seconds=1.0) as cloud:
        member = cloud.persona("member")
        own = tmp_path / "second"
        with api_beside(cloud, own) as (_, http):
            there = Client(http, member.token, project_id=member.project_id, user_id=member.user_id)
            flavor = there.compute("GET", "/flavors")["flavors"][0]["id"]
            image = there.request("GET", "/image/v2/images")["images"][0]["id"]
            body = {"server": {"name": "s", "flavorRef": flavor, "imageRef": image, "networks": "none"}}
            server_id = there.compute("POST", "/servers", body, version="2.37")["server"]["id"]
            assert there.wait_for_status(server_id, "ACTIVE")["status"] == "ACTIVE"
            assert member.server(server_id)["status"] == "ACTIVE"
            assert (own / "audit.jsonl").read_bytes().count(b'"eventType":"activity"') >= 1
            ended = http.request(
                "DELETE",
                "/identity/v3/auth/tokens",
                headers={
                    "X-Auth-Token": member.token or "",
                    "X-Subject-Token": member.token or "",
                },
            )
            assert ended.status_code == 204
            assert member.compute("GET", "/servers").status == 401, "the other process honours a token that was ended"
        assert cloud.persona("admin").compute("GET", "/servers").status == 200, "one API ending ends no other"


@pytest.mark.postgres
def test_refusals_that_have_no_line_are_counted_before_the_trail_ends(database_url: str, tmp_path: Path) -> None:
    with cumulet.testing.cloud(hosts=1, database_url=database_url) as cloud:
        member = cloud.user("refused", project="refused", roles=("member",))
        own = tmp_path / "second"
        with api_beside(cloud, own) as (_, http):
            there = Client(http, member.token, project_id=member.project_id, user_id=member.user_id)
            for _ in range(OF_ONE + 5):
                assert there.compute("POST", "/servers/nothing/action", {"os-start": None}).status == 404
        lines = (own / "audit.jsonl").read_text().splitlines()
        assert [event.get("leftOut") for event in map(json.loads, lines)] == [None] * OF_ONE + [5]
        assert verify(own / "audit.jsonl").number == OF_ONE + 1


def test_a_database_of_one_process_is_refused(tmp_path: Path) -> None:
    async def start() -> None:
        settings = Settings(state_dir=tmp_path, database_url=f"sqlite:///{tmp_path / 'cumulet.db'}")
        async with api_alone(PARTS, settings, tmp_path / "own"):
            raise AssertionError("it serves")

    with pytest.raises(OtherState, match="needs PostgreSQL"):
        asyncio.run(start())


@pytest.mark.postgres
def test_apis_with_addresses_of_their_own_keep_their_certificates(database_url: str, tmp_path: Path) -> None:
    """APIs restart at any moment, and each has a certificate of its own."""
    with cumulet.testing.cloud(hosts=1, database_url=database_url) as cloud:
        first = cloud.embedded.settings.state_dir / "ca" / "api" / "server-cert.pem"
        before = first.read_bytes()
        with api_beside(cloud, tmp_path / "second", public_url="https://cloud.example.org:8774") as (api, _):
            assert api.certificate.certificate.is_relative_to(tmp_path / "second")
            assert first.read_bytes() == before


@pytest.mark.postgres
def test_a_database_that_nothing_was_prepared_in_is_refused(server_url: str, tmp_path: Path) -> None:
    async def start() -> None:
        settings = Settings(state_dir=tmp_path, database_url=server_url.replace("/postgres?", "/template1?"))
        async with api_alone(PARTS, settings, tmp_path / "own"):
            raise AssertionError("it serves")

    with pytest.raises(OtherState, match="`cumulet up`"):
        asyncio.run(start())
    assert not list(tmp_path.iterdir()), "a refused start leaves something behind"


@pytest.mark.postgres
def test_a_policy_file_that_cannot_be_used_is_a_bad_argument(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("no rule of ours: role:admin")
    with cumulet.testing.cloud(hosts=1, state=tmp_path / "state", database_url=database_url):
        monkeypatch.setenv("CUMULET_DATABASE", database_url)
        state, own = str(tmp_path / "state"), str(tmp_path / "own")
        bus = ["--bus", "nats://127.0.0.1:1", "--set", f"policy_file={policy}"]
        assert run(["api", "--state", state, "--own", own, "--listen", "127.0.0.1:0", *bus]) == 2
    words = capsys.readouterr().err
    assert "policy_file" in words
    assert "Traceback" not in words
