"""Errors that every service's requests can meet, and how an error becomes a body in the service's dialect."""

from __future__ import annotations

import logging

import msgspec

from cumulet.db.reach import OutcomeUnknown, is_away
from cumulet.errors import (
    ApiError,
    Gone,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    NotYet,
    OverQuota,
    Unauthorized,
    Unavailable,
)
from cumulet.web import error_pages
from cumulet.web.dialect import KEYSTONE, Dialect, Fault
from cumulet.web.gaps import Gap
from cumulet.web.operation import Refused

log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode

MOST_DETAILS_CHARACTERS = 2000
UNEXPECTED = "Unexpected API Error. The request id names it in the server's log."
UNAUTHENTICATED = "The request you have made requires authentication."


def status_of(error: ApiError, dialect: Dialect) -> int:
    return dialect.over_quota_status if isinstance(error, OverQuota) else error.status


def fault_body(dialect: Dialect, status: int, error: ApiError, request_id: str, accept: str) -> tuple[str, bytes]:
    """Media type and content of an error answer.

    A missing token is answered in Keystone's words, because its middleware stands before every service.
    """
    message = dialect.refusal.format(error.rule) if isinstance(error, Refused) else error.public
    speaker = KEYSTONE if isinstance(error, Unauthorized) else dialect
    fault = Fault(status=status, message=message, error=error, request_id=request_id)
    if not speaker.errors_follow_accept or not accept.strip():
        # openstacksdk uploads with an empty Accept, and reads JSON only.
        return error_pages.JSON, _encode(speaker.fault(fault))
    line = f"{status} {fault.title}"
    match error_pages.preferred(accept, speaker.error_media):
        case error_pages.JSON:
            return error_pages.JSON, _encode(speaker.fault(fault))
        case error_pages.HTML:
            return f"{error_pages.HTML}; charset=UTF-8", error_pages.page(line, message)
        case _:
            return f"{error_pages.PLAIN}; charset=UTF-8", error_pages.text(line, message)


def not_found() -> NotFound:
    return NotFound("The resource could not be found.")


def not_allowed(methods: list[str]) -> MethodNotAllowed:
    return MethodNotAllowed("The method is not allowed for the requested URL.", headers={"Allow": ", ".join(methods)})


def not_acceptable(version: str, low: str, high: str) -> NotAcceptable:
    return NotAcceptable(f"Version {version} is not supported by the API. Minimum is {low} and maximum is {high}.")


def unauthenticated(base_url: str) -> Unauthorized:
    return Unauthorized(UNAUTHENTICATED, headers={"WWW-Authenticate": f'Keystone uri="{base_url}/identity"'})


def unexpected(error: Exception, request_id: str) -> ApiError:
    """The answer for an unexpected error. The log has the details."""
    again = {"Retry-After": "1"}
    if is_away(error):  # Every request meets this: one line each, without a traceback.
        log.warning("the database is away: %r", error, extra={"request_id": request_id})
    else:
        log.error("unexpected error", exc_info=error, extra={"request_id": request_id})
    if isinstance(error, OutcomeUnknown):
        unknown = "The cloud's database was lost before it said whether this was done. Look before you ask again."
        return Unavailable(unknown, headers=again)
    if is_away(error):
        return Unavailable("The cloud's database cannot be reached. Try again soon.", headers=again)
    return ApiError(UNEXPECTED)


class RequestTimeout(ApiError):
    status = 408
    title = "Request Timeout"


def gap_error(gap: Gap) -> ApiError:
    """The answer for a gap: 501, or 410 where OpenStack itself answers that."""
    if gap.gone:
        return Gone("This resource is no longer available. No forwarding address is given.")
    what = f"{gap.method} {gap.path}" + (f" ({gap.action})" if gap.action else "")
    return NotYet(f"Cumulet does not offer this part of the OpenStack {gap.service.type} API yet: {what}.")


def header_text(text: str) -> bytes:
    """The text as a header's value: one line of ASCII, of bounded length."""
    shown = "".join(character if " " <= character <= "~" else "?" for character in text)
    return shown[:MOST_DETAILS_CHARACTERS].encode()


def let_go(error: BaseException | None) -> None:
    """Drop the traceback of an error once it is answered. The traceback holds frames, and one of those holds the error
    or its future: only the garbage collector could free this circle, and all threads wait while it runs."""
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
