"""How Identity describes itself, as Keystone does; its errors are the default of `web.dialect`."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.web.dialect import Dialect, Document, link_to_self
from cumulet.web.operation import Service


class IdentityDialect(Dialect):
    slash_suffix = True

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
