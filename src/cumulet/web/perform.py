"""An operation is performed: target within the caller's sight (404), rules (403), handler, in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
from msgspec import UNSET
from sqlalchemy.exc import DBAPIError

from cumulet.db.engine import Tx
from cumulet.db.full_disk import Reserve, is_full
from cumulet.db.transaction import ROWS_AT_ONCE
from cumulet.errors import InsufficientStorage
from cumulet.space import refuse_where_nearly_full
from cumulet.web.operation import Call, Facts, Operation, Refused, Reply

DELETING_ACTIONS = frozenset({"forceDelete"})
STORAGE_FULL = "The cloud's storage is full. Delete something first."
_encode = msgspec.json.Encoder().encode


class Encoded(msgspec.Struct, frozen=True):
    """An answer as JSON text. The thread that read the database encodes it, so a long one does not delay the loop."""

    content: bytes


async def perform(operation: Operation, call: Call[object, object]) -> object:
    """Do it. When storage is full, the error says so; deleting uses the reserve, so it is always possible."""
    deletes = operation.method == "DELETE" or operation.action in DELETING_ACTIONS
    cloud = call.cloud
    adds = not deletes and operation.method not in ("GET", "HEAD") and not operation.public
    if cloud.space.reserve_is_given:
        cloud.space.reserve_is_given = not Reserve(cloud.state_dir).fill()
    if adds and not call.caller.is_admin:
        refuse_where_nearly_full(cloud.state_dir, cloud.settings.free_space_floor_mib)
    try:
        return await _perform(operation, call)
    except DBAPIError as error:
        if not is_full(error):
            raise
        if not deletes or not Reserve(cloud.state_dir).give():
            raise InsufficientStorage(STORAGE_FULL, private=str(error), reason="STORAGE_FULL") from None
    cloud.space.reserve_is_given = True
    return await _perform(operation, call)


async def _perform(operation: Operation, call: Call[object, object]) -> object:
    database = call.cloud.db
    if operation.asynchronous:
        if operation.target is None and operation.facts is None:
            apply_rules(operation, call)
        else:
            await database.read_async(lambda tx: _admit(operation, call, tx))
            call.tx = None  # type: ignore[assignment]
        return await cast("Awaitable[object]", operation.handler(call))

    def work(tx: Tx) -> object:
        _admit(operation, call, tx)
        return operation.handler(call)

    if operation.target is None and operation.facts is None:
        apply_rules(operation, call)  # a refusal need not wait for the database
    if operation.method in ("GET", "HEAD"):
        if operation.lookup and database.embedded:
            # A few lookups by key in an embedded database cost less than changing threads.
            return database.read(work)
        return await database.read_async(lambda tx: _in_json(work(tx), tx))
    return await database.write_async(work)


def _in_json(result: object, tx: Tx) -> object:
    if isinstance(result, Reply):
        return msgspec.structs.replace(result, body=_in_json(result.body, tx))
    if result is None or isinstance(result, bytes) or hasattr(result, "__aiter__"):
        return result
    if isinstance(result, dict):
        result = {key: _encoded_singly(value, tx) for key, value in result.items()}
    return Encoded(_encode(result))


def _encoded_singly(value: object, tx: Tx) -> object:
    """A long list, each of its entries encoded: encoding all at once keeps other threads waiting for as long."""
    if not isinstance(value, list) or len(value) <= ROWS_AT_ONCE:
        return value
    return [msgspec.Raw(_encode(entry)) for entry in tx.in_pieces(value)]


def _admit(operation: Operation, call: Call[object, object], tx: Tx) -> None:
    """Load the target within the caller's sight (404), then apply the rules (403)."""
    call.tx = tx
    if operation.target is not None:
        call.target = operation.target(call)
    if operation.target is not None or operation.facts is not None:
        apply_rules(operation, call)
    if operation.target is not None and operation.service.precondition is not None:
        operation.service.precondition(call)


def apply_rules(operation: Operation, call: Call[object, object]) -> None:
    for rule in operation.rules:
        if rule.when is not None and getattr(call.body, rule.when) in (None, UNSET):
            continue
        if not call.authorise(rule.name, None):
            raise Refused(rule.name)


def authoriser(call: Call[object, object], operation: Operation) -> Callable[[str, Facts | None], bool]:
    check = call.cloud.policy.check

    def authorise(rule: str, facts: Facts | None = None) -> bool:
        if facts is None:
            facts = operation.facts(call) if operation.facts is not None else facts_of(call)
        return check(rule, call.caller, facts)

    return authorise


def facts_of(call: Call[object, object]) -> Facts:
    """Whose the target is; without a target (or where nobody owns it) the caller's own project and user."""
    source = call.target if hasattr(call.target, "project_id") else call.caller
    project, user = source.project_id, getattr(source, "user_id", None)
    return {"project_id": project, "tenant_id": project, "user_id": user}


def unbound(_rule: str, _facts: Facts | None = None) -> bool:
    return False
