"""An example of every operation: a real target, a request that would be accepted, and who may make it.

The tables are in `compute_examples.py` and its siblings, by service. `may` and `sees` are stated there by hand, from
OpenStack's documented defaults: were they read from the declaration, a rule that is lost there would be lost here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cumulet.web.operation import Operation

PERSONAS = ("admin", "manager", "member", "reader", "norole", "service", "other_member", "nobody")
"""`norole` has a role that no rule names, in the project of `member`; `other_member` is a member of another project;
`admin` is an administrator of a third; `service`
has the role by which OpenStack's services know each other; `nobody` has no token."""

Personas = frozenset[str]
ADMIN: Personas = frozenset({"admin"})
MANAGER = ADMIN | {"manager"}
MEMBER = MANAGER | {"member"}
READER = MEMBER | {"reader"}
PROJECT = READER | {"norole", "service"}
"""Whoever has a token for the project that owns the target, and administrators."""
SERVICE = ADMIN | {"service"}
ANY_MEMBER = MEMBER | {"other_member"}
ANY_READER = READER | {"other_member"}
ANYONE = PROJECT | {"other_member"}
"""Whoever has a token."""
NOBODY: Personas = frozenset()

Made = Callable[[Any], Any]
"""From a service's things to a value; makes what it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One request. Values may be functions of the service's things.

    `may`: who is let through. `sees`: who of the others is told 403; the rest is told 404. `path`: values of the path's
    parameters, where they are not the usual ones of their names. `rules`: further rules that the handler checks; they
    must be opened, too, for the request to pass. `real`: its writes are not rolled back, because it takes several
    transactions; each request needs a new target. `answers`: the status of who may, if it is not
    the operation's own. `hidden`: the parameter that names what is out of sight, if that is not the path's first.
    """

    may: Personas
    sees: Personas = ANYONE
    label: str = ""
    hidden: str = ""
    path: Mapping[str, str | Made] = field(default_factory=dict)
    query: str | Made = ""
    body: Any = None
    content: bytes | None = None
    headers: Mapping[str, str | Made] = field(default_factory=dict)
    version: str | None = None
    rules: tuple[str, ...] = ()
    real: bool = False
    answers: int | None = None

    def expected(self, persona: str) -> int | None:
        """The status of a refusal; None: let through."""
        if persona == "nobody":
            return 401
        if persona in self.may:
            return None
        return 403 if persona in self.sees else 404


def key_of(operation: Operation) -> str:
    """``POST /servers/{server_id}/action os-stop``; with the last microversion where it is not the service's last."""
    until = f" (to {operation.until})" if operation.until is not None else ""
    return f"{operation.method} {operation.path}{f' {operation.action}' if operation.action else ''}{until}"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it is sent."""

    method: str
    path: str
    parameters: Mapping[str, str]
    body: Any
    content: bytes | None
    headers: dict[str, str]


def request_of(operation: Operation, example: Example, usual: Mapping[str, str | Made], things: Any) -> Sent:
    """The example as a request to the operation, with everything made that it needs."""
    parameters = dict(_parameters(operation, {**usual, **example.path}, things))
    path = operation.service.prefix + operation.path
    for name, value in parameters.items():
        path = path.replace(f"{{{name}}}", value)
    if query := _value(example.query, things):
        path += f"?{query}"
    body = _value(example.body, things)
    if operation.action is not None:
        body = {operation.action: body}
    headers = {name: str(_value(value, things)) for name, value in example.headers.items()}
    if operation.service.microversioned:
        version = example.version or str(operation.until or operation.service.versions[1])
        headers["OpenStack-API-Version"] = f"{operation.service.type} {version}"
    return Sent(operation.method, path, parameters, body, example.content, headers)


def _parameters(operation: Operation, known: Mapping[str, str | Made], things: Any) -> Iterator[tuple[str, str]]:
    for name in re.findall(r"\{([^}]+)\}", operation.path):
        assert name in known, f"no target for {{{name}}} of {key_of(operation)}"
        yield name, str(_value(known[name], things))


def _value(value: Any, things: Any) -> Any:
    """`value` with its functions called, however deep they stand in it."""
    if callable(value):
        return _value(value(things), things)
    if isinstance(value, dict):
        return {name: _value(part, things) for name, part in value.items()}
    if isinstance(value, list):
        return [_value(part, things) for part in value]
    return value
