"""What an error looks like on the wire, per service: every OpenStack service has its own shape."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from cumulet.errors import ApiError, MethodNotAllowed, NotAcceptable, NotFound, NotYet, OverQuota, Unauthorized
from cumulet.web.operation import Refused
from cumulet.web.router import Gap

_encode = msgspec.json.Encoder().encode

_COMPUTE = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}
_NETWORK = {
    400: "HTTPBadRequest",
    401: "HTTPUnauthorized",
    403: "PolicyNotAuthorized",
    404: "HTTPNotFound",
    405: "HTTPMethodNotAllowed",
    409: "Conflict",
    412: "HTTPPreconditionFailed",
    413: "HTTPRequestEntityTooLarge",
    415: "HTTPUnsupportedMediaType",
    501: "HTTPNotImplemented",
    503: "HTTPServiceUnavailable",
}
_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}


def _object(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


SCHEMAS: dict[str, dict[str, object]] = {
    "compute": {"type": "object", "additionalProperties": _object(code=_NUMBER, message=_TEXT)},
    "identity": _object(error=_object(code=_NUMBER, title=_TEXT, message=_TEXT)),
    "network": _object(NeutronError=_object(type=_TEXT, message=_TEXT, detail=_TEXT)),
    "image": _object(code=_TEXT, title=_TEXT, message=_TEXT),
    "placement": _object(
        errors={"type": "array", "items": _object(status=_NUMBER, title=_TEXT, detail=_TEXT, request_id=_TEXT)}
    ),
}
"""The JSON schema of each style, for the API reference."""

_REFUSED = {
    "compute": "Policy doesn't allow {} to be performed.",
    "identity": "You are not authorized to perform the requested action: {}.",
    "network": "rule:{} is disallowed by policy",
    "image": "You are not authorized to complete {} action.",
    "placement": "Policy does not allow {} to be performed.",
}
UNEXPECTED = "Unexpected API Error. The request id names it in the server's log."
UNAUTHENTICATED = "The request you have made requires authentication."


def status_of(error: ApiError, style: str) -> int:
    if isinstance(error, OverQuota):
        return {"network": 409, "image": 413, "placement": 409}.get(style, 403)
    return error.status


def message_of(error: ApiError, style: str) -> str:
    if isinstance(error, Refused):
        return _REFUSED[style].format(error.rule)
    return error.public


def fault_body(style: str, status: int, error: ApiError, request_id: str) -> bytes:
    """The JSON of an error answer."""
    message = message_of(error, style)
    if isinstance(error, Unauthorized):
        style = "identity"  # keystonemiddleware answers in front of every service
    match style:
        case "compute":
            fault: dict[str, Any] = {"code": status, "message": message}
            if status in (413, 429) and "Retry-After" in error.headers:
                fault["retryAfter"] = error.headers["Retry-After"]
            return _encode({_COMPUTE.get(status, "computeFault"): fault})
        case "identity":
            return _encode({"error": {"code": status, "title": _title(status), "message": message}})
        case "network":
            kind = "OverQuota" if isinstance(error, OverQuota) else error.reason
            kind = kind or _NETWORK.get(status, "HTTPInternalServerError")
            return _encode({"NeutronError": {"type": kind, "message": message, "detail": ""}})
        case "image":
            return _encode({"message": message, "code": f"{status} {_title(status)}", "title": _title(status)})
        case _:
            code = (
                error.reason if error.reason and error.reason.startswith("placement.") else "placement.undefined_code"
            )
            detail = {
                "status": status,
                "title": _title(status),
                "detail": message,
                "request_id": request_id,
                "code": code,
            }
            return _encode({"errors": [detail]})


def _title(status: int) -> str:
    return HTTPStatus(status).phrase


def not_found() -> NotFound:
    return NotFound("The resource could not be found.")


def not_allowed(methods: list[str]) -> MethodNotAllowed:
    return MethodNotAllowed("The method is not allowed for the requested URL.", headers={"Allow": ", ".join(methods)})


def not_acceptable(version: str, low: str, high: str) -> NotAcceptable:
    return NotAcceptable(f"Version {version} is not supported by the API. Minimum is {low} and maximum is {high}.")


def unauthenticated(base_url: str) -> Unauthorized:
    return Unauthorized(UNAUTHENTICATED, headers={"WWW-Authenticate": f'Keystone uri="{base_url}/identity"'})


class RequestTimeout(ApiError):
    status = 408
    title = "Request Timeout"


class Gone(ApiError):
    status = 410
    title = "Gone"


def gap_error(gap: Gap) -> ApiError:
    """What is answered where OpenStack has something and we have not."""
    if gap.gone:
        return Gone("This resource is no longer available. No forwarding address is given.")
    what = f"{gap.method} {gap.path}" + (f" ({gap.action})" if gap.action else "")
    return NotYet(f"Cumulet does not offer this part of the OpenStack {gap.service.type} API yet: {what}.")
