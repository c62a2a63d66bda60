"""Writes the references that are generated from the registry: OpenAPI 3.1, policy rules, and what is not offered yet.

python -m cumulet.web.openapi --write docs/api     # `--check` says whether the files there are current
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cumulet.web.gaps import Gap, listed
from cumulet.web.operation import Microversion, Operation, Service
from cumulet.web.policy import RULES, RuleDefault
from cumulet.web.router import Router
from cumulet.web.schema import boundaries, json_schema

FOLDER = Path("docs/api")
SECURITY_SCHEMES = {
    "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same token, as clients of OAuth 2.0 send it."},
}
"""The ways to send a token (`asgi.token_of`). One of them is enough; operations that are public need none."""
REGISTRY = "cumulet.processes.parts:load_services"


def openapi(services: Sequence[Service]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of all services."""
    schemas: dict[str, object] = {}
    paths: dict[str, dict[str, object]] = {}
    for service in services:
        for (path, method), operations in _by_place(service).items():
            paths.setdefault(path, {})[method.lower()] = _place(service, operations, schemas)
        schemas[f"{service.name}.Error"] = service.dialect.error_schema
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cumulet",
            "version": "1",
            "description": "The OpenStack APIs that Cumulet offers. `x-openstack` gives microversions and policy "
            "rules; where a body has several variants, each names the microversions and the action it is for.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": service.name} for service in services],
        "security": [{name: []} for name in SECURITY_SCHEMES],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _by_place(service: Service) -> dict[tuple[str, str], list[Operation]]:
    places: dict[tuple[str, str], list[Operation]] = {}
    for operation in service.operations:
        places.setdefault((service.prefix + operation.path, operation.method), []).append(operation)
    return dict(sorted(places.items()))


def _versions(operation: Operation) -> dict[str, str]:
    if not operation.service.microversioned:
        return {}
    return {"min-version": str(operation.since)} | (
        {"max-version": str(operation.until)} if operation.until is not None else {}
    )


def _place(service: Service, operations: list[Operation], schemas: dict[str, Any]) -> dict[str, Any]:
    first = operations[0]
    actions = any(operation.action for operation in operations)
    error = {"$ref": _ref(f"{service.name}.Error")}
    out: dict[str, Any] = {
        "tags": [service.name],
        "operationId": f"{service.name}.{first.path.strip('/').replace('/', '.')}.{first.method.lower()}",
        "summary": "Do one of the actions." if actions else first.summary,
        "parameters": _parameters(operations),
        "responses": {"default": {"description": "Error", "content": _content(error)}},
        "x-openstack": {"operations": [_about(operation) for operation in operations]},
    }
    for operation in operations:
        out["responses"].setdefault(str(operation.success), {"description": "Success"})
    bodies = [variant for operation in operations for variant in _bodies(operation, schemas)]
    if any(operation.raw_body for operation in operations):
        out["requestBody"] = {"content": {"application/octet-stream": {"schema": {}}}}
    elif bodies:
        out["requestBody"] = {"content": _content(bodies[0] if len(bodies) == 1 else {"oneOf": bodies})}
    if first.public:
        out["security"] = []
    return out


def _about(operation: Operation) -> dict[str, Any]:
    about: dict[str, object] = {"name": operation.name, "summary": operation.summary, **_versions(operation)}
    if operation.action:
        about["action"] = operation.action
    about["rules"] = [{"rule": r.name} | ({"when": r.when} if r.when else {}) for r in operation.rules]
    return about


def _content(schema: Mapping[str, object]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> str:
    return f"#/components/schemas/{name}"


def _parameters(operations: list[Operation]) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in operations[0].path_parameters
    ]
    seen: set[str] = set()
    for operation in operations:
        if operation.query is None:
            continue
        latest = operation.until or operation.service.versions[1]
        schema = json_schema(operation.query, latest)
        for name, described in schema["properties"].items():
            if name not in seen:
                seen.add(name)
                required = name in schema["required"]
                found.append({"name": name, "in": "query", "required": required, "schema": described, "explode": True})
    return found


def _bodies(operation: Operation, schemas: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """One reference per interval of microversions in which the body's schema is the same."""
    body = operation.body
    if body is None or operation.raw_body:
        return
    last = operation.until or operation.service.versions[1]
    starts = [operation.since, *(b for b in boundaries(body) if operation.since < b <= last)]
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        name = f"{operation.service.name}.{body.__name__}" + (f".{start}" if len(starts) > 1 else "")
        schemas[name] = json_schema(body, start)
        wrapped: dict[str, Any] = {"$ref": _ref(name)}
        key = operation.action or operation.body_key
        if key is not None:
            wrapped = {"type": "object", "properties": {key: wrapped}, "required": [key], "additionalProperties": False}
        versions = _versions(operation)
        if len(starts) > 1:
            end = operation.until if following is None else _before(following)
            versions = {"min-version": str(start)} | ({"max-version": str(end)} if end is not None else {})
        about = versions | ({"action-name": operation.action} if operation.action else {})
        yield wrapped | ({"x-openstack": about} if about else {})


def _before(version: Microversion) -> Microversion:
    return Microversion(version.major, version.minor - 1)


def policy_reference(services: Sequence[Service], rules: Iterable[RuleDefault]) -> str:
    """Every rule with its default, its scopes and the operations that ask it, as Markdown."""
    used: dict[str, list[str]] = {}
    for service in services:
        for operation in service.operations:
            what = f"{operation.method} {service.prefix}{operation.path}"
            what += f" `{operation.action}`" if operation.action else ""
            for rule in operation.rules:
                entry = what + (f" (when `{rule.when}` is given)" if rule.when else "")
                if entry not in used.setdefault(rule.name, []):
                    used[rule.name].append(entry)
    lines = ["# Policy rules", "", "Generated by `python -m cumulet.web.openapi`; do not edit by hand.", ""]
    lines += ["An operator's `policy.yaml` may give any of them another check string.", ""]
    for declared in sorted(rules, key=lambda r: (r.service, not r.base, r.name)):
        lines += [f"## `{declared.name}`" + (f" ({declared.service}, building block)" if declared.base else ""), ""]
        lines += [declared.description, ""] if declared.description else []
        lines += [f"- default: `{declared.check or '@'}`"]
        lines += [f"- scope: {', '.join(declared.scope)}"] if declared.scope else []
        lines += [f"- asked by: {entry}" for entry in used.get(declared.name, ())]
        lines += [""]
    return "\n".join(lines)


def policy_sample(rules: Iterable[RuleDefault]) -> str:
    """A policy.yaml that changes nothing: every line is the default, commented out."""
    lines = ["# Every rule with its default. Remove the # of what you change.", ""]
    for rule in sorted(rules, key=lambda r: (r.service, not r.base, r.name)):
        lines += [f"# {rule.description}"] if rule.description else []
        lines += [f"#{json.dumps(rule.name)}: {json.dumps(rule.check)}"]
    return "\n".join([*lines, ""])


def gap_reference(services: Sequence[Service]) -> str:
    """The gaps that answer 501, and those of extensions, which answer 404, as Markdown."""
    lines = ["# Not offered yet", "", "Generated by `python -m cumulet.web.openapi`; do not edit by hand.", ""]
    lines += ["OpenStack has these; Cumulet answers 501 and names the gap. What OpenStack has with an extension only"]
    lines += ["answers 404, as OpenStack does without that extension.", ""]
    for service in services:
        left = [gap for gap in listed([service]) if not gap.gone]
        for title, found in (
            (service.name, [gap for gap in left if not gap.extension]),
            (f"{service.name}, extensions", [gap for gap in left if gap.extension]),
        ):
            if found:
                lines += [f"## {title} ({len(found)})", "", *(_bullet(gap) for gap in found), ""]
    return "\n".join(lines)


def _bullet(gap: Gap) -> str:
    return f"- {gap.method} {gap.service.prefix}{gap.path}" + (f" `{gap.action}`" if gap.action else "")


def generated(services: Sequence[Service], rules: Iterable[RuleDefault]) -> dict[str, str]:
    """The content of each file, by its name."""
    declared = list(rules)
    return {
        "openapi.json": json.dumps(openapi(services), indent=1, ensure_ascii=False) + "\n",
        "policy.md": policy_reference(services, declared),
        "policy.yaml": policy_sample(declared),
        "not-yet.md": gap_reference(services),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cumulet.web.openapi", description=__doc__)
    parser.add_argument("--write", metavar="FOLDER", type=Path, help="write the files into FOLDER")
    parser.add_argument("--check", action="store_true", help=f"exit 1 unless those in {FOLDER} are current")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where --check looks")
    parser.add_argument("--registry", default=REGISTRY, metavar="MODULE:FUNCTION", help="what gives the services")
    asked = parser.parse_args(arguments)
    module, _, function = asked.registry.partition(":")
    services: list[Service] = getattr(importlib.import_module(module), function)()
    files = generated(services, RULES.values())
    if asked.write is not None:
        asked.write.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (asked.write / name).write_text(content, encoding="utf-8")
    if asked.check:
        shadowed = [f"{gap.service.name}: {gap}" for gap in Router(services, listed(services)).shadowed]
        if shadowed:
            print("lines of gaps.txt that are operations now; take them out:", *shadowed, sep="\n  ", file=sys.stderr)
            return 1
        stale = [name for name, content in files.items() if _content_of(asked.folder / name) != content]
        if stale:
            command = f"python -m cumulet.web.openapi --write {asked.folder}"
            print(f"not current: {', '.join(stale)} in {asked.folder}; run {command}", file=sys.stderr)
            return 1
    return 0


def _content_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    raise SystemExit(main())
