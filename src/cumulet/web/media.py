"""Media types: which ones a body may have, and whether the client accepts JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cumulet.errors import BadRequest, NotAcceptable, UnsupportedMediaType
from cumulet.web import error_pages
from cumulet.web.dialect import Dialect
from cumulet.web.operation import Microversion, Operation
from cumulet.web.router import select
from cumulet.web.schema import Anything, Empty

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_JSON_MEDIA = re.compile(rb"application/([a-z0-9.+-]*[+-])?json(-patch)?\Z")
_UNSUPPORTED = "Unsupported Content-Type"


def require_json(
    dialect: Dialect, version: Microversion, method: str, headers: Mapping[bytes, bytes], operations: list[Operation]
) -> None:
    """415 for a body with a Content-Type other than JSON. Services that speak only JSON check more."""
    bare = headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()
    if dialect.json_only:
        operation = select(operations, version)
        if operation is not None:  # else the answer is 404, whatever was sent
            _require_json_only(method, bare, headers, operation)
    elif not bare or bare == b"text/plain" or _JSON_MEDIA.match(bare) or any(o.raw_body for o in operations):
        return
    elif dialect.media_type_always_checked or (method in _WITH_BODY and _has_body(headers)):
        raise UnsupportedMediaType(_UNSUPPORTED)


def _has_body(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def _require_json_only(method: str, media: bytes, headers: Mapping[bytes, bytes], operation: Operation) -> None:
    """406 for a GET whose ``Accept`` excludes JSON; 400 for a body without a type, 415 for one of another type."""
    accept = headers.get(b"accept", b"").decode("latin-1")
    answers = method == "GET" and operation.success != 204
    if answers and accept.strip() and error_pages.preferred(accept, (error_pages.JSON,)) is None:
        raise NotAcceptable("Only application/json is provided.")
    if method not in _WITH_BODY or media == b"application/json":
        return
    if _has_body(headers) and not media:
        raise BadRequest("A body needs the header Content-Type.")
    if _has_body(headers) or (operation.body is not None and not issubclass(operation.body, Empty | Anything)):
        raise UnsupportedMediaType(f"{_UNSUPPORTED}: a body is application/json here.")
