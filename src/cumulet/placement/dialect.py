"""How Placement words its errors and describes itself."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.web.dialect import NUMBER, TEXT, Dialect, Document, Fault, link_to_self, object_schema
from cumulet.web.operation import Service


class PlacementDialect(Dialect):
    error_schema = object_schema(
        errors={
            "type": "array",
            "items": object_schema(status=NUMBER, title=TEXT, detail=TEXT, request_id=TEXT),
        }
    )
    refusal = "Policy does not allow {} to be performed."
    over_quota_status = 409

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

    def documents(self, service: Service, root: str) -> Mapping[str, Document]:
        low, high = service.versions

        def versions(base: str) -> tuple[int, dict[str, object]]:
            about = {
                "id": "v1.0",
                "status": "CURRENT",
                "min_version": str(low),
                "max_version": str(high),
                "links": [link_to_self(f"{base}{root}/")],
            }
            return 200, {"versions": [about]}

        return {root: versions}
