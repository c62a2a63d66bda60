"""How Placement words its errors and describes itself."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate

from cumulet.web import error_pages
from cumulet.web.dialect import NUMBER, TEXT, Dialect, Document, Fault, link_to_self, object_schema
from cumulet.web.operation import Microversion, Service


def freshness(version: Microversion, modified_us: int) -> dict[str, str]:
    """The headers of microversion 1.15: when it was last modified, and that it is not to be cached."""
    if not version.at_least("1.15"):
        return {}
    return {"Last-Modified": formatdate(modified_us // 1_000_000, usegmt=True), "Cache-Control": "no-cache"}


class PlacementDialect(Dialect):
    error_schema = object_schema(
        errors={
            "type": "array",
            "items": object_schema(status=NUMBER, title=TEXT, detail=TEXT, request_id=TEXT),
        }
    )
    refusal = "Policy does not allow {} to be performed."
    over_quota_status = 409
    head_is_get = False
    json_only = True
    rules_before_body = True
    errors_follow_accept = True
    error_media = (error_pages.JSON, error_pages.HTML)
    root_knows_405 = True
    any_version_is_one = True
    vary = "openstack-api-version"

    def fault(self, fault: Fault) -> dict[str, object]:
        reason = fault.error.reason or ""
        about = {
            "status": fault.status,
            "title": fault.title,
            "detail": fault.message,
            "request_id": fault.request_id,
            "code": reason if reason.startswith("placement.") else "placement.undefined_code",
        }
        return {"errors": [about]}

    def document_headers(self, version: Microversion, now_us: int) -> Mapping[str, str]:
        return freshness(version, now_us)

    def documents(self, service: Service, root: str) -> Mapping[str, Document]:
        low, high = service.versions

        def versions(base: str) -> tuple[int, dict[str, object]]:
            about = {
                "id": "v1.0",
                "status": "CURRENT",
                "min_version": str(low),
                "max_version": str(high),
                "links": [link_to_self("")],
            }
            return 200, {"versions": [about]}

        return {root: versions}
