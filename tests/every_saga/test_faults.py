"""A fault strikes once, and in a transaction that PostgreSQL has run again it strikes again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from cumulet.conductor.saga import StepFailed
from cumulet.db.engine import Tx
from cumulet.processes.parts import SAGAS

from . import faults
from .faults import Fault, Place, Script

PLACE = Place("live-migration", 1)


class Tried:
    """A transaction that is committed, or is not."""

    def __init__(self) -> None:
        self._after: list[Callable[[], object]] = []

    def after_commit(self, callback: Callable[[], object]) -> None:
        self._after.append(callback)

    def commit(self) -> None:
        for callback in self._after:
            callback()


@pytest.mark.parametrize("fault", [Fault.FAILS_BEFORE, Fault.FAILS_AFTER, Fault.DIES_AFTER])
def test_a_fault_has_struck_when_its_transaction_is_committed(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    monkeypatch.setattr(Place, "function", property(lambda place: lambda tx, context, state: state))
    monkeypatch.setattr(faults, "is_host_step", lambda do: False)
    died: list[str] = []
    script = Script(kill=lambda: died.append("now"), planned={PLACE: fault})
    assert PLACE.position < len(SAGAS[PLACE.saga].steps)
    step: Any = script.around(PLACE)

    def run() -> Tried:
        tried = Tried()
        if fault is Fault.DIES_AFTER:
            assert step(cast("Tx", tried), None, "done") == "done"
        else:
            with pytest.raises(StepFailed):
                step(cast("Tx", tried), None, "done")
        return tried

    run()  # It could not be serialized with another one.
    second = run()
    assert script.planned
    assert not died
    second.commit()
    assert not script.planned
    assert died == (["now"] if fault is Fault.DIES_AFTER else [])
    assert step(cast("Tx", Tried()), None, "done") == "done"
