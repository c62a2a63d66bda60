"""Guards and their switches: the table that `tests/test_guards.py` fills, and which tests have to be in it."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from cumulet.web.operation import Operation
from tests.every_operation.asking import Stage

TESTS = Path(__file__).parent
Switch = Callable[[pytest.MonkeyPatch, Stage], None]
"""Takes a guard away and runs the test that should notice."""
SWITCHES: dict[str, tuple[str, Switch]] = {}
"""``folder/file.py::test`` -> what is taken away, and how."""


def without(test: Callable[..., None], guard: str) -> Callable[[Switch], Switch]:
    """`guard`: what is taken away, in words."""
    path = Path(test.__code__.co_filename).relative_to(TESTS)

    def keep(switch: Switch) -> Switch:
        SWITCHES[f"{path}::{test.__name__}"] = (guard, switch)
        return switch

    return keep


GENERATED = (
    "every_*/test_*.py",
    "image/test_inspection.py",
    "drivers/test_contract.py",
    "compute/test_what_hosts_are_told.py",
    "compute/test_scheduler.py",
    "agent/test_fence.py",
    "api/identity/test_policy_table.py",
    "test_docs.py",
    "simulation/test_simulation.py",
)
"""Where tests are made from a registry or a table, and not written out one by one."""


@contextlib.contextmanager
def replaced_operation(stage: Stage, operation: Operation, **changes: object) -> Iterator[None]:
    """An operation is a frozen record that the running cloud holds."""
    before = {name: getattr(operation, name) for name in changes}
    for name, value in changes.items():
        msgspec.structs.force_setattr(operation, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            msgspec.structs.force_setattr(operation, name, value)


def generated() -> Iterator[str]:
    """Tests of the folders below whose cases are not written out one by one."""
    for path in sorted(path for pattern in GENERATED for path in TESTS.glob(pattern)):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(map(_is_generated, function.decorator_list)):
                yield f"{path.relative_to(TESTS)}::{function.name}"


def _is_generated(decorator: ast.expr) -> bool:
    parametrized = isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.parametrize"
    return parametrized and not isinstance(decorator.args[1], ast.List)  # type: ignore[attr-defined]
