"""What `cumulet doctor` says of the kernel's tables that all guests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulet.cli import doctor


def table(folder: Path, name: str, number: int) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{number}\n")


def test_tables_that_are_small_are_said_with_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SYSCTLS", tmp_path)
    assert list(doctor._kernel_tables()) == []
    tracked, neighbours, neighbours_6 = doctor.KERNEL_TABLES
    table(tmp_path, neighbours, 1024)
    table(tmp_path, tracked, 2_000_000)
    (said,) = doctor._kernel_tables()
    assert said.good is None
    assert said.found == "2000000 tracked connections, 1024 IPv4 neighbours, for all guests"
    assert said.remedy.endswith("sysctl -w net.ipv4.neigh.default.gc_thresh3=16384")
    table(tmp_path, neighbours, 16_384)
    table(tmp_path, neighbours_6, 20_000)
    (said,) = doctor._kernel_tables()
    assert (said.good, said.remedy) == (True, "")


def test_the_same_settings_are_in_the_operator_s_page() -> None:
    page = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    for name, (most, _) in doctor.KERNEL_TABLES.items():
        assert f"| `{name.replace('/', '.')}` | {most}" in page
