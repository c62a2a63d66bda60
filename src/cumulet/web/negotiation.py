"""The microversion of a request, by the header OpenStack-API-Version or else the service's older header."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import msgspec

from cumulet.errors import BadRequest
from cumulet.web.dialect import Dialect
from cumulet.web.faults import not_acceptable
from cumulet.web.operation import Microversion, Service

HEADER = b"openstack-api-version"
_NUMBERS = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})", re.ASCII)


class Negotiated(msgspec.Struct, frozen=True):
    version: Microversion
    headers: tuple[tuple[bytes, bytes], ...]
    """Headers of every answer of the service."""


class UnacceptableVersion(Exception):
    """406. The answer still has the version that was asked for."""

    def __init__(self, error: Exception, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        super().__init__(str(error))
        self.error = error
        self.headers = headers


def negotiate(service: Service, headers: Mapping[bytes, bytes]) -> Negotiated:
    """The version to serve. 400 if the header has no version, 406 if the service does not have it."""
    older = service.dialect.legacy_version_header
    asked = headers.get(HEADER)
    legacy = headers.get(older.lower().encode()) if older is not None else None
    if not service.microversioned or (asked is None and legacy is None):
        return _served(service.type, service.versions[0], service.microversioned, service.dialect)
    return _negotiate(service.type, service.versions, service.dialect, asked, legacy)


@functools.lru_cache(1024)
def _negotiate(
    kind: str,
    versions: tuple[Microversion, Microversion],
    dialect: Dialect,
    asked: bytes | None,
    legacy: bytes | None,
) -> Negotiated:
    low, high = versions
    text = _wanted(kind, asked)
    if text is None and legacy is not None:
        text = legacy.decode("latin-1").strip()
    if not text:
        return _served(kind, low, True, dialect)
    if text.lower() == "latest":
        return _served(kind, high, True, dialect)
    try:
        version = Microversion.parse(text)
    except ValueError:
        if dialect.any_version_is_one and (numbers := _NUMBERS.fullmatch(text)) is not None:
            version = Microversion(int(numbers[1]), int(numbers[2]))
            raise _unacceptable(kind, version, versions, dialect) from None
        raise BadRequest(
            f"API Version String {text[:64]} is of invalid format. Must be of format MajorNum.MinorNum."
        ) from None
    if not low <= version <= high:
        raise _unacceptable(kind, version, versions, dialect)
    return _served(kind, version, True, dialect)


def _unacceptable(
    kind: str, version: Microversion, versions: tuple[Microversion, Microversion], dialect: Dialect
) -> UnacceptableVersion:
    error = not_acceptable(str(version), str(versions[0]), str(versions[1]))
    return UnacceptableVersion(error, _version_headers(kind, version, dialect))


def _wanted(kind: str, header: bytes | None) -> str | None:
    """The version for `kind` in ``compute 2.3, placement 1.4``; the last one counts."""
    found = None
    for part in (header or b"").decode("latin-1").split(","):
        words = part.split()
        if len(words) == 2 and words[0].lower() == kind:
            found = words[1]
    return found


@functools.lru_cache(1024)
def _served(kind: str, version: Microversion, microversioned: bool, dialect: Dialect) -> Negotiated:
    return Negotiated(version, _version_headers(kind, version, dialect) if microversioned else ())


def _version_headers(kind: str, version: Microversion, dialect: Dialect) -> tuple[tuple[bytes, bytes], ...]:
    text = str(version).encode()
    headers = [(b"openstack-api-version", kind.encode() + b" " + text), (b"vary", dialect.vary.encode())]
    if dialect.legacy_version_header is not None:
        name = dialect.legacy_version_header.encode()
        headers += [(name.lower(), text), (b"vary", name)]
    return tuple(headers)
