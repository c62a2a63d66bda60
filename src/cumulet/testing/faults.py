"""Failures that a test asks for: the steps of long operations that can fail, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cumulet.conductor.saga import Saga, Step, StepFailed, is_host_step


@dataclass(slots=True)
class _Fault:
    saga: str
    step: str
    host: str | None
    times: int
    reason: str


class Faults:
    """Scripted failures of long operations' host steps."""

    def __init__(self) -> None:
        self._faults: list[_Fault] = []
        self._steps: dict[str, tuple[str, ...]] = {}
        self._hosts: tuple[str, ...] = ()

    def know(self, sagas: Mapping[str, Saga[Any]], hosts: Iterable[str]) -> None:
        """Take over the sagas and hosts of a cloud: only their names can be given."""
        self._steps = {name: _host_steps(saga) for name, saga in sagas.items()}
        self._hosts = tuple(hosts)

    def fail(
        self, saga: str, *, step: str, host: str | None = None, times: int = 1, reason: str = "INJECTED_FAULT"
    ) -> None:
        """Let `step` of `saga` fail the next `times` times before it does anything (on `host`, if given).

        ValueError for an operation, a step on hosts or a host that this cloud does not have: it names those it has.
        """
        one_of("saga", saga, self._steps)
        one_of(f"step of {saga} on hosts", step, self._steps[saga])
        if host is not None:
            one_of("host", host, self._hosts)
        if isinstance(times, bool) or not isinstance(times, int):
            raise TypeError(f"times is a whole number, not {times!r}")
        if times < 1:
            raise ValueError(f"times is at least 1, not {times}")
        if not isinstance(reason, str):
            raise TypeError(f"reason is text, not {reason!r}")
        self._faults.append(_Fault(saga, step, host, times, reason))

    def clear(self) -> None:
        self._faults.clear()

    async def before_step(self, saga: str, step: str, state: object) -> None:
        """`conductor.runner.BeforeStep`."""
        for fault in self._faults:
            at = {getattr(state, name, None) for name in ("host", "source", "destination")}
            if fault.times > 0 and (fault.saga, fault.step) == (saga, step) and fault.host in (None, *at):
                fault.times -= 1
                raise StepFailed(fault.reason, "A test asked for this failure.", f"{saga}.{step}")


def one_of(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError, with all valid names, unless `name` is one of them."""
    names = sorted(known)
    if name not in names:
        raise ValueError(f"there is no {what} called {name!r}; there is: {', '.join(names)}")


def _host_steps(saga: Saga[Any]) -> tuple[str, ...]:
    """The steps and undos that ask hosts. Only these can be scripted to fail; the others only write to the database."""
    dos = [do for part in saga.plan for do in ((part.do, part.undo) if isinstance(part, Step) else (part.do,))]
    return tuple(dict.fromkeys(do.__name__ for do in dos if is_host_step(do)))
