"""The documents say what is so: links lead somewhere, tables are complete, what is named exists."""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import import_module
from pathlib import Path

import msgspec
import pytest
from benchmarks.scale_page import FILE, Point, curves, page

from cumulet.settings import Settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
MENTIONED = re.compile(r"`((?:src|tests|docs|benchmarks|scripts|\.ci)/[\w./-]+)`")
TESTED_BY = re.compile(r"`(tests/[\w./-]+\.py)::(\w+)`")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_link_and_every_named_file_is_there(document: Path) -> None:
    text = document.read_text()
    targets = [document.parent / link for link in LINK.findall(text) if "://" not in link]
    targets += [ROOT / mentioned for mentioned in MENTIONED.findall(text)]
    assert [str(target) for target in targets if not target.exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    missing = []
    for path, function in TESTED_BY.findall(document.read_text()):
        source = (ROOT / path).read_text() if (ROOT / path).exists() else ""
        if not re.search(rf"^\s*(async )?def {function}\(", source, re.MULTILINE):
            missing.append(f"{path}::{function}")
    assert missing == []


def claims_without_a_test(text: str) -> list[str]:
    """The promises of SECURITY.md, its rows and its bullets before "Not protected", that name no test."""
    promised = text.partition("\n## Not protected")[0]
    rows = re.findall(r"^\| (?!-|demand).*", promised, re.MULTILINE)
    bullets = re.findall(r"^- .*(?:\n  .*)*", promised, re.MULTILINE)
    assert rows
    assert bullets
    return [claim for claim in (*rows, *bullets) if not TESTED_BY.search(claim)]


def test_every_promise_of_security_names_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert claims_without_a_test(text) == []
    before, at, after = text.partition("\n\n## Not protected")
    assert claims_without_a_test(f"{before}\n- Nothing ever fails.\n  Never.{at}{after}") == [
        "- Nothing ever fails.\n  Never."
    ]


def test_every_bound_of_the_operators_page_names_a_test() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    bounds = re.findall(r"^\| (?!what |-).*", text.partition("\n## What is bounded by what\n")[2], re.MULTILINE)
    assert bounds
    assert [bound for bound in bounds if not TESTED_BY.search(bound)] == []


UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "hour": 3600, "hours": 3600}
SOURCE = ROOT / "src"


@functools.cache
def modules_with() -> dict[str, list[str]]:
    """Modules of the program by the constants that they define."""
    found: dict[str, list[str]] = {}
    for path in SOURCE.rglob("*.py"):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for name in re.findall(r"^(\w+)(?:: [^=]*)? = ", path.read_text(), re.MULTILINE):
            found.setdefault(name, []).append(module)
    return found


def values_of(name: str) -> set[float]:
    """The values that a setting, or constants of this name, have in the program; of a table each of its values."""
    if name.islower():
        return {field.default for field in msgspec.structs.fields(Settings) if field.name == name}
    found: set[float] = set()
    for module in modules_with().get(name, ()):
        value = getattr(import_module(module), name)
        found |= set(value.values()) if isinstance(value, dict) else {value}
    return found


def test_the_numbers_of_the_operators_page_are_those_of_the_program() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    said = re.findall(r"`(\w+)` = ([\d,]*\d(?:\.\d+)?)(?: (KiB|MiB|GiB|hours?)\b)?", text)
    assert len(said) > 50
    wrong = []
    for name, number, unit in said:
        factor = 1 if unit and name.endswith(f"_{unit.upper()}") else UNITS[unit]
        if float(number.replace(",", "")) * factor not in values_of(name):
            wrong.append(f"{name} = {number} {unit}")
    assert wrong == []


def test_every_runtime_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[\[><=~! ]", requirement)[0] for requirement in project["dependencies"]}
    table = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()
    present = set(re.findall(r"^\| ([a-z][\w.-]+) \|", table, re.MULTILINE)) - {"package"}
    assert present == wanted


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = {path.name for path in folder.glob("[0-9]*.md")}
    assert pages == set(re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text()))


def test_the_page_of_what_hosts_cost_is_made_from_its_numbers() -> None:
    points = msgspec.json.decode(FILE.read_bytes(), type=list[Point])
    assert (ROOT / "docs" / "scale.md").read_text() == page(points)
    assert (ROOT / "docs" / "scale.svg").read_text() == curves(points)


def test_nothing_of_this_machine_is_in_the_documents() -> None:
    foreign = re.compile(r"/(?:work|root|opt)/|localhost:\d+/simple")
    assert [named(path) for path in DOCUMENTS if foreign.search(path.read_text())] == []
