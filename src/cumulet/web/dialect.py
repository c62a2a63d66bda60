"""How a service words its errors and describes itself: OpenStack's services differ in this.

The defaults are Keystone's. Its middleware stands before every service, so a missing token is answered in its words at
all of them. A path that belongs to no service is answered in its words too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from cumulet.errors import ApiError
from cumulet.web import error_pages

if TYPE_CHECKING:
    from cumulet.web.operation import Microversion, Service

Document = Callable[[str], tuple[int, dict[str, object]]]
"""A function from the base URL to a status and a JSON object."""

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}


def object_schema(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


def link_to_self(href: str) -> dict[str, str]:
    return {"rel": "self", "href": href}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An error on its way out. `message` may be shown to the caller."""

    status: int
    message: str
    error: ApiError
    request_id: str

    @property
    def title(self) -> str:
        """The status in words: ``Not Found``."""
        return HTTPStatus(self.status).phrase


class Dialect:
    """The conventions of one service. A service's own class, in its `dialect.py`, says where it differs."""

    error_schema: Mapping[str, object] = object_schema(error=object_schema(code=NUMBER, title=TEXT, message=TEXT))
    """The JSON schema of an error's body, for the API reference."""
    refusal = "You are not authorized to perform the requested action: {}."
    """The words of a policy rule's refusal; the rule's name stands for the braces."""
    over_quota_status = 403
    head_is_get = True
    """HEAD is answered where GET is."""
    knows_405 = True
    """A method that a path does not have is 405; otherwise 404."""
    media_type_always_checked = False
    """A Content-Type other than JSON is refused even if no body was sent."""
    project_id_in_path = False
    """Paths may begin with the project's id, as in Nova's older form."""
    json_only = False
    """A body needs the Content-Type of JSON (415), and a GET whose ``Accept`` excludes JSON is 406."""
    rules_before_body = False
    """A policy rule that needs no target is applied before the body is checked: 403 before 400."""
    errors_follow_accept = False
    """Errors are JSON, a page or text, as the request's ``Accept`` says. Otherwise they are always JSON."""
    error_media = (error_pages.HTML, error_pages.JSON)
    """The media types of errors, beside text. The first one wins where ``Accept`` prefers none of them."""
    root_knows_405 = False
    """Methods other than GET at the version document are 405; otherwise 404."""
    any_version_is_one = False
    """Any two numbers with a dot count as a microversion: one that no service has is 406, not 400."""
    vary = "OpenStack-API-Version"
    """The header ``Vary`` of answers, if the service has microversions."""
    json_suffix = False
    """Paths may end in ``.json``."""
    slash_suffix = False
    """Paths may end in a slash."""
    legacy_version_header: str | None = None
    """An older header that names the microversion alone, as answers write it."""
    request_id_header: bytes | None = None
    """A second response header that carries the request's id."""

    def fault(self, fault: Fault) -> dict[str, object]:
        """The JSON of an error answer."""
        return {"error": {"code": fault.status, "title": fault.title, "message": fault.message}}

    def document_headers(self, version: Microversion, now_us: int) -> Mapping[str, str]:
        """Headers of a version document at a microversion."""
        return {}

    def documents(self, service: Service, root: str) -> Mapping[str, Document]:
        """Version documents, which need no token, by their paths without a slash at the end."""
        return {}


KEYSTONE = Dialect()
