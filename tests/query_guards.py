"""Guards of what queries cost: without them, the test of it fails. `tests/test_guards.py` runs these."""

from __future__ import annotations

import re
from typing import Annotated

import pytest

from cumulet.web import formats
from cumulet.web.schema import Json, Query
from tests.every_operation import test_large_queries
from tests.every_operation.asking import Stage
from tests.guards import replaced_operation, without


class _Patterns(Query):
    name: list[Annotated[str, Json({"format": "regex"})]] | None = None


@without(test_large_queries.test_no_query_takes_long, "that patterns are made ready beside the event loop")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setitem(formats.FORMATS, "regex", lambda text: bool(re.compile(str(text))))
    (operation,) = [o for o in test_large_queries.OPERATIONS if o.name == "list_servers"]
    with replaced_operation(stage, operation, query=_Patterns):
        test_large_queries.test_no_query_takes_long(operation)
