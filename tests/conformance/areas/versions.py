"""Version documents and their links."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import Case, case


def cases() -> Iterator[Case]:
    for persona in ("none", "bad", "member", "admin", "system_reader"):
        yield case("versions/root", persona, None, "GET", "root:/")
        yield case("versions/v2.1", persona, None, "GET", "/")
    for version in ("2.1", "2.90", "latest", "2.999"):
        yield case("versions/root", "none", version, "GET", "root:/")
        yield case("versions/v2.1", "none", version, "GET", "/")
    yield case("versions/v2.1 without slash", "none", None, "GET", "")
    yield case("versions/by id", "member", None, "GET", "/versions/v2.1")
    yield case("versions/unknown id", "member", None, "GET", "/versions/v9")
    yield case("versions/by id", "none", None, "GET", "/versions/v2.1")
    yield case("versions/post root", "member", None, "POST", "root:/", {})
