"""How Compute words its errors and describes itself, as Nova does (API reference, "Faults" and "API Versions")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from cumulet.web.dialect import NUMBER, TEXT, Dialect, Document, Fault, link_to_self, object_schema
from cumulet.web.operation import Service

UPDATED = "2013-07-23T11:33:21Z"
_KINDS = {
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


Version = TypedDict(
    "Version",
    {
        "id": str,
        "status": str,
        "version": str,
        "min_version": str,
        "updated": str,
        "links": list[dict[str, str]],
        "media-types": NotRequired[list[dict[str, str]]],
    },
)
"""What a version's document says."""


class ComputeDialect(Dialect):
    error_schema: Mapping[str, object] = {
        "type": "object",
        "additionalProperties": object_schema(code=NUMBER, message=TEXT),
    }
    refusal = "Policy doesn't allow {} to be performed."
    head_is_get = False
    knows_405 = False
    media_type_always_checked = True
    project_id_in_path = True
    legacy_version_header = "X-OpenStack-Nova-API-Version"
    request_id_header = b"x-compute-request-id"

    def fault(self, fault: Fault) -> dict[str, object]:
        about: dict[str, object] = {"code": fault.status, "message": fault.message}
        if fault.status in (413, 429) and "Retry-After" in fault.error.headers:
            about["retryAfter"] = fault.error.headers["Retry-After"]
        return {_KINDS.get(fault.status, "computeFault"): about}

    def documents(self, service: Service, root: str) -> Mapping[str, Document]:
        low, high = service.versions

        def version(base: str) -> Version:
            return {
                "id": "v2.1",
                "status": "CURRENT",
                "version": str(high),
                "min_version": str(low),
                "updated": UPDATED,
                "links": [link_to_self(f"{base}{root}/v2.1/")],
            }

        def legacy(base: str) -> Version:
            """Described as Nova describes it, for clients that look for it; what is below answers 404."""
            return {
                "id": "v2.0",
                "status": "SUPPORTED",
                "version": "",
                "min_version": "",
                "updated": "2011-01-21T11:33:21Z",
                "links": [link_to_self(f"{base}{root}/v2/")],
            }

        def one(about: Version, kind: str) -> tuple[int, dict[str, object]]:
            about["links"].append({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"})
            media_type = f"application/vnd.openstack.compute+json;version={kind}"
            about["media-types"] = [{"base": "application/json", "type": media_type}]
            return 200, {"version": about}

        return {
            root: lambda base: (200, {"versions": [legacy(base), version(base)]}),
            f"{root}/v2": lambda base: one(legacy(base), "2"),
            f"{root}/v2.1": lambda base: one(version(base), "2.1"),
        }
