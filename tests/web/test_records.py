"""What is kept of requests: the audit trail, the logs, the metrics. None of it holds a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from pathlib import Path

import httpx
import pytest

from cumulet.owned import Exposed
from cumulet.testing.client import Answer
from cumulet.web.app import App
from cumulet.web.audit import Audit, Broken, Head, verify
from cumulet.web.context import Cloud
from cumulet.web.log import JsonFormatter, end_log, log_to, redact
from cumulet.web.metrics import RequestMetrics
from cumulet.web.refusals import echo
from cumulet.web.repeats import SAME_LINES, SAME_SECONDS, Repeats
from cumulet.web.secret_names import SECRET_NAMES
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


def broken(path: Path, noted: Head | None = None) -> str:
    with pytest.raises(Broken) as found:
        verify(path, noted)
    return str(found.value)


def test_the_chain_goes_on_after_a_restart_and_breaks_where_it_is_touched(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make_requests(cloud, path)
    early = verify(path)
    assert early.number == 4
    make_requests(cloud, path)
    assert verify(path).number == 8
    assert verify(path, early).number == 8
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *lines[3:]]))
    assert "line 3 does not follow" in broken(path)
    path.write_text("".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    assert "line 3 does not follow" in broken(path)
    path.write_text("".join(lines).replace("192.0.2.7", "192.0.2.8", 1))
    assert "line 1 was changed" in broken(path)
    path.write_text("".join(lines[:-1]))
    assert broken(path) == "it ends with line 7, and there were 8"


def test_a_chain_cannot_be_computed_anew_without_its_key(cloud: Cloud, tmp_path: Path) -> None:
    path, forged = tmp_path / "audit.jsonl", tmp_path / "forged" / "audit.jsonl"
    make_requests(cloud, path)
    forged.parent.mkdir()
    make_requests(cloud, forged)
    path.write_bytes(forged.read_bytes())
    assert "line 1 was changed, or written without the key" in broken(path)
    path.with_suffix(".head").write_bytes(forged.with_suffix(".head").read_bytes())
    assert "line 1" in broken(path)
    path.with_suffix(".key").chmod(0o640)
    with pytest.raises(Exposed):
        verify(path)


def test_a_chain_without_a_line_is_whole_and_a_head_that_was_emptied_is_none(cloud: Cloud, tmp_path: Path) -> None:
    path, head = tmp_path / "audit.jsonl", tmp_path / "audit.head"
    Audit(path).close()
    begun = verify(path)
    assert begun.number == 0
    Audit(path).close()  # a restart
    assert verify(path, begun) == begun
    make_requests(cloud, path)
    lines = path.read_bytes()
    assert verify(path, begun).number == 4
    path.write_bytes(b"")
    assert broken(path) == "it ends with line 0, and there were 4"
    for content in (lines, b""):
        path.write_bytes(content)
        head.write_bytes(b"")
        assert "its head (audit.head) is missing or was changed" in broken(path)
        head.unlink()
        assert "its head (audit.head) is missing or was changed" in broken(path)


def test_a_crash_between_the_first_line_and_its_head_breaks_nothing(cloud: Cloud, tmp_path: Path) -> None:
    path, head = tmp_path / "audit.jsonl", tmp_path / "audit.head"
    Audit(path).close()
    begun = head.read_bytes()
    make_requests(cloud, path)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    head.write_bytes(begun)
    assert verify(path).number == 1
    make_requests(cloud, path)
    assert verify(path).number == 5


def test_a_chain_whose_end_was_cut_off_stays_broken_however_it_goes_on(cloud: Cloud, tmp_path: Path) -> None:
    path, head = tmp_path / "audit.jsonl", tmp_path / "audit.head"
    make_requests(cloud, path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    make_requests(cloud, path)
    assert "line 4 does not follow" in broken(path)
    path.unlink()
    make_requests(cloud, path)
    assert "line 1 does not follow" in broken(path)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    make_requests(cloud, fresh / "audit.jsonl")
    head = fresh / "audit.head"
    head.unlink()
    assert "its head (audit.head) is missing" in broken(fresh / "audit.jsonl")
    make_requests(cloud, fresh / "audit.jsonl")
    assert "line 5 does not follow" in broken(fresh / "audit.jsonl")


def test_a_head_that_was_noted_elsewhere_finds_an_older_copy_of_everything(cloud: Cloud, tmp_path: Path) -> None:
    path, head = tmp_path / "audit.jsonl", tmp_path / "audit.head"
    make_requests(cloud, path)
    older = path.read_bytes(), head.read_bytes()
    make_requests(cloud, path)
    noted = verify(path)
    path.write_bytes(older[0])
    head.write_bytes(older[1])
    assert verify(path).number == 4
    assert "ends with line 4: the head that was noted is that of line 8" in broken(path, noted)
    make_requests(cloud, path)
    assert "line 8 is not the one" in broken(path, Head(number=8, code="0" * 64))


def test_a_crash_between_a_line_and_its_head_breaks_nothing(cloud: Cloud, tmp_path: Path) -> None:
    path, head = tmp_path / "audit.jsonl", tmp_path / "audit.head"
    audit = Audit(path)
    client = Client(App(cloud, SERVICES, audit=audit))
    asyncio.run(client.send("POST", W, {"widget": {"name": "x"}}))
    before = head.read_bytes()
    asyncio.run(client.send("POST", W, {"widget": {"name": "y"}}))
    audit.close()
    head.write_bytes(before)
    assert verify(path).number == 2
    make_requests(cloud, path)
    assert verify(path).number == 6


def test_a_line_cut_short_by_a_crash_spoils_only_itself(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make_requests(cloud, path)
    whole = path.read_text()
    path.write_text(whole[:-40])
    make_requests(cloud, path)
    assert broken(path) == "line 4 is no whole line"
    assert len(path.read_text().splitlines()) == 8


def test_a_log_from_before_there_was_a_key_is_put_aside(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"previous":"0"}\n')
    make_requests(cloud, path)
    assert verify(path).number == 4
    assert (tmp_path / "audit-without-key.jsonl").read_text() == '{"previous":"0"}\n'


@pytest.mark.parametrize(
    "text",
    [
        "X-Auth-Token: hunter2",
        "headers {'X-Subject-Token': 'hunter2'}",
        '{"auth": {"password": "hunter2", "user": "u"}}',
        "adminPass='hunter2'",
        "password=hunter2",
        "postgresql://cumulet:hunter2@db/cumulet",
        "Authorization: Bearer hunter2",
        "headers {'Authorization': 'Basic hunter2', 'Accept': '*/*'}",
        'Authorization: OAuth realm="", oauth_consumer_key="c", oauth_signature="hunter2"',
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


@pytest.mark.parametrize("piece", ["a", "://a", "token ", 'token="', "authorization", "gAAAAA", "key -----BEGIN "])
def test_a_long_text_does_not_hold_up_whoever_logs_it(piece: str) -> None:
    """Measured is processor time, and of several attempts the least: some milliseconds, not seconds."""

    def seconds() -> float:
        begun = time.thread_time()
        redact("key " + piece * (100_000 // len(piece)))
        return time.thread_time() - begun

    assert min(seconds() for _ in range(3)) < 0.2


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize("form", ["{{'{name}': 'hunter2'}}", '{{"{name}": {{"{name}": "hunter2"}}}}', "{name}=hunter2"])
def test_every_name_of_a_secret_is_known_to_logs_refusals_and_answers(name: str, form: str) -> None:
    assert "hunter2" not in redact(form.format(name=name))
    assert "hunter2" not in redact(form.format(name=name.upper()))
    assert "hunter2" not in echo({name: {"in": "hunter2"}})
    assert "hunter2" not in repr(Answer(200, httpx.Headers(), f'{{"{name}": "hunter2"}}', None))


@pytest.mark.parametrize("text", ["server a1b2 moved to host2", "GET /compute/v2.1/servers", "2 tokens seen"])
def test_and_nothing_else(text: str) -> None:
    assert redact(text) == text


def test_logs_are_json_lines_with_secrets_taken_out_of_all_parts() -> None:
    stream = io.StringIO()
    handler = log_to(stream)
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


def line(message: str, *values: object, at: float) -> logging.LogRecord:
    record = logging.LogRecord("some", logging.WARNING, "", 0, message, values, None)
    record.created = at
    return record


def test_lines_that_repeat_are_counted_and_the_count_is_said() -> None:
    said: list[logging.LogRecord] = []
    repeats = Repeats(said.append)
    passed = [repeats.filter(line("cannot accept: %s", n, at=n / 1000)) for n in range(1000)]
    assert sum(passed) == SAME_LINES
    assert repeats.filter(line("another", at=1.0))
    assert said == []
    assert repeats.filter(line("another", at=SAME_SECONDS + 0.5))
    assert [(record.getMessage(), vars(record)["repeated"]) for record in said] == [("cannot accept: 10", 990)]
    assert repeats.filter(line("cannot accept: %s", 0, at=SAME_SECONDS + 0.5))


def test_lines_of_the_event_loop_about_different_objects_repeat(caplog: pytest.LogCaptureFixture) -> None:
    """A client that makes an exception in a callback each time could fill a disk."""
    repeats, many = Repeats(lambda _: None), SAME_LINES + 5

    async def story() -> None:
        loop = asyncio.get_running_loop()
        for one in [object() for _ in range(many)]:  # at once, so their addresses differ
            loop.call_soon(list[object]().remove, one)
            loop.call_exception_handler({"message": "Fatal error on SSL protocol", "protocol": one})
        await asyncio.sleep(0)

    asyncio.run(story())
    assert len({record.msg for record in caplog.records}) == 2 * many
    assert sum(repeats.filter(record) for record in caplog.records) == 2 * SAME_LINES


def test_the_last_counts_are_said_when_the_log_is_closed() -> None:
    stream = io.StringIO()
    handler = log_to(stream)
    try:
        for n in range(SAME_LINES + 5):
            logging.getLogger("some").warning("again %s", n)
    finally:
        end_log(handler)
    lines = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert len(lines) == SAME_LINES + 1
    assert (lines[-1]["repeated"], lines[-1]["message"]) == (5, "again 10")


def test_the_example_beside_a_count_is_short_and_hides_secrets_as_any_line() -> None:
    stream = io.StringIO()
    handler = log_to(stream)
    try:
        for _ in range(SAME_LINES + 1):
            logging.getLogger("some").warning("100%%: %s", "password=hunter2, 50%s " + "x" * 5000)
    finally:
        end_log(handler)
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert last["repeated"] == 1
    assert last["message"].startswith("100%: password=***, 50%s xxx")
    assert "hunter2" not in stream.getvalue()
    assert len(last["message"]) <= 1000
