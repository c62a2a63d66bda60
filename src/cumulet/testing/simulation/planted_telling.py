"""Planted mistakes about what guests are told of their servers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import SimpleNamespace
from unittest import mock

from msgspec.structs import replace

from cumulet.compute import store, telling, untold
from cumulet.db.engine import Tx
from cumulet.settings import Settings


def telling_nothing_after_a_move() -> AbstractContextManager[object]:
    """Where a guest has moved to, it is told what it was described as once."""
    beside = SimpleNamespace(note=lambda *_, **__: None, note_if_heeded=untold.note_if_heeded)
    return mock.patch.object(store, "untold", beside)


def telling_once_during_an_operation() -> AbstractContextManager[object]:
    """A guest is not told again at the end of an operation, which may have made it anew of what was read before."""
    real = telling.described

    def described(tx: Tx, settings: Settings, server_id: str) -> telling.Telling | None:
        found = real(tx, settings, server_id)
        return None if found is None else replace(found, note=replace(found.note, busy=False))

    return mock.patch.object(telling, "described", described)


PLANTS = (telling_nothing_after_a_move, telling_once_during_an_operation)
