"""Every error a caller can be shown: a public half for them, a private half for the log; `web` maps it to HTTP once."""

from __future__ import annotations


class ApiError(Exception):
    """An answer other than success.

    `public` is shown to the caller and names the field at fault; it holds no secret and nothing the caller may not see.
    `private` goes to the log only. `reason` is a coded reason (e.g. ``HOST_DISABLED``) for administrators and records.
    """

    status = 500
    title = "Internal Server Error"

    def __init__(
        self,
        public: str,
        *,
        private: str | None = None,
        reason: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(public)
        self.public = public
        self.private = private
        self.reason = reason
        self.headers = headers or {}


class BadRequest(ApiError):
    status = 400
    title = "Bad Request"


class Unauthorized(ApiError):
    status = 401
    title = "Unauthorized"


class Forbidden(ApiError):
    status = 403
    title = "Forbidden"


class OverQuota(Forbidden):
    """A quota would be exceeded. Compute answers 403, Network 409, Image 413; `web` maps it per service."""


class NotFound(ApiError):
    status = 404
    title = "Not Found"


class MethodNotAllowed(ApiError):
    status = 405
    title = "Method Not Allowed"


class NotAcceptable(ApiError):
    status = 406
    title = "Not Acceptable"


class Conflict(ApiError):
    status = 409
    title = "Conflict"


class Gone(ApiError):
    status = 410
    title = "Gone"


class PreconditionFailed(ApiError):
    """What a request says in ``If-Match`` is no longer so."""

    status = 412
    title = "Precondition Failed"


class TooLarge(ApiError):
    status = 413
    title = "Request Entity Too Large"


class UnsupportedMediaType(ApiError):
    status = 415
    title = "Unsupported Media Type"


class TooManyRequests(ApiError):
    status = 429
    title = "Too Many Requests"


class NotYet(ApiError):
    """What OpenStack has and Cumulet has not yet: 501 with a message that names the gap."""

    status = 501
    title = "Not Implemented"


class InsufficientStorage(ApiError):
    """There is no room for what the request would store."""

    status = 507
    title = "Insufficient Storage"


class Unavailable(ApiError):
    status = 503
    title = "Service Unavailable"
