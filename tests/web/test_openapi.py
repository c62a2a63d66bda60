"""The generated references: complete and valid; stale files are noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from cumulet.web.openapi import generated, main, openapi, policy_reference
from cumulet.web.policy import RULES
from tests.web.widgets import SERVICES

REGISTRY = "tests.web.test_openapi:services"


def services() -> list[Any]:
    return list(SERVICES)


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [ref for value in node.values() for ref in references(value)]
    return [ref for value in node for ref in references(value)] if isinstance(node, list) else []


def test_every_operation_is_there() -> None:
    document = openapi(SERVICES)
    ways: list[dict[str, list[str]]] = [{"token": []}, {"bearer": []}]
    assert set(document["components"]["securitySchemes"]) == {"token", "bearer"}
    for service in SERVICES:
        for operation in service.operations:
            place = document["paths"][service.prefix + operation.path][operation.method.lower()]
            assert operation.name in [about["name"] for about in place["x-openstack"]["operations"]]
            assert str(operation.success) in place["responses"]
            assert place.get("security", document["security"]) == ([] if operation.public else ways)


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    document = openapi(SERVICES)
    schemas = document["components"]["schemas"]
    assert references(document)
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    for schema in schemas.values():
        assert jsonschema_rs.meta.is_valid(schema)


def test_a_bodys_history_is_told_by_microversion() -> None:
    place = openapi(SERVICES)["paths"]["/compute/v2.1/widgets/{widget_id}/action"]["post"]
    moves = [v["x-openstack"] for v in place["requestBody"]["content"]["application/json"]["schema"]["oneOf"]]
    assert [(m["min-version"], m.get("max-version")) for m in moves if m["action-name"] == "move"] == [
        ("2.1", "2.24"),
        ("2.25", "2.29"),
        ("2.30", "2.67"),
        ("2.68", None),
    ]


def test_rules_are_listed_with_who_asks_them() -> None:
    text = policy_reference(SERVICES, RULES.values())
    assert "## `widgets:move:host`\n\n- default: `role:admin`\n- scope: project\n" in text
    assert "- asked by: POST /compute/v2.1/widgets/{widget_id}/action `move` (when `host` is given)" in text


def test_files_that_are_not_current_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--registry", REGISTRY, "--check", "--folder", str(tmp_path)]
    assert main(arguments) == 1
    assert main([*arguments, "--write", str(tmp_path)]) == 0
    assert main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(generated(SERVICES, RULES.values()))
    (tmp_path / "policy.md").write_text("something else")
    capsys.readouterr()
    assert main(arguments) == 1
    assert "policy.md" in capsys.readouterr().err
