"""The audit trail and the access log cannot grow for ever, and a full disk breaks no chain."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import os
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path

import click
import pytest

from cumulet.cli import fleet
from cumulet.settings import Settings
from cumulet.web import audit as trail
from cumulet.web.app import App
from cumulet.web.audit import FILE_BYTES, FILES_KEPT, LONGEST_COUNT, LONGEST_REFUSAL, Audit, Broken, put_aside, verify
from cumulet.web.context import Cloud
from cumulet.web.log import end_log, log_to
from cumulet.web.operation import Caller
from cumulet.web.peer import peer_of
from cumulet.web.repeats import SAME_LINES
from cumulet.web.sampling import MOST_NAMED, OF_ALL, OF_ONE, WINDOW_SECONDS, Sampling
from cumulet.web.strangers import Strangers
from tests.web.conftest import Answer, Client
from tests.web.widgets import SERVICES

W = "/compute/v2.1/widgets"


def change(cloud: Cloud, audit: Audit, times: int, *, method: str = "DELETE", path: str = f"{W}/w1") -> list[Answer]:
    client = Client(App(cloud, SERVICES, audit=audit))

    async def requests() -> list[Answer]:
        return [await client.send(method, path) for _ in range(times)]

    return asyncio.run(requests())


def test_the_trail_goes_on_in_a_new_file_and_the_oldest_are_removed(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, file_bytes=3000, files_kept=2)
    change(cloud, audit, 50)
    assert verify(path).number == 50
    assert len(put_aside(path)) == 2
    assert sum(file.stat().st_size for file in (path, *put_aside(path))) <= 3 * 3000
    audit.close()
    audit = Audit(path, file_bytes=3000, files_kept=2)  # a restart
    change(cloud, audit, 1)
    audit.close()
    assert verify(path).number == 51


def test_files_put_aside_belong_to_the_chain(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, file_bytes=3000, files_kept=3)
    change(cloud, audit, 50)
    audit.close()
    oldest, second, _ = put_aside(path)
    kept = oldest.read_text()
    oldest.write_text(kept.replace("192.0.2.7", "192.0.2.8", 1))
    with pytest.raises(Broken, match="was changed"):
        verify(path)
    oldest.write_text(kept)
    assert verify(path).number == 50
    second.unlink()
    with pytest.raises(Broken, match="does not follow"):
        verify(path)
    oldest.unlink()
    with pytest.raises(Broken, match="does not follow"):
        verify(path)


def test_a_crash_between_two_files_breaks_nothing(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    change(cloud, audit, 3)
    audit._put_aside(3)  # and no line of the new file is written
    audit.close()
    audit = Audit(path)
    change(cloud, audit, 1)
    audit.close()
    assert verify(path).number == 4


def test_a_new_file_that_cannot_be_made_at_once_is_made_later(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then the old one is aside already."""
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, file_bytes=2000)

    def no_inode(_path: Path) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(trail, "_opened", no_inode)
        change(cloud, audit, 8)
        assert not path.exists()
        assert len(audit._waiting) > 2
    change(cloud, audit, 1)
    assert not audit._waiting
    audit.close()
    assert verify(path).number == 9


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A disk that writes only half a line while this list is not empty."""
    full = [True]
    write = os.write

    def half(file: int, data: bytes) -> int:
        return write(file, data[: len(data) // 2]) if full else write(file, data)

    monkeypatch.setattr(os, "write", half)
    return full


def test_on_a_full_disk_lines_wait_and_the_chain_is_whole_before_and_after(
    cloud: Cloud, tmp_path: Path, no_room: list[bool]
) -> None:
    path = tmp_path / "audit.jsonl"
    no_room.clear()
    audit = Audit(path)
    change(cloud, audit, 2)
    no_room.append(True)
    assert {answer.status for answer in change(cloud, audit, 3)} == {204}
    assert verify(path).number == 2
    no_room.clear()
    change(cloud, audit, 1)
    assert verify(path).number == 6
    audit.close()


def test_lines_that_wait_at_the_end_are_tried_once_more(cloud: Cloud, tmp_path: Path, no_room: list[bool]) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    change(cloud, audit, 3)
    no_room.clear()
    audit.close()
    assert verify(tmp_path / "audit.jsonl").number == 3


@pytest.mark.parametrize("written", [0, 2])
def test_lines_lost_at_the_end_are_counted_and_the_gap_is_found_for_ever(
    written: int, cloud: Cloud, tmp_path: Path, no_room: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    no_room.clear()
    audit = Audit(path)
    change(cloud, audit, written)
    no_room.append(True)
    change(cloud, audit, 3)
    assert verify(path).number == written
    audit.close()
    lost = [record.getMessage() for record in caplog.records if "are lost" in record.getMessage()]
    assert lost == ["lines of the audit trail are lost, for there was no room for them until the end: 3"]
    with pytest.raises(Broken, match=f"it ends with line {written}, and there were {written + 3}"):
        verify(path)
    no_room.clear()
    audit = Audit(path)
    change(cloud, audit, 1)
    audit.close()
    assert json.loads(path.read_text().splitlines()[-1])["number"] == written + 4
    with pytest.raises(Broken, match=f"line {written + 1} does not follow the one before it"):
        verify(path)


def test_where_too_many_lines_wait_nothing_is_changed_but_deleting_goes_on_longer(
    cloud: Cloud, tmp_path: Path, no_room: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "MOST_WAITING", 3)
    audit = Audit(tmp_path / "audit.jsonl")
    assert {answer.status for answer in change(cloud, audit, 3)} == {204}
    (refused,) = change(cloud, audit, 1, method="POST", path=W)
    assert refused.status == 507
    assert [answer.status for answer in change(cloud, audit, 4)] == [204, 204, 204, 507]
    assert change(cloud, audit, 1, method="GET")[0].status == 200
    no_room.clear()
    assert change(cloud, audit, 1)[0].status == 204
    assert verify(tmp_path / "audit.jsonl").number == 7
    audit.close()


def test_a_line_is_short_whatever_is_sent(cloud: Cloud, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cumulet.access")
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    client = Client(App(cloud, SERVICES, audit=audit))
    asyncio.run(client.send("DELETE", f"{W}/{'x' * 60_000}", token="nobody here"))
    asyncio.run(client.send("DELETE", f"{W}/{chr(1) * 60_000}"))
    asyncio.run(client.send("POST", f"{W}/w1/action", {"y" * 60_000: None}))
    asyncio.run(client.send("POST", f"{W}/{chr(1) * 60_000}/action", {chr(1) * 60_000: None}, token="reader"))
    audit.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) < LONGEST_REFUSAL
    assert max(len(record.getMessage()) for record in caplog.records if record.name == "cumulet.access") < 2000


@pytest.mark.parametrize("character", ["a", '"', chr(1), "é", "\U0001f600"])
def test_a_refusal_s_line_and_a_count_s_are_short_with_the_longest_names(character: str, tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    audit._number = 10**12
    text, longest = character * 9000, "u" * 64
    caller = Caller(
        user_id=longest,
        user_name="",
        user_domain_id="",
        roles=frozenset(),
        project_id="p" * 64,
        token_id="t" * 32,
    )
    address = "2001:0db8:" + 6 * ":aaaa"
    audit.record(
        time_us=10**16,
        request_id="req-" + "x" * 36,
        caller=caller,
        client=address,
        service="placement",
        method="DELETE",
        path=text,
        action=text,
        status=403,
    )
    for user_id, client in ((longest, None), (None, address)):
        audit.record_left_out(time_us=10**16, user_id=user_id, client=client, number=10**12)
    audit.close()
    refusal, *counts = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
    assert len(refusal) <= LONGEST_REFUSAL
    assert json.loads(refusal)["target"]["id"] == character * len(json.loads(refusal)["target"]["id"]) != ""
    assert max(map(len, counts)) <= LONGEST_COUNT


def test_refusals_alone_push_no_line_of_the_last_month_out_of_the_trail(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many users, and addresses, as one likes, all of whom spend all that they have."""
    of_one_kind = OF_ALL * LONGEST_REFUSAL + (MOST_NAMED + 1) * LONGEST_COUNT
    windows = 30 * 86_400 / WINDOW_SECONDS
    assert windows * 2 * of_one_kind < FILES_KEPT * (FILE_BYTES - 2 * LONGEST_REFUSAL)

    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    client = Client(App(cloud, SERVICES, audit=audit))
    users = Sampling()
    monkeypatch.setattr(client.app, "_of_users", users)

    async def requests() -> None:
        for n in range(300):
            refused = await client.send(
                "DELETE", f"{W}/{chr(1) * 1000}", token="nobody here", address=f"2001:db8:aaaa:{0xA000 + n:x}::1"
            )
            assert refused.status == 401
            users.keep(f"{n:064}", cloud.clock.monotonic())

    asyncio.run(requests())
    client.app.tell_left_out()
    audit.close()
    lines = path.read_text().splitlines()
    counts = [line for line in lines if "leftOut" in line]
    assert (len(lines) - len(counts), len(counts)) == (OF_ALL, 2 * (MOST_NAMED + 1))
    assert sum(json.loads(line)["leftOut"] for line in counts) == 2 * (300 - OF_ALL)
    assert max(map(len, counts)) < LONGEST_COUNT
    assert max(map(len, lines)) < LONGEST_REFUSAL


def test_refusals_of_unknown_callers_are_sampled_and_the_others_counted(
    cloud: Cloud, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cumulet.access")
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    client = Client(App(cloud, SERVICES, audit=audit))

    async def requests() -> None:
        for _ in range(OF_ONE + 100):
            assert (await client.send("GET", f"{W}/w1", token="nobody here")).status == 401
        assert (await client.send("GET", f"{W}/w1", token="nobody here", address="192.0.2.99")).status == 401
        assert (await client.send("DELETE", f"{W}/w1")).status == 204

    asyncio.run(requests())
    client.app.tell_left_out()
    audit.close()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(events) == OF_ONE + 3
    assert [event.get("leftOut") for event in events[-3:]] == [None, None, 100]
    assert events[-1]["initiator"] == {"id": None, "host": "192.0.2.7"}
    lines = [record for record in caplog.records if record.name == "cumulet.access"]
    assert (len(lines), vars(lines[-1])["left_out"]) == (OF_ONE + 3, 100)
    assert verify(path).number == OF_ONE + 3


def test_refusals_of_a_user_are_sampled_and_counted_and_changes_are_all_recorded(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cumulet.web.app.WINDOW_SECONDS", 0.0)  # told as soon as the loop has time
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    client = Client(App(cloud, SERVICES, audit=audit))

    async def requests() -> None:
        for _ in range(OF_ONE + 20):
            refused = await client.send("POST", f"{W}/{'a' * 1000}/action", {"shake": None}, token="reader")
            assert refused.status >= 400
            assert (await client.send("DELETE", f"{W}/w1")).status == 204
        await asyncio.sleep(0.01)

    asyncio.run(requests())
    audit.close()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert sum(event["outcome"] == "success" for event in events) == OF_ONE + 20
    refused = [event for event in events if event["outcome"] == "failure"]
    assert sum("leftOut" not in event for event in refused) == OF_ONE
    told = [event for event in refused if "leftOut" in event]
    assert {json.dumps(event["initiator"]) for event in told} == {json.dumps({"host": None, "id": "user-1"})}
    assert sum(event["leftOut"] for event in told) == 20
    assert verify(path).number == len(events)


def test_samples_are_bounded_for_one_address_for_all_and_begin_anew_with_each_window() -> None:
    sampling = Sampling()
    assert sum(sampling.keep(peer_of("2001:db8::" + hex(n)[2:]), 0.0) for n in range(100)) == OF_ONE
    assert sum(sampling.keep(f"192.0.{n % 100}.{n // 100}", 0.0) for n in range(1000)) == OF_ALL - OF_ONE
    numbers = sampling.left_out()
    assert len(numbers) == MOST_NAMED + 1
    assert sum(numbers.values()) == 100 + 1000 - OF_ALL
    assert sampling.left_out() == {}
    assert sampling.keep("192.0.2.1", WINDOW_SECONDS)


def test_who_tried_to_join_too_often_may_try_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("cumulet.web.strangers.time.monotonic", lambda: now)
    strangers = Strangers()
    assert [strangers.may_join("192.0.2.1") for _ in range(31)] == [True] * 30 + [False]
    now += 60
    assert strangers.may_join("192.0.2.1")


def test_a_log_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.web.log_file.FILE_BYTES", 2000)
    monkeypatch.setattr("cumulet.web.log_file.FILES_KEPT", 2)
    handler = log_to(tmp_path / "log")
    try:
        for n in range(200):
            logging.getLogger("cumulet.access").warning("GET /%s", n)
    finally:
        end_log(handler)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 2000 for file in files)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_command_that_ends_writes_the_counts_of_its_log_and_leaves_no_handler(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @asynccontextmanager
    async def role() -> AsyncIterator[None]:
        for _ in range(SAME_LINES + 5):
            logging.getLogger("cumulet.role").warning("again")
        raise OSError("no room")
        yield

    before = logging.getLogger().handlers[:]
    with pytest.raises(click.ClickException, match="no room"):
        fleet._run(role(), Settings(state_dir=tmp_path, database_url="sqlite://", log_file=log), str)
    assert logging.getLogger().handlers == before
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    assert [line.get("repeated") for line in lines if line["logger"] == "cumulet.role"] == [None] * SAME_LINES + [5]


def test_websockets_of_strangers_fill_no_log(cloud: Cloud) -> None:
    app, written = App(cloud, SERVICES), io.StringIO()

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, object]) -> None:
        assert message["type"] == "websocket.close"

    async def connect(path: str) -> None:
        await app({"type": "websocket", "path": path, "headers": []}, receive, send)

    handler = log_to(written)
    try:
        for number in range(3 * SAME_LINES):
            asyncio.run(connect(f"/nothing/{number}"))
    finally:
        logging.getLogger().removeHandler(handler)
        lines = written.getvalue()
        handler.close()
    assert lines.count("WEBSOCKET") == SAME_LINES
