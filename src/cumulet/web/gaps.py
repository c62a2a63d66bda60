"""Gaps: what OpenStack's APIs have and Cumulet lacks. They answer 501 and name the gap; other unknown paths are 404.

Each service keeps its list in `gaps.txt`. A line is ``METHOD... PATH [ACTION] [FIRST-LAST]``, below the service's
prefix, with the microversions in which OpenStack has it where those are not all; GONE marks what OpenStack itself
answers 410 for. EXTENSION marks what an OpenStack extension adds: without the extension OpenStack answers 404, and
clients find out so whether it is there; we answer 404 too. Whoever adds an operation takes its line out: `make check`
names lines that an operation shadows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from cumulet.web.operation import Microversion, Service

_VERSIONS = re.compile(r"\d+\.\d+-(\d+\.\d+)?", re.ASCII)


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """What OpenStack has at this place and Cumulet lacks."""

    service: Service
    method: str
    path: str
    action: str | None
    gone: bool = False
    """OpenStack itself had it once and answers 410."""
    extension: bool = False
    """OpenStack has it with an extension, and answers 404 without that extension."""
    since: Microversion | None = None
    until: Microversion | None = None
    """The first and the last microversion in which OpenStack has it; None: no bound."""

    def __str__(self) -> str:
        """``POST /servers/{server_id}/action rebuild``: the key of `Service.gap_rules`."""
        return f"{self.method} {self.path}" + (f" {self.action}" if self.action else "")

    def admission(self) -> tuple[str, Callable[[Any], Any] | None] | None:
        """The policy rule and the target that the operation will have, if they are known."""
        return self.service.gap_rules.get(str(self))

    def exists(self, version: Microversion) -> bool:
        return (self.since is None or self.since <= version) and (self.until is None or version <= self.until)


def gaps(services: Iterable[Service]) -> Iterator[Gap]:
    """The gaps that answer 501 or 410, in the order of their lists."""
    return (gap for gap in listed(services) if not gap.extension)


def listed(services: Iterable[Service]) -> Iterator[Gap]:
    """All gaps of these services, also those of extensions."""
    for service in services:
        if service.gaps is None:
            continue
        for line in service.gaps.read_text(encoding="utf-8").splitlines():
            if line.strip():
                yield from _of_line(service, line.split())


def _of_line(service: Service, words: list[str]) -> Iterator[Gap]:
    mark = words.pop(0) if words[0] in ("GONE", "EXTENSION") else ""
    since, until = _versions(words.pop()) if _VERSIONS.fullmatch(words[-1]) else (None, None)
    at = next(n for n, word in enumerate(words) if word.startswith("/"))
    action = words[at + 1] if len(words) > at + 1 else None
    for method in words[:at]:
        yield Gap(
            service=service,
            method=method,
            path=words[at],
            action=action,
            gone=mark == "GONE",
            extension=mark == "EXTENSION",
            since=since,
            until=until,
        )


def _versions(text: str) -> tuple[Microversion, Microversion | None]:
    first, last = text.split("-")
    return Microversion.parse(first), Microversion.parse(last) if last else None
