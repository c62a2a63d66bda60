"""All services' operations in one trie: a path is matched segment by segment, literals before parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

import msgspec

from cumulet.web.gaps import Gap
from cumulet.web.operation import Microversion, Operation, Service

_PROJECT_ID = re.compile(r"[0-9a-f-]+", re.ASCII)


class RegistryError(Exception):
    """An operation that must not be served: it stops the start."""


class Place(msgspec.Struct):
    """One path of the API: what can be done there, by method and, for actions, by the body's key."""

    service: Service
    operations: dict[str, list[Operation]] = msgspec.field(default_factory=dict)
    actions: dict[str, list[Operation]] = msgspec.field(default_factory=dict)
    gaps: dict[str, Gap] = msgspec.field(default_factory=dict)
    gap_actions: dict[str, Gap] = msgspec.field(default_factory=dict)

    def methods(self) -> list[str]:
        """For the Allow header."""
        found = set(self.operations) | ({"POST"} if self.actions else set())
        if "GET" in found and self.service.dialect.head_is_get:
            found.add("HEAD")
        return sorted(found)

    def has_actions(self) -> bool:
        return bool(self.actions or self.gap_actions)


class _Node(msgspec.Struct):
    literals: dict[str, _Node] = msgspec.field(default_factory=dict)
    parameter: _Node | None = None
    place: Place | None = None


class Router:
    """Where a path leads. Built once; checks the whole registry while it is built."""

    def __init__(self, services: Iterable[Service], gaps: Iterable[Gap] = ()) -> None:
        self.services = tuple(services)
        self._root = _Node()
        for service in self.services:
            for operation in service.operations:
                self._add(operation)
        self.shadowed: list[Gap] = [gap for gap in gaps if not self._add_gap(gap)]
        """Lines of the lists of gaps that are operations by now, and have to be removed from the list."""
        self._prefixes = sorted(
            ((tuple(s.prefix.strip("/").split("/")), s) for s in self.services), key=lambda item: -len(item[0])
        )

    def _place(self, service: Service, path: str) -> Place:
        node = self._root
        for segment in _segments(service.prefix + path):
            if segment.startswith("{"):
                node.parameter = node = node.parameter or _Node()
            else:
                node = node.literals.setdefault(segment, _Node())
        if node.place is None:
            node.place = Place(service)
        return node.place

    def _add(self, operation: Operation) -> None:
        _check(operation)
        place = self._place(operation.service, operation.path)
        table, key = (place.actions, operation.action) if operation.action else (place.operations, operation.method)
        others = table.setdefault(key, [])
        for other in others:
            if _overlap(operation, other):
                raise RegistryError(f"{describe(operation)} and {describe(other)} answer the same request")
        others.append(operation)

    def _add_gap(self, gap: Gap) -> bool:
        """Whether it is a gap; False: there is an operation at its place."""
        place = self._place(gap.service, gap.path)
        if gap.action is not None:
            if gap.action in place.actions:
                return False
            place.gap_actions[gap.action] = gap
        else:
            if gap.method in place.operations:
                return False
            place.gaps[gap.method] = gap
        return True

    def without_suffix(self, raw_path: str) -> str:
        """The path without ``.json`` or a slash at its end, where the service lets clients write that."""
        if raw_path.endswith((".json", "/")):
            service = self.service_at(raw_path)
            if service is not None and service.dialect.json_suffix:
                return raw_path.removesuffix(".json")
            if service is not None and service.dialect.slash_suffix:
                return raw_path.removesuffix("/")
        return raw_path

    def find(self, raw_path: str) -> tuple[Place, tuple[str, ...]] | None:
        """The place of a path as it stands in the request line (percent-encoded), and the values of its parameters."""
        return _walk(
            self._root, raw_path.strip("/").split("/") if raw_path[-1:] != "/" else [*_segments(raw_path), ""], 0
        )

    def find_below_project(self, raw_path: str) -> tuple[Place, tuple[str, ...], str] | None:
        """The same for Nova's older form of a path, ``/v2.1/{project_id}/servers``; the project's id comes last."""
        segments = raw_path.strip("/").split("/")
        for prefix, service in self._prefixes:
            below = segments[len(prefix) :]
            named = service.dialect.project_id_in_path and tuple(segments[: len(prefix)]) == prefix and len(below) > 1
            if named and _PROJECT_ID.fullmatch(below[0]):
                found = _walk(self._root, [*prefix, *below[1:]], 0)
                return None if found is None else (*found, below[0])
        return None

    def service_at(self, raw_path: str) -> Service | None:
        """The service a path belongs to, whether or not anything is there."""
        segments = _segments(raw_path)
        for prefix, service in self._prefixes:
            if tuple(segments[: len(prefix)]) == prefix:
                return service
        for prefix, service in self._prefixes:
            if segments[:1] == [prefix[0]]:
                return service
        return None


def _segments(path: str) -> list[str]:
    return path.strip("/").split("/")


def _walk(node: _Node, segments: list[str], at: int) -> tuple[Place, tuple[str, ...]] | None:
    if at == len(segments):
        return None if node.place is None else (node.place, ())
    segment = segments[at]
    following = node.literals.get(segment)
    if following is not None:
        found = _walk(following, segments, at + 1)
        if found is not None:
            return found
    if node.parameter is not None and segment:
        found = _walk(node.parameter, segments, at + 1)
        if found is not None:
            value = unquote(segment, errors="replace") if "%" in segment else segment
            return found[0], (value, *found[1])
    return None


def select(operations: list[Operation], version: Microversion) -> Operation | None:
    """The operation that has `version`."""
    for operation in operations:
        if operation.since <= version and (operation.until is None or version <= operation.until):
            return operation
    return None


def _check(operation: Operation) -> None:
    low, high = operation.service.versions
    where = describe(operation)
    if not operation.path.startswith("/") and operation.path:
        raise RegistryError(f"{where}: the path does not begin with a slash")
    if not low <= operation.since <= high or (
        operation.until is not None and not operation.since <= operation.until <= high
    ):
        raise RegistryError(f"{where}: its microversions are not within those of the service")
    if operation.action is not None and operation.method != "POST":
        raise RegistryError(f"{where}: an action is a POST")


def _overlap(one: Operation, other: Operation) -> bool:
    return not (
        (one.until is not None and one.until < other.since) or (other.until is not None and other.until < one.since)
    )


def describe(operation: Operation) -> str:
    action = f" ({operation.action})" if operation.action else ""
    return f"{operation.service.name} {operation.method} {operation.path}{action}"
