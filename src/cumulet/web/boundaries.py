"""Microversions in types: at which of them a schema changes, and what exists at one."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

from cumulet.web.annotations import Body, Convert, Json, Key, Required, Since, Single, Until, Versions, declared
from cumulet.web.operation import Microversion


def boundaries(cls: type) -> tuple[Microversion, ...]:
    """The microversions at which the schema of `cls` may change, ascending."""
    found = _known_boundaries.get(cls)
    if found is None:
        found = _known_boundaries[cls] = _boundaries(cls)
    return found


_known_boundaries: dict[type, tuple[Microversion, ...]] = {}


def _boundaries(cls: type) -> tuple[Microversion, ...]:
    found: set[Microversion] = set()
    if closed := cls._options.closed_since:  # type: ignore[attr-defined]
        found.add(Microversion.parse(closed))
    for field in declared(cls):
        _collect(field.type, found)
    return tuple(sorted(found))


def _collect(annotation: object, found: set[Microversion]) -> None:
    if isinstance(annotation, type) and issubclass(annotation, Body):
        found.update(boundaries(annotation))
        return
    for item in getattr(annotation, "__metadata__", ()):
        match item:
            case Since(version):
                found.add(Microversion.parse(version))
            case Until(version):
                found.add(_after(version))
            case Required(since=since, until=until):
                found.update({Microversion.parse(since)} if since else ())
                found.update({_after(until)} if until else ())
            case Versions(types=by_version):
                for version, kind in by_version:
                    found.add(Microversion.parse(version))
                    _collect(kind, found)
    if get_origin(annotation) is Literal:
        return
    for inner in get_args(annotation):
        if not isinstance(inner, Since | Until | Required | Versions | Json | Key | Convert | Single):
            _collect(inner, found)


def _after(text: str) -> Microversion:
    version = Microversion.parse(text)
    return Microversion(version.major, version.minor + 1)


def in_range(version: Microversion, since: str | None, until: str | None) -> bool:
    return (since is None or version >= Microversion.parse(since)) and (until is None or version < _after(until))


def exists(metadata: tuple[object, ...], version: Microversion) -> bool:
    since = next((m.version for m in metadata if isinstance(m, Since)), None)
    until = next((m.version for m in metadata if isinstance(m, Until)), None)
    return in_range(version, since, until)
