"""How Image words its errors and describes itself, as Glance does."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.web.dialect import TEXT, Dialect, Document, Fault, link_to_self, object_schema
from cumulet.web.operation import Service

_VERSIONS = tuple(f"v2.{minor}" for minor in (17, 15, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))
"""What Glance lists where its stores have names, without a cache."""


class ImageDialect(Dialect):
    error_schema = object_schema(code=TEXT, title=TEXT, message=TEXT)
    refusal = "You are not authorized to complete {} action."
    over_quota_status = 413
    head_is_get = False
    errors_follow_accept = True

    def fault(self, fault: Fault) -> dict[str, object]:
        return {"message": fault.message, "code": f"{fault.status} {fault.title}", "title": fault.title}

    def documents(self, service: Service, root: str) -> Mapping[str, Document]:
        def listed(base: str) -> dict[str, object]:
            return {
                "versions": [
                    {
                        "id": name,
                        "status": "CURRENT" if name == _VERSIONS[0] else "SUPPORTED",
                        "links": [link_to_self(f"{base}{root}/v2/")],
                    }
                    for name in _VERSIONS
                ]
            }

        return {
            root: lambda base: (300, listed(base)),
            f"{root}/versions": lambda base: (200, listed(base)),
            f"{root}/v2": lambda base: (300, listed(base)),
        }
