"""Faults at any step of any saga: fails before it did anything, fails after it did everything, the process dies."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cumulet.conductor.saga import Saga, Step, StepFailed, is_host_step
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.processes.parts import SAGAS


class Fault(StrEnum):
    FAILS_BEFORE = "fails before doing anything"
    FAILS_AFTER = "does its work and reports failure"
    DIES_BEFORE = "process dies just before"
    DIES_AFTER = "process dies just after"

    @property
    def dies(self) -> bool:
        return self in (Fault.DIES_BEFORE, Fault.DIES_AFTER)


class Died(BaseException):
    """The process is gone: nothing may handle this."""


@dataclass(frozen=True, slots=True)
class Place:
    """A function in a saga's plan: the step at `position`, or its undo."""

    saga: str
    position: int
    undo: bool = False

    @property
    def function(self) -> Any:
        item = SAGAS[self.saga].plan[self.position]
        if not self.undo:
            return item.do
        assert isinstance(item, Step)
        return item.undo

    def __str__(self) -> str:
        return f"{self.saga}: {'undo ' if self.undo else ''}{self.function.__name__}"


def shares(place: Place, following: Place | None) -> bool:
    """Database steps in a row are one transaction: dying in it is one case, told of its last step."""
    return following is not None and not is_host_step(place.function) and not is_host_step(following.function)


@dataclass(frozen=True, slots=True)
class Case:
    """A fault at a place. Undos are reached by a failure of the last step above the line, when it has done its work."""

    story: str
    place: Place
    fault: Fault

    @property
    def faults(self) -> dict[Place, Fault]:
        if not self.place.undo:
            return {self.place: self.fault}
        last = Place(self.place.saga, len(SAGAS[self.place.saga].steps) - 1)
        return {last: Fault.FAILS_AFTER, self.place: self.fault}

    @property
    def below(self) -> bool:
        """Struck when the decision to go on had been committed before. That is made with the first step below the line,
        where it is one on the database, and else before it."""
        beneath = self.place.position - len(SAGAS[self.place.saga].steps)
        return beneath > 0 or (beneath == 0 and is_host_step(self.place.function))

    @property
    def done(self) -> bool:
        """What was asked for must be done: there was no failure, or the decision to go on had been committed."""
        return self.below or (self.fault.dies and not self.place.undo)

    def __str__(self) -> str:
        variant = "" if self.story == self.place.saga else f" ({self.story})"
        return f"{self.place}{variant}: {self.fault}"


Once = Callable[[Callable[[], None]], None]


def at_once(noted: Callable[[], None]) -> None:
    noted()


@dataclass(slots=True)
class Script:
    """Which faults strike where, each once. `kill` ends the process that carries operations, from any thread."""

    kill: Callable[[], None]
    planned: dict[Place, Fault] = field(default_factory=dict)
    died: threading.Event = field(default_factory=threading.Event)

    def die(self) -> None:
        self.kill()
        self.died.set()

    def _strike(self, place: Place) -> None:
        self.planned.pop(place, None)

    def before(self, place: Place, failure: Exception, struck: Once = at_once) -> None:
        """`struck`: is given what notes that the fault has struck."""
        fault = self.planned.get(place)
        if fault not in (Fault.FAILS_BEFORE, Fault.DIES_BEFORE):
            return
        struck(functools.partial(self._strike, place))
        if fault is Fault.FAILS_BEFORE:
            raise failure
        self.die()
        raise Died

    def after(self, place: Place, failure: Exception, struck: Once = at_once) -> bool:
        """Raises, or says that the process is to die now."""
        fault = self.planned.get(place)
        if fault not in (Fault.FAILS_AFTER, Fault.DIES_AFTER):
            return False
        struck(functools.partial(self._strike, place))
        if fault is Fault.FAILS_AFTER:
            raise failure
        return True

    def around(self, place: Place) -> Any:
        """The step's function with the faults before and after it."""
        do = place.function
        if is_host_step(do):

            @functools.wraps(do)
            async def host_step(context: Any, state: Any) -> Any:
                self.before(place, m.VerbFailed("a test asked for this failure"))
                answer = await do(context, state)
                if self.after(place, m.VerbFailed("a test asked for this failure, when all was done")):
                    self.die()
                    raise Died
                return answer

            return host_step

        # PostgreSQL may have the transaction run again, and then the fault has not struck yet. The failure of an undo,
        # or of a final, ends its transaction.
        caught = not place.undo and place.position < len(SAGAS[place.saga].steps)

        @functools.wraps(do)
        def database_step(tx: Tx, context: object, state: object) -> Any:
            fault = self.planned.get(place)
            in_commit = fault is Fault.DIES_AFTER or (caught and fault is not Fault.DIES_BEFORE)
            struck = tx.after_commit if in_commit else at_once  # What dies before its commit has none.
            self.before(place, StepFailed("INJECTED", "A test asked for this failure."), struck)
            answer = do(tx, context, state)
            failure = StepFailed("INJECTED", "A test asked for this failure, when all was done.")
            if self.after(place, failure, struck):
                # What is done in a transaction that dies before its commit never was: that is DIES_BEFORE.
                tx.after_commit(self.die)
            return answer

        return database_step

    def sagas(self) -> dict[str, Saga[Any]]:
        """All sagas, with the faults in them."""
        return {name: self._instrumented(saga) for name, saga in SAGAS.items()}

    def _instrumented(self, saga: Saga[Any]) -> Saga[Any]:
        above = len(saga.steps)
        return dataclasses.replace(
            saga,
            steps=tuple(
                dataclasses.replace(
                    step, do=self.around(Place(saga.name, n)), undo=self.around(Place(saga.name, n, undo=True))
                )
                for n, step in enumerate(saga.steps)
            ),
            finals=tuple(
                dataclasses.replace(final, do=self.around(Place(saga.name, above + n)))
                for n, final in enumerate(saga.finals)
            ),
        )
