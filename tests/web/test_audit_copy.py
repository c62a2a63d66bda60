"""A copy of the audit trail made while lines are written is whole, and a cloud can continue it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulet.web.audit import Audit, copy_while_written, put_aside, verify


def write(trail: Audit, number: int) -> None:
    trail.record(
        time_us=number,
        request_id=f"req-{number}",
        caller=None,
        client="192.0.2.1",
        service="compute",
        method="POST",
        path="/compute/v2.1/servers",
        action=None,
        status=202,
    )


@pytest.mark.parametrize("between", [[0], [1], [3, 0, 2], [40, 40, 1], [40, 0, 0, 0, 40, 1]])
def test_a_copy_made_while_lines_are_written_is_whole_and_goes_on(
    between: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`between`: how many lines are written before each copy of a file (40 begin a new file); after these, none."""
    path, copy = tmp_path / "audit.jsonl", tmp_path / "copy"
    copy.mkdir()
    trail = Audit(path, file_bytes=20_000, files_kept=2)
    for number in range(50):
        write(trail, number)
    left = list(between)

    def copied(source: Path, target: Path, *, follow_symlinks: bool) -> None:
        for number in range(left.pop(0) if left else 0):
            write(trail, number)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("cumulet.web.audit.shutil.copyfile", copied)
    copy_while_written(path, copy)
    trail.close()
    head = verify(copy / "audit.jsonl")
    assert 50 <= head.number <= verify(path).number
    assert all(file.stat().st_mode & 0o077 == 0 for file in copy.iterdir())
    resumed = Audit(copy / "audit.jsonl")
    write(resumed, 0)
    resumed.close()
    assert verify(copy / "audit.jsonl", head).number == head.number + 1


def test_a_line_that_is_written_by_half_while_a_file_begins_is_left_out(tmp_path: Path) -> None:
    """The head is that of the last line of the file before."""
    path, copy = tmp_path / "audit.jsonl", tmp_path / "copy"
    copy.mkdir()
    trail = Audit(path, file_bytes=2_000)
    number, before = 0, b""
    while not put_aside(path):
        before = path.with_suffix(".head").read_bytes()
        write(trail, number := number + 1)
    trail.close()
    path.write_bytes(path.read_bytes()[:100])
    path.with_suffix(".head").write_bytes(before)
    copy_while_written(path, copy)
    assert verify(copy / "audit.jsonl").number == number - 1


def test_a_trail_without_a_line_is_copied_as_such(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    Audit(tmp_path / "audit.jsonl").close()
    copy_while_written(tmp_path / "audit.jsonl", copy)
    assert (copy / "audit.jsonl").read_bytes() == b""
    assert verify(copy / "audit.jsonl").number == 0
    resumed = Audit(copy / "audit.jsonl")
    write(resumed, 0)
    resumed.close()
    assert verify(copy / "audit.jsonl").number == 1
