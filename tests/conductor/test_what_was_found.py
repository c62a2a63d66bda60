"""What reconcilers have found and done is kept as long as it is among the newest, and counted where it repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cumulet.conductor import findings
from cumulet.db import schema
from cumulet.db.engine import Database, Tx


@pytest.fixture
def database() -> Iterator[Database]:
    found = Database("sqlite://", inline=True)
    schema.prepare(found)
    yield found
    found.close()


def noted(database: Database, *, at: int, done: str = "mended", host: str = "host1", subject: str = "s") -> None:
    database.write(lambda tx: findings.note(tx, "hosts", "differs", done, now_us=at, host=host, subject=subject))


def kept(database: Database) -> list[tuple[str, str, str, int, int, int]]:
    def read(tx: Tx) -> list[tuple[str, str, str, int, int, int]]:
        return [(r.host, r.subject, r.done, r.times, r.first_at_us, r.last_at_us) for r in findings.newest(tx)]

    return database.read(read)


def test_what_repeats_is_counted_and_what_was_done_otherwise_is_another_finding(database: Database) -> None:
    """A correction that failed and was tried again has two lines."""
    noted(database, at=1, done="failed, will retry")
    noted(database, at=2, done="failed, will retry")
    noted(database, at=3)
    noted(database, at=4, host="host2")
    noted(database, at=5, subject="another")
    assert kept(database) == [
        ("host1", "another", "mended", 1, 5, 5),
        ("host2", "s", "mended", 1, 4, 4),
        ("host1", "s", "mended", 1, 3, 3),
        ("host1", "s", "failed, will retry", 2, 1, 2),
    ]


def test_of_too_many_those_that_were_not_seen_for_longest_go(database: Database) -> None:
    for number in range(findings.KEPT):
        noted(database, at=number, host=f"host{number}", subject=str(number))
    noted(database, at=1000, host="host0", subject="0")
    noted(database, at=1001, subject="new")
    subjects = [subject for _, subject, *_ in kept(database)]
    assert subjects[:2] == ["new", "0"]
    assert len(subjects) == findings.KEPT
    assert "1" not in subjects


def test_what_is_found_of_one_host_pushes_out_nothing_of_others(database: Database) -> None:
    """It may have made it up."""
    noted(database, at=1, host="host2")
    noted(database, at=2, host="", subject="of no host")
    for number in range(2 * findings.KEPT):
        noted(database, at=10 + number, subject=str(number))
    found = kept(database)
    assert [host for host, *_ in found] == ["host1"] * findings.MOST_OF_HOST + ["", "host2"]
    assert found[0][1] == str(2 * findings.KEPT - 1), "the newest stay"


def test_of_rounds_that_fail_some_are_told_of_and_what_else_was_found_stays(database: Database) -> None:
    """All rounds may fail for one reason."""
    noted(database, at=1)
    for at in (2, 3):
        for number in range(findings.KEPT + 1):
            error = ValueError("each time")
            asyncio.run(findings.note_failure(database, "hosts", error, now_us=at, host=f"host{number}"))
    kept_now = kept(database)
    assert ("host1", "s", "mended", 1, 1, 1) in kept_now
    failed = [one for one in kept_now if one[2] == "failed, will retry: ValueError"]
    assert sorted(host for host, *_ in failed) == sorted(f"host{number}" for number in range(findings.MOST_FAILED))
    assert {one[3:] for one in failed} == {(2, 2, 3)}
