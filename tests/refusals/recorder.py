"""Which of the product's errors a run of the tests has seen made, and which are in its source.

An error is a *refusal*: a place in the source where one of Cumulet's own exceptions is made. While tests run, `record`
notes every place that makes one. Of a whole run `make test` lists the places that no test has come through, and `make
refusals` fails because of them (`tests/conftest.py`): what is never seen to refuse may as well not be there.
"""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cumulet

ROOT = Path(cumulet.__file__).parent
ELSEWHERE = ("cli/", "testing/", "drivers/qemu/", "drivers/linux_network/", "processes/", "backup.py", "ca.py")
"""What runs as another process, or needs what not every machine has: there the tests of that part answer for it."""

Place = tuple[str, int]
"""A file, relative to the package, and a line."""


def own_exceptions() -> Iterator[type[BaseException]]:
    """Every exception that a module of the product defines."""
    for module in pkgutil.walk_packages([str(ROOT)], "cumulet."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    waiting: list[type[BaseException]] = [BaseException]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            waiting.append(cls)
            if cls.__module__.startswith("cumulet."):
                yield cls


def record(seen: set[Place]) -> None:
    """From now on, whoever makes an exception of the product's is noted in `seen`."""
    for cls in own_exceptions():
        if not any(base.__module__.startswith("cumulet.") for base in cls.__mro__[1:]):
            cls.__new__ = _noting(cls.__new__, seen)  # type: ignore[method-assign]


def _noting(new: Callable[..., object], seen: set[Place]) -> Callable[..., Any]:
    prefix = f"{ROOT}/"

    def noting(cls: type[BaseException], *args: object, **kwargs: object) -> Any:
        frame = sys._getframe(1)
        file = frame.f_code.co_filename
        if file.startswith(prefix):
            seen.add((file[len(prefix) :], frame.f_lineno))
        return new(cls, *args, **kwargs)

    return noting


@functools.cache
def refusals() -> dict[str, frozenset[Place]]:
    """Every refusal in the source: ``compute/boot.py describe: StepFailed IMAGE_GONE`` -> the lines it spans."""
    names = {cls.__name__ for cls in own_exceptions()}
    found: dict[str, frozenset[Place]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        file = str(path.relative_to(ROOT))
        if file.startswith(ELSEWHERE):
            continue
        for function, call in _calls(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(call.func).rpartition(".")[2]
            if name in names:
                key = first = f"{file} {function}: {name} {_told(call)}".rstrip()
                number = 1
                while key in found:
                    number += 1
                    key = f"{first} ({number})"
                lines = range(call.lineno, (call.end_lineno or call.lineno) + 1)
                found[key] = frozenset((file, line) for line in lines)
    return found


def _calls(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.Call]]:
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        inner = ".".join(filter(None, (function, node.name))) if named else function  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            yield inner, node
        yield from _calls(node, inner)


def _told(call: ast.Call) -> str:
    """The first words of what it says: those that do not change."""
    for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
        for node in ast.walk(argument):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip():
                return " ".join(node.value.split())[:56]
    return ""


def never_seen(seen: Iterable[Place]) -> list[str]:
    """The refusals that no test has come through."""
    places = frozenset(seen)
    return sorted(key for key, lines in refusals().items() if not lines & places)
