"""How a service words its errors and describes itself: what differs between OpenStack's services, as one class.

The defaults are Keystone's, whose middleware stands before every service: a missing token is answered in its words
everywhere, and so is a path that belongs to no service.
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
"""From the base URL to a status and a JSON object."""

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
    """What a policy rule's refusal says; the braces take the rule's name."""
    over_quota_status = 403
    head_is_get = True
    """HEAD is answered wherever GET is."""
    knows_405 = True
    """A path with a method it does not have is 405, not an unknown path."""
    media_type_always_checked = False
    """A foreign Content-Type is refused even where no body was sent."""
    project_id_in_path = False
    """Paths may begin with the project's id, as in Nova's older form."""
    json_only = False
    """A body has to say that it is JSON (415), and whoever takes no JSON gets no answer to a GET (406)."""
    rules_before_body = False
    """A policy rule that needs no target is applied before the body is looked at: 403 before 400."""
    errors_follow_accept = False
    """Errors are JSON, a page or text, as the request's ``Accept`` says; else JSON always."""
    error_media = (error_pages.HTML, error_pages.JSON)
    """What they may be, beside text; the first of those that are liked as much."""
    root_knows_405 = False
    """Methods other than GET at the version document are 405, not an unknown path."""
    any_version_is_one = False
    """Two numbers with a dot are a microversion, also ones that no service has: 406 rather than 400."""
    vary = "OpenStack-API-Version"
    """What answers say that they depend on, where the service has microversions."""
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
        """What a version document says beside its JSON at a microversion."""
        return {}

    def documents(self, service: Service, root: str) -> Mapping[str, Document]:
        """Version documents, which need no token: path without a slash at its end to document."""
        return {}


KEYSTONE = Dialect()
