"""How Network words its errors and describes itself, as Neutron does."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.errors import OverQuota
from cumulet.web.dialect import TEXT, Dialect, Document, Fault, link_to_self, object_schema
from cumulet.web.operation import Service

_RESOURCES = ("network", "subnet", "subnetpool", "port")
_KINDS = {
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


class NetworkDialect(Dialect):
    error_schema = object_schema(NeutronError=object_schema(type=TEXT, message=TEXT, detail=TEXT))
    refusal = "rule:{} is disallowed by policy"
    over_quota_status = 409
    json_suffix = True

    def fault(self, fault: Fault) -> dict[str, object]:
        kind = "OverQuota" if isinstance(fault.error, OverQuota) else fault.error.reason
        kind = kind or _KINDS.get(fault.status, "HTTPInternalServerError")
        return {"NeutronError": {"type": kind, "message": fault.message, "detail": ""}}

    def documents(self, service: Service, root: str) -> Mapping[str, Document]:
        def versions(base: str) -> tuple[int, dict[str, object]]:
            return 200, {
                "versions": [{"id": "v2.0", "status": "CURRENT", "links": [link_to_self(f"{base}{root}/v2.0/")]}]
            }

        def resources(base: str) -> tuple[int, dict[str, object]]:
            url = f"{base}{root}/v2.0"
            listed = [{"name": n, "collection": f"{n}s", "links": [link_to_self(f"{url}/{n}s")]} for n in _RESOURCES]
            return 200, {"resources": listed}

        return {root: versions, f"{root}/v2.0": resources}
