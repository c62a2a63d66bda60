"""A transaction may be tried again: of the backups that it rotates away, only the last try's lose their data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cumulet.compute import snapshot
from cumulet.compute.snapshot import Snapshot
from cumulet.image import files, snapshots


def test_only_what_the_last_try_deleted_loses_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try was rolled back. Meanwhile its user has protected one of the two."""
    tries = [["protected since", "outdated"], ["outdated"]]
    removed: list[str] = []

    async def record(fn: Callable[[object], None]) -> None:
        fn(None)
        fn(None)

    monkeypatch.setattr(snapshots, "rotate", lambda _tx, **_others: tries.pop(0))
    monkeypatch.setattr(files, "remove", lambda _folder, image_id: removed.append(image_id))
    context = SimpleNamespace(
        record=record, clock=SimpleNamespace(now_us=lambda: 1), settings=SimpleNamespace(state_dir=tmp_path)
    )
    state = Snapshot(
        server_id="s",
        operation_id="o",
        host="h",
        generation=1,
        action_id=1,
        image_id="new",
        backup_type="daily",
        rotation=1,
    )
    asyncio.run(snapshot.remove_outdated(context, state))
    assert removed == ["outdated"]
