"""Documents that need no token: the list of services, and the version documents of each."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.web.dialect import Document, link_to_self
from cumulet.web.operation import Service


def documents(services: Iterable[Service]) -> dict[str, tuple[Service | None, Document]]:
    """By path, without a slash at its end: the service and its document."""
    found = list(services)
    out: dict[str, tuple[Service | None, Document]] = {"": (None, lambda base: (200, _root(found, base)))}
    for service in found:
        root = "/" + service.prefix.strip("/").split("/")[0]
        for path, document in service.dialect.documents(service, root).items():
            out[path] = (service, document)
    return out


def _root(services: list[Service], base: str) -> dict[str, object]:
    return {
        "services": [{"name": s.name, "type": s.type, "links": [link_to_self(f"{base}{s.prefix}")]} for s in services]
    }
