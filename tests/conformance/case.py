"""A case is one request with what it needs; the answer to expect is not here but in the recorded golden files.

Paths and bodies hold placeholders such as ``{server}`` or ``{host:server}``; naming one is how a case says that it
needs the thing (see `world.World`, which makes it). A path without a leading ``root:`` is below ``/v2.1``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

PERSONAS: Final = (
    "none",
    "bad",
    "norole",
    "reader",
    "member",
    "manager",
    "admin",
    "other_member",
    "other_manager",
    "service",
    "system_admin",
    "system_reader",
)
LATEST: Final = "2.104"
UNKNOWN: Final = "7c2d25ca-3d12-4a09-96b4-4c32ac30e6de"
"""An id that nothing has."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A body sent as it is, for what is not JSON."""

    text: str


@dataclass(frozen=True, slots=True)
class NoBody:
    """No body at all, which is not the same as ``null``."""


NO_BODY: Final = NoBody()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent. `version` None: no microversion header."""

    method: str
    path: str
    persona: str = "admin"
    version: str | None = None
    body: object = NO_BODY
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`needs`: placeholders without a place in the request; `alone`: no other server exists; `watch`: the placeholder
    of the server whose fate is recorded, or ``created``; `undo` runs only after a success, `after` always."""

    id: str
    request: Request
    needs: tuple[str, ...] = ()
    before: tuple[Request, ...] = ()
    undo: tuple[Request, ...] = ()
    after: tuple[Request, ...] = ()
    alone: bool = False
    watch: str | None = None

    @property
    def area(self) -> str:
        return self.id.split("/", 1)[0]


def case(
    name: str,
    persona: str,
    version: str | None,
    method: str,
    path: str,
    body: object = NO_BODY,
    *,
    headers: Mapping[str, str] | None = None,
    needs: tuple[str, ...] = (),
    before: tuple[Request, ...] = (),
    undo: tuple[Request, ...] = (),
    after: tuple[Request, ...] = (),
    alone: bool = False,
    watch: str | None = None,
) -> Case:
    """One case; its id is ``area/what@version:persona``."""
    request = Request(
        method=method, path=path, persona=persona, version=version, body=body, headers=dict(headers or {})
    )
    return Case(
        id=f"{name}@{version or 'none'}:{persona}",
        request=request,
        needs=needs,
        before=before,
        undo=undo,
        after=after,
        alone=alone,
        watch=watch,
    )


def reads(
    name: str,
    path: str,
    *,
    versions: Iterable[str | None],
    personas: Iterable[str] = ("member",),
    needs: tuple[str, ...] = (),
    alone: bool = False,
) -> list[Case]:
    """The same GET at each of the versions as each of the personas."""
    return [
        case(name, persona, version, "GET", path, needs=needs, alone=alone)
        for version in versions
        for persona in personas
    ]


def admin(method: str, path: str, body: object = NO_BODY, version: str | None = LATEST) -> Request:
    """A request of the administrator, for set-up and clearing up."""
    return Request(method=method, path=path, body=body, version=version)
