"""Requests that change nothing, and rules that let everybody through.

A rehearsed request runs as always, but its writes are rolled back. So the next request can have the same target.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from unittest import mock

import msgspec

from cumulet.db.engine import Database, Tx
from cumulet.testing import JsonObject, TestCloud
from cumulet.web.context import Authenticator, Cloud
from cumulet.web.operation import Caller
from cumulet.web.policy import Policy

T = TypeVar("T")


class _Rehearsed(Exception):
    """Rolls a transaction back. Carries what its function returned."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer


class _Rehearsal:
    """The database as handlers see it. What they write is rolled back, and nobody is told of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write_async(self, fn: Callable[[Tx], T]) -> T:
        def rehearse(tx: Tx) -> None:
            raise _Rehearsed(fn(tx))

        try:
            await self._database.write_async(rehearse)
        except _Rehearsed as rehearsed:
            answer: T = rehearsed.answer
            return answer
        raise AssertionError("unreachable")


@contextlib.contextmanager
def rehearsed(cloud: TestCloud) -> Iterator[None]:
    """Within the block no request changes anything."""
    with _replaced(cloud.embedded.context, "db", _Rehearsal(cloud.embedded.db)):
        yield


@contextlib.contextmanager
def opened(cloud: TestCloud, rules: frozenset[str], project_id: str | None) -> Iterator[None]:
    """Within the block these rules let everybody through, as `@` in an operator's policy file, whatever the scope. With
    `project_id`, every token counts as one for that project."""
    policy = cloud.embedded.context.policy
    names: JsonObject = dict.fromkeys(rules, _let_through)
    checks = {**policy._checks, **names}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_replaced(cloud.embedded.context, "policy", Policy(checks, policy.overridden)))
        if project_id is not None:
            stack.enter_context(_taken_for(cloud.embedded.context.identity, project_id))
        yield


def _let_through(_caller: Caller, _facts: Any) -> bool:
    return True


def _taken_for(identity: Authenticator, project_id: str) -> contextlib.AbstractContextManager[object]:
    """Within the block each token counts as one for this project."""
    authenticate = identity.authenticate

    async def taken(*arguments: Any, **named: Any) -> Caller | None:
        caller = await authenticate(*arguments, **named)
        return None if caller is None else msgspec.structs.replace(caller, project_id=project_id)

    return mock.patch.object(identity, "authenticate", taken)


@contextlib.contextmanager
def _replaced(context: Cloud, name: str, value: Any) -> Iterator[None]:
    """The record is frozen for the program; every request reads it anew."""
    before = getattr(context, name)
    msgspec.structs.force_setattr(context, name, value)
    try:
        yield
    finally:
        msgspec.structs.force_setattr(context, name, before)
