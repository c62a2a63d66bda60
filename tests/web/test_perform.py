"""Which rules a request must pass, and what the thread that reads the database makes of an answer."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from msgspec import UNSET

from cumulet.db.engine import Database, Tx
from cumulet.web import perform
from cumulet.web.operation import Call, Operation, Refused, Reply, Rule

ALWAYS, OF_HOST, OF_SIZE = Rule("always"), Rule("of a host", when="host"), Rule("of a size", when="size")
NOT_GIVEN = (None, UNSET)


def refusal(rules: Sequence[Rule], refused: Rule, *, host: object, size: object) -> str | None:
    """The name of the rule that refuses a request with this body, if the caller passes all but one."""
    body = SimpleNamespace(host=host, size=size)
    call = SimpleNamespace(body=body, authorise=lambda name, facts: name != refused.name)
    try:
        perform.apply_rules(cast("Operation", SimpleNamespace(rules=rules)), cast("Call[object, object]", call))
    except Refused as error:
        return error.rule
    return None


@pytest.mark.parametrize("refused", [ALWAYS, OF_HOST, OF_SIZE], ids=lambda one: one.name)
def test_every_rule_that_concerns_a_request_applies_in_whichever_order_they_stand(refused: Rule) -> None:
    for rules in itertools.permutations((ALWAYS, OF_HOST, OF_SIZE)):
        for host, size in itertools.product((*NOT_GIVEN, "host1", ""), (*NOT_GIVEN, 5, 0)):
            given = {"host": host, "size": size}
            concerns = refused.when is None or given[refused.when] not in NOT_GIVEN
            assert refusal(rules, refused, host=host, size=size) == (refused.name if concerns else None), (rules, given)


async def pieces() -> AsyncIterator[bytes]:
    yield b"abc"


@pytest.mark.parametrize("whole", [True, False], ids=["by itself", "in a reply"])
@pytest.mark.parametrize("result", [{"a": [1]}, {}, [], [1], "text", 5, False], ids=repr)
def test_what_is_sent_as_json_is_encoded_where_it_was_read(result: object, whole: bool) -> None:
    """Else the event loop would do it, while all others wait."""
    made = in_json(result if whole else Reply(body=result, status=202))
    if not whole:
        assert isinstance(made, Reply)
        assert made.status == 202
        made = made.body
    assert isinstance(made, perform.Encoded)
    assert msgspec.json.decode(made.content) == result


@pytest.mark.parametrize("result", [None, b"abc", pieces()], ids=["nothing", "bytes", "a stream"])
def test_what_is_sent_as_it_is_stays_as_it_is(result: object) -> None:
    assert in_json(result) is result


def in_json(result: object) -> object:
    database = Database("sqlite://", inline=True)
    try:

        def work(tx: Tx) -> object:
            return perform._in_json(result, tx)

        return database.read(work)
    finally:
        database.close()
