"""No request that makes several things does much in its transaction, however much its project has already.

What is counted does not depend on the machine: statements, each of which takes the writer some 20 microseconds, and the
rows that they read and write, of which each takes some 3. `test_transactions` measures time, in an almost empty cloud.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sized
from typing import get_type_hints

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.db.engine import Tx
from cumulet.db.prepared import Prepared
from cumulet.processes.parts import load_services
from cumulet.web.operation import Operation

from .example import key_of
from .full_project import ADMINISTRATORS, LARGEST, FullProject
from .rehearsal import rehearsed

MOST_STATEMENTS = 600
MOST_ROWS = 1_200
"""In one transaction. For each value in the body there may be two more: it is written, and read for the answer."""


def _makes_several(operation: Operation) -> bool:
    """Whether its body has a list of new things beside one of them."""
    names = set(get_type_hints(operation.body)) if operation.body is not None and operation.method == "POST" else set()
    return any(f"{name}s" in names or f"{name[:-1]}ies" in names for name in names)


SEVERAL = [
    operation
    for service in load_services()
    for operation in service.operations
    if service.name == "network" and _makes_several(operation) and key_of(operation) not in ADMINISTRATORS
]


def _values(body: object) -> int:
    """How many numbers and texts there are in it."""
    parts = body.values() if isinstance(body, dict) else body if isinstance(body, list) else None
    return 1 if parts is None else sum(map(_values, parts))


@contextlib.contextmanager
def cloud_with_full_project() -> Iterator[tuple[cumulet.testing.TestCloud, FullProject]]:
    with cumulet.testing.cloud(hosts=1) as cloud:
        yield cloud, FullProject(cloud)


@pytest.fixture(scope="module")
def full() -> Iterator[tuple[cumulet.testing.TestCloud, FullProject]]:
    with cloud_with_full_project() as made:
        yield made


class Work:
    """Counts statements and rows of transactions that write."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.statements, self.rows = 0, 0
        run, read = Prepared._run, Tx.all

        def run_prepared(prepared: Prepared, driver: object, values: Mapping[str, object]) -> object:
            self._count(1, 0)
            return run(prepared, driver, values)

        def all_rows(tx: Tx, *given: object) -> list[object]:
            rows: list[object] = read(tx, *given)  # type: ignore[call-overload]
            self._count(0, len(rows))
            return rows

        patch.setattr(Prepared, "_run", run_prepared)
        patch.setattr(Tx, "all", all_rows)

    def executed(
        self, _connection: object, _cursor: object, _sql: str, given: Sized, _context: object, many: bool
    ) -> None:
        self._count(1, len(given) if many else 0)

    def _count(self, statements: int, rows: int) -> None:
        if threading.current_thread().name.startswith("db-write"):
            self.statements += statements
            self.rows += rows


@contextlib.contextmanager
def counted(patch: pytest.MonkeyPatch) -> Iterator[Work]:
    """The work since this was entered."""
    work = Work(patch)
    sa.event.listen(sa.Engine, "before_cursor_execute", work.executed)
    try:
        yield work
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", work.executed)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    with counted(monkeypatch) as work:
        yield work


@pytest.mark.parametrize("operation", SEVERAL, ids=key_of)
def test_what_a_project_has_makes_no_transaction_long(
    full: tuple[cumulet.testing.TestCloud, FullProject], operation: Operation, work: Work
) -> None:
    cloud, project = full
    path = operation.path.replace("{floatingip_id}", project.floating_ip)
    plural = path.rpartition("/")[2].replace("-", "_")
    for wanted in LARGEST[key_of(operation)](project):
        work.statements, work.rows = 0, 0
        with rehearsed(cloud):
            answer = project.manager.request("POST", f"/network/v2.0{path}", {plural: wanted})
        assert answer.status in (201, 400, 409), answer.text
        assert 0 < work.statements <= MOST_STATEMENTS, (work.statements, answer.text[:200])
        assert work.rows <= MOST_ROWS + 2 * _values(wanted), (work.rows, answer.text[:200])
