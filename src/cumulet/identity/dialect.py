"""How Identity describes itself, as Keystone does; its errors are the default of `web.dialect`."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.errors import ApiError
from cumulet.web.dialect import Dialect, Document, Fault, link_to_self
from cumulet.web.operation import Service


class OAuth2Refused(ApiError):
    """An error in the form of OAuth 2.0 (RFC 6749, 5.2). `code`: such as ``invalid_client``."""

    def __init__(self, status: int, code: str, public: str, *, private: str | None = None) -> None:
        super().__init__(public, private=private)
        self.status = status
        self.code = code


class IdentityDialect(Dialect):
    slash_suffix = True

    def fault(self, fault: Fault) -> dict[str, object]:
        """As Keystone's, but for clients of OAuth 2.0."""
        if isinstance(fault.error, OAuth2Refused):
            return {"error": fault.error.code, "error_description": fault.message}
        return super().fault(fault)

    def documents(self, service: Service, root: str) -> Mapping[str, Document]:
        def version(base: str) -> dict[str, object]:
            return {
                "id": "v3.14",
                "status": "stable",
                "updated": "2020-04-07T00:00:00Z",
                "links": [link_to_self(f"{base}{root}/v3/")],
                "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
            }

        return {
            root: lambda base: (300, {"versions": {"values": [version(base)]}}),
            f"{root}/v3": lambda base: (200, {"version": version(base)}),
        }
