"""Whatever is asked for in a query, the event loop is done with it soon, as with bodies (`test_large_bodies`)."""

from __future__ import annotations

import contextlib
import re
import time
from urllib.parse import quote

import pytest

from cumulet.errors import ApiError
from cumulet.processes.parts import load_services
from cumulet.web.asgi import query_pairs
from cumulet.web.operation import Operation
from cumulet.web.protocols import LARGEST_HEAD
from cumulet.web.schema import plan
from tests.every_operation.test_large_bodies import ATTEMPTS, MOST_MS
from tests.speed import is_within

WIDE = "[a-\U0010fffe]"
PIECES = (WIDE, "(a)", "x*", "a{1000}", "1:", "9,", "\u0660")
"""What a pattern, a number, a time, an address, a host or a list may be made of."""
LONGEST = LARGEST_HEAD - 200
OPERATIONS = [
    operation for service in load_services() for operation in service.operations if operation.query is not None
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_no_query_takes_long(operation: Operation) -> None:
    assert operation.query is not None
    properties = plan(operation.query, operation.until or operation.service.versions[1]).schema["properties"]
    for name in properties:
        for piece in PIECES:
            one = quote(piece)
            _takes_not_long(operation, f"{name}: {piece}", f"{name}=" + one * ((LONGEST - len(name)) // len(one)))
        one = quote(WIDE)
        folded = f"{name}={quote('(?i)')}" + one * ((LONGEST - len(name)) // len(one))
        _takes_not_long(operation, f"{name}: (?i){WIDE}", folded)


def _takes_not_long(operation: Operation, what: str, query: str) -> None:
    least = _ms(operation, query)
    if least > MOST_MS:
        least = min(_ms(operation, query) for _ in range(ATTEMPTS))
    assert is_within(least, MOST_MS), f"{least:.1f} ms: {what}"


def _ms(operation: Operation, query: str) -> float:
    assert operation.query is not None
    shape = plan(operation.query, operation.until or operation.service.versions[1])
    re.purge()  # Nobody sends a pattern that is known already.
    begun = time.thread_time()
    with contextlib.suppress(ApiError):
        shape.read_query(query_pairs(query.encode()))
    return (time.thread_time() - begun) * 1000
