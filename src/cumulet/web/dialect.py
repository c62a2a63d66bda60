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

if TYPE_CHECKING:
    from cumulet.web.operation import Service

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
    errors_follow_accept = False
    """Errors are JSON, a page or text, as the request's ``Accept`` says; else JSON always."""
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

    def documents(self, service: Service, root: str) -> Mapping[str, Document]:
        """Version documents, which need no token: path without a slash at its end to document."""
        return {}


KEYSTONE = Dialect()
