"""Generated from the registry: no number is too large to be refused, and no name has a second line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import quote

import pytest

from cumulet.processes.parts import load_services
from cumulet.web import dispatch
from cumulet.web.formats import is_one_line
from cumulet.web.operation import Operation, Query
from cumulet.web.schema import plan
from cumulet.web.shapes import MAY_HAVE_LINES, validator_of

from .asking import Case, Stage
from .example import key_of
from .test_every_operation import PLAIN, with_name

NUMBERS = (
    str(2**31),
    str(2**63 - 1),
    str(2**63),
    "9" * 19,
    "9" * 20,
    "9" * 40,
    "-1",
    f"-{2**63 + 1}",
    "\u00b2",
    "1e400",
)
TIMES = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")
HARDEST = ("", str(2**63), "9" * 40, f"-{2**63 + 1}", "\u00b2", f"gte:{2**63}")
TIMELY = ("_at", "since", "before", "start", "end", "time")
"""What is in the names of parameters that may be times."""
UNDECLARED = (
    "limit", "offset", "page_size", "size_min", "size_max", "min_disk", "min_ram", "minDisk", "minRam", "created_at",
    "changes-since", "start", "vcpus", "mtu", "provider:segmentation_id", "port_range_min", "ip_version",
    "default_prefixlen", "default_quota", "revision_number", "resources", "priority",
)  # fmt: skip
"""Parameters that are tried where an operation looks at whatever it is sent."""
READS = [case for case in PLAIN if case.operation.method == "GET"]
BODIES = [operation for service in load_services() for operation in service.operations if operation.body is not None]
TURNS = ("a\u202eb", "\u2066b", "a\u2069", "\u202a")
BREAKS = (
    "a\nb",
    "a\rb",
    "a\x1b[2Jb",
    "a\x7fb",
    "a\x85b",
    "a\u2028b",
    "a\u2029b",
    "\t",
    "a\n",
    "a\u202eb",
    "\u2066b",
    "a\u202e",
)


class Watched(Query):
    """A query that notes in `seen` which parameters an operation asks it for; None: it looked at all there are."""

    __slots__ = ("_pairs",)
    seen: ClassVar[set[str | None]] = set()

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    @property
    def pairs(self) -> list[tuple[str, str]]:  # type: ignore[override]
        self.seen.add(None)
        return self._pairs

    def get(self, name: str, default: str | None = None) -> str | None:
        self.seen.add(name)
        return Query(self._pairs).get(name, default)

    def getall(self, name: str) -> list[str]:
        self.seen.add(name)
        return Query(self._pairs).getall(name)

    def __contains__(self, name: str) -> bool:
        self.seen.add(name)
        return name in Query(self._pairs)


def parameters(operation: Operation) -> Iterator[str]:
    """What the operation takes: as it declares, or else what it has asked for so far, until it asks for no more."""
    if operation.query is not None:
        yield from plan(operation.query, operation.until or operation.service.versions[1]).schema["properties"]
        return
    tried: set[str | None] = {None}
    while left := (Watched.seen | set(UNDECLARED) if None in Watched.seen else Watched.seen) - tried:
        tried |= left
        yield from sorted(name for name in left if name is not None)


@pytest.mark.parametrize("case", READS, ids=str)
def test_a_number_beyond_all_bounds_in_a_query_is_no_error_of_ours(
    stage: Stage, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "Query", Watched)
    monkeypatch.setattr(Watched, "seen", set())
    sent = stage.request(case)
    stage.ask(case, sent, "admin")
    for parameter in parameters(case.operation):
        times = TIMES if any(word in parameter for word in TIMELY) else ()
        for value in (*HARDEST, *times):
            joint = "&" if "?" in sent.path else "?"
            path = f"{sent.path}{joint}{quote(parameter)}={quote(value)}"
            answer = stage.ask(case, dataclasses.replace(sent, path=path), "admin")
            assert answer.status < 500 or answer.status == 501, f"{parameter}={value}: {answer.text}"


def test_what_operations_ask_for_is_noted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "Query", Watched)
    monkeypatch.setattr(Watched, "seen", set())
    stage.client("admin").request("GET", "/network/v2.0/networks")
    assert Watched.seen >= {None, "limit", "sort_key"}


@pytest.mark.parametrize("case", [case for case in PLAIN if "{" in case.operation.path], ids=str)
def test_a_number_beyond_all_bounds_in_a_path_is_no_error_of_ours(stage: Stage, case: Case) -> None:
    sent = stage.request(case)
    for parameter in sent.parameters:
        for value in NUMBERS:
            answer = stage.ask(case, with_name(case, sent, parameter, quote(value)), "admin")
            assert answer.status < 500 or answer.status == 501, f"{parameter} {value}: {answer.text}"


def texts_in(schema: object, path: str = "") -> list[tuple[str, str, Any]]:
    """Every attribute, at any depth, that says it may be text or a list of texts: its path, its name, its schema."""
    if isinstance(schema, list):
        return [found for part in schema for found in texts_in(part, path)]
    if not isinstance(schema, dict):
        return []
    found = []
    for key, inner in schema.get("properties", {}).items():
        branches = [branch for branch in (inner, *inner.get("anyOf", ())) if isinstance(branch, dict)]
        lists = [branch["items"] for branch in branches if isinstance(branch.get("items"), dict)]
        found += [(f"{path}/{key}", key, part) for part in (*branches, *lists) if "string" in _types(part)]
        found += texts_in(inner, f"{path}/{key}")
    for keyword in ("anyOf", "items", "prefixItems", "additionalProperties", "patternProperties"):
        found += texts_in(schema.get(keyword), path)
    if "propertyNames" in schema:
        found.append((f"{path}/(names)", "", {"type": "string", **schema["propertyNames"]}))
    return found


def _types(schema: Any) -> list[object]:
    kind = schema.get("type")
    return kind if isinstance(kind, list) else [kind]


@pytest.mark.parametrize("operation", BODIES, ids=lambda o: f"{o.service.name} {key_of(o)}")
def test_a_text_is_one_line(operation: Operation) -> None:
    """But for those that `MAY_HAVE_LINES` names, with the reason."""
    assert operation.body is not None
    for version in {operation.since, operation.until or operation.service.versions[1]}:
        for path, name, schema in texts_in(plan(operation.body, version).schema):
            if name not in MAY_HAVE_LINES:
                for wrong in BREAKS:
                    assert not validator_of(schema).is_valid(wrong), f"{path} at {version} takes {wrong!r}"


def test_every_exception_is_one() -> None:
    bodies = [operation for operation in BODIES if operation.body is not None]
    schemas = [plan(one.body, one.until or one.service.versions[1]).schema for one in bodies if one.body is not None]
    assert {name for schema in schemas for _, name, _ in texts_in(schema)} >= MAY_HAVE_LINES.keys()


@pytest.mark.parametrize("text", ["Zo\u00eb", "\u0645\u06cc\u200c\u062e", "\u0915\u094d\u200d\u0937"])
def test_joiners_are_part_of_names(text: str) -> None:
    assert is_one_line(text)


MADE_BY_PATH = [
    case
    for case in PLAIN
    if case.operation.method == "PUT"
    and (
        case.operation.path.endswith(("/{tag}", "/os-extra_specs/{key}", "/os-quota-class-sets/{class_name}"))
        or case.operation.path == "/regions/{region_id}"
        or (case.operation.service.name, case.operation.path) == ("network", "/quotas/{project_id}")
    )
]


@pytest.mark.parametrize("case", MADE_BY_PATH, ids=str)
def test_what_its_path_names_is_one_line(stage: Stage, case: Case) -> None:
    sent = stage.request(case)
    for wrong in BREAKS:
        named = with_name(case, sent, list(sent.parameters)[-1], quote(wrong, safe=""))
        answer = stage.ask(case, named, "admin")
        assert answer.status == 400, f"{wrong!r}: {answer.text}"
