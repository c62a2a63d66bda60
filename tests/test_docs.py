"""The documents say what is so: links lead somewhere, tables are complete, what is named exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from benchmarks.scale_page import FILE, Point, curves, page

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
