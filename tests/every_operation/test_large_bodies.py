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
from cumulet.web.schema import boundaries, plan

MOST_MS = 20.0
"""Of reading and judging one body: what needs no database may take no longer than a transaction may."""
ATTEMPTS = 5
LARGE: dict[str, object] = {
    "numbers": [0] * (MOST_VALUES - 20),
    "objects": [{}] * (MOST_VALUES // 2 - 10),
    "keys": {f"{n:x}": 0 for n in range(MOST_VALUES // 2 - 10)},
    "text": "x" * (LARGEST_BODY - 200),
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
    since = operation.since
    for version in {since, *(one for one in boundaries(operation.body) if one > since)}:
        shape = plan(operation.body, version)
        for kind, large in LARGE.items():
            for name in (None, *shape.schema.get("properties", ())):
                yield (
                    f"{version} {name}: {kind}",
                    large if name is None else {name: large},
                    functools.partial(shape.read, envelope="it"),
                )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_no_body_takes_long(operation: Operation) -> None:
    for what, body, judge in _bodies(operation):
        _takes_not_long(what, json.dumps(body, separators=(",", ":")).encode(), judge)


@pytest.mark.parametrize("end", ["", "\\", '"'], ids=["open", "open-escaped", "closed"])
@pytest.mark.parametrize("piece", ['\\"', "\\\\", "[", '"', '"[', ","])
def test_what_is_no_json_takes_no_longer(piece: str, end: str) -> None:
    beginning = "[" * (DEEPEST + 1) + '"'
    many = (LARGEST_BODY - len(beginning) - len(end)) // len(piece)
    _takes_not_long(piece, (beginning + piece * many + end).encode(), lambda value: value)


def _takes_not_long(what: str, data: bytes, judge: Callable[[object], object]) -> None:
    least = min(_ms(data, judge) for _ in range(ATTEMPTS)) if _ms(data, judge) > MOST_MS else 0.0
    assert least <= MOST_MS, f"{least:.1f} ms: {what}"


def _ms(data: bytes, judge: Callable[[object], object]) -> float:
    begun = time.thread_time()
    with contextlib.suppress(ApiError):
        judge(read_json(data))
    return (time.thread_time() - begun) * 1000
