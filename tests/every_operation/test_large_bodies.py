"""Whatever is sent as a body, the event loop is done with it soon: everybody else waits meanwhile.

Measured is processor time, and of several attempts the least.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator

import pytest

from cumulet.errors import ApiError
from cumulet.processes.parts import load_services
from cumulet.web.json_reader import DEEPEST, LARGEST_BODY, MOST_VALUES, read_json
from cumulet.web.operation import Operation
from cumulet.web.schema import boundaries, most_values_of, plan
from tests.speed import is_within

MOST_MS = 20.0
"""Of reading and judging one body: what needs no database may take no longer than a transaction may."""
ATTEMPTS = 5
PIECES = ("\u200d", "\u00e9", "1:", "a.", "[", "%41")
"""What a name, an address, a host, a document or a URL may be made of."""


@functools.cache
def large(most_values: int) -> dict[str, object]:
    """Bodies of so many values, or as long as there may be."""
    return {
        "numbers": [0] * (most_values - 20),
        "objects": [{}] * (most_values // 2 - 10),
        "keys": {f"{n:x}": 0 for n in range(most_values // 2 - 10)},
        "text": "x" * (LARGEST_BODY - 200),
        **{f"text of {piece!r}": piece * ((LARGEST_BODY - 200) // len(piece.encode())) for piece in PIECES},
    }


OPERATIONS = [
    operation
    for service in load_services()
    for operation in service.operations
    if operation.body is not None and not operation.raw_body
]


def _bodies(operation: Operation) -> Iterator[tuple[str, object, Callable[[object], object]]]:
    """What is sent, large as a whole or in one property, and how it is judged, at each version of its schema."""
    assert operation.body is not None
    since, most_values = operation.since, most_values_of(operation.body) or MOST_VALUES
    for version in {since, *(one for one in boundaries(operation.body) if one > since)}:
        shape = plan(operation.body, version)
        for kind, value in large(most_values).items():
            for name in (None, *shape.schema.get("properties", ())):
                yield (
                    f"{version} {name}: {kind}",
                    value if name is None else {name: value},
                    functools.partial(shape.read, envelope="it"),
                )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_no_body_takes_long(operation: Operation) -> None:
    most_values = None if operation.body is None else most_values_of(operation.body)
    for what, body, judge in _bodies(operation):
        _takes_not_long(what, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(), judge, most_values)


@pytest.mark.parametrize("end", ["", "\\", '"'], ids=["open", "open-escaped", "closed"])
@pytest.mark.parametrize("piece", ['\\"', "\\\\", "[", '"', '"[', ","])
def test_what_is_no_json_takes_no_longer(piece: str, end: str) -> None:
    beginning = "[" * (DEEPEST + 1) + '"'
    many = (LARGEST_BODY - len(beginning) - len(end)) // len(piece)
    _takes_not_long(piece, (beginning + piece * many + end).encode(), lambda value: value)


def _takes_not_long(what: str, data: bytes, judge: Callable[[object], object], most_values: int | None = None) -> None:
    def once() -> float:
        return _ms(data, judge, most_values)

    least = min(once() for _ in range(ATTEMPTS)) if once() > MOST_MS else 0.0
    assert is_within(least, MOST_MS), f"{least:.1f} ms: {what}"


def _ms(data: bytes, judge: Callable[[object], object], most_values: int | None) -> float:
    begun = time.thread_time()
    with contextlib.suppress(ApiError):
        judge(read_json(data, most_values))
    return (time.thread_time() - begun) * 1000
