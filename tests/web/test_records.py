"""What is kept of requests: the audit trail, the logs, the metrics. None of it holds a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from pathlib import Path

import pytest

from cumulet.web.app import App
from cumulet.web.audit import Audit, first_broken_line
from cumulet.web.context import Cloud
from cumulet.web.log import JsonFormatter, log_as_json, redact
from cumulet.web.metrics import RequestMetrics
from tests.web.conftest import Client
from tests.web.widgets import SERVICES

W = "/compute/v2.1/widgets"


def make_requests(cloud: Cloud, path: Path) -> None:
    audit = Audit(path)
    client = Client(App(cloud, SERVICES, audit=audit))

    async def requests() -> None:
        await client.send("GET", f"{W}/w1?name=hunter2")
        await client.send("POST", f"{W}/w1/action", {"move": {"host": None, "block": True}})
        await client.send("POST", W, {"widget": {"name": "x", "adminPass": "hunter2"}})
        await client.send("DELETE", f"{W}/w1", token="reader")
        await client.send("GET", f"{W}/w1", token="hunter2")

    asyncio.run(requests())
    audit.close()


def test_changes_and_refusals_are_kept_and_reads_are_not(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make_requests(cloud, path)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e["action"], e["outcome"], e["reason"]["reasonCode"]) for e in events] == [
        ("compute/create/move", "success", 202),
        ("compute/create", "success", 202),
        ("compute/delete", "failure", 403),
        ("compute/read", "failure", 401),
    ]
    assert events[0]["initiator"] == {"id": "user-1", "project_id": "a" * 32, "token": "", "host": "192.0.2.7"}
    assert events[3]["initiator"]["id"] is None
    assert "hunter2" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_chain_goes_on_after_a_restart_and_breaks_where_it_is_touched(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make_requests(cloud, path)
    make_requests(cloud, path)
    assert first_broken_line(path) is None
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *lines[3:]]))
    assert first_broken_line(path) == 3
    path.write_text("".join(lines).replace("192.0.2.7", "192.0.2.8", 1))
    assert first_broken_line(path) == 2


def test_a_line_cut_short_by_a_crash_spoils_only_itself(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make_requests(cloud, path)
    whole = path.read_text()
    path.write_text(whole[:-40])
    make_requests(cloud, path)
    assert first_broken_line(path) == 4
    assert len(path.read_text().splitlines()) == 8


@pytest.mark.parametrize(
    "text",
    [
        "X-Auth-Token: hunter2",
        "headers {'X-Subject-Token': 'hunter2'}",
        '{"auth": {"password": "hunter2", "user": "u"}}',
        "adminPass='hunter2'",
        "password=hunter2",
        "postgresql://cumulet:hunter2@db/cumulet",
        "Authorization: Bearer.hunter2",
        "token gAAAAABhunter2hunter2hunter2hunter2",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
        '{"user_data": "hunter2"}',
        "secret: hunter2",
    ],
)
def test_secrets_are_taken_out_of_logs(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert redact(text) != text


@pytest.mark.parametrize("text", ["server a1b2 moved to host2", "GET /compute/v2.1/servers", "2 tokens seen"])
def test_and_nothing_else(text: str) -> None:
    assert redact(text) == text


def test_logs_are_json_lines_with_secrets_taken_out_of_all_parts() -> None:
    stream = io.StringIO()
    handler = log_as_json(stream)
    logger = logging.getLogger("tests.web")
    try:
        try:
            raise ValueError("password=hunter2")
        except ValueError:
            logger.exception(
                "could not use %s", "secret=hunter2", extra={"request_id": "req-1", "what": "token=hunter2"}
            )
    finally:
        logging.getLogger().removeHandler(handler)
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert "hunter2" not in stream.getvalue()
    assert (line["level"], line["logger"], line["request_id"]) == ("ERROR", "tests.web", "req-1")
    assert "ValueError" in line["exception"]


def test_the_access_log_has_no_query(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cumulet.access"):
        client = Client(App(cloud, SERVICES))
        asyncio.run(client.send("GET", f"{W}/w1?name=hunter2", token="member"))
    (record,) = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["status"], line["user_id"]) == (f"GET {W}/w1", 200, "user-1")
    assert "hunter2" not in JsonFormatter().format(record)


def test_a_clients_global_request_id_is_logged_if_it_is_one(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    client = Client(App(cloud, SERVICES))
    good = "req-11111111-1111-1111-1111-111111111111"
    with caplog.at_level(logging.INFO, "cumulet.access"):
        for given in (good, "req-nonsense", f"{good}\x0bforged"):
            asyncio.run(client.send("GET", W, headers={"X-OpenStack-Request-Id": given}))
    assert [vars(record)["global_request_id"] for record in caplog.records] == [good, None, None]


def test_metrics_count() -> None:
    metrics = RequestMetrics()
    metrics.count("compute", "GET", 200, 0.003)
    metrics.count("compute", "GET", 200, 7.0)
    text = metrics.text().decode()
    assert 'cumulet_http_requests_total{method="GET",service="compute",status="200"} 2.0' in text
    assert 'cumulet_http_request_duration_seconds_bucket{le="0.005",service="compute"} 1.0' in text
    assert 'cumulet_http_request_duration_seconds_bucket{le="+Inf",service="compute"} 2.0' in text
