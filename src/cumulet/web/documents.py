"""What is said without a token about what is here: the list of services and each one's version document."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cumulet.web.operation import Service

Document = Callable[[str], tuple[int, dict[str, Any]]]
"""From the base URL to a status and a JSON object."""

UPDATED = "2013-07-23T11:33:21Z"
_MEDIA = "application/vnd.openstack.{}+json"
_IMAGE_VERSIONS = ("v2.17", "v2.15", "v2.9", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0")
"""What Glance lists without a cache and without several stores."""
_NETWORK_RESOURCES = ("network", "subnet", "subnetpool", "port")


def documents(services: Iterable[Service]) -> dict[str, tuple[Service | None, Document]]:
    """Path (without a slash at its end) to the service and its document."""
    found = list(services)
    out: dict[str, tuple[Service | None, Document]] = {"": (None, lambda base: (200, _root(found, base)))}
    for service in found:
        make = _MAKERS.get(service.error_style)
        if make is None:
            continue
        root = "/" + service.prefix.strip("/").split("/")[0]
        for path, document in make(service, root).items():
            out[path] = (service, document)
    return out


def _root(services: list[Service], base: str) -> dict[str, Any]:
    return {
        "services": [
            {"name": s.name, "type": s.type, "links": [{"rel": "self", "href": f"{base}{s.prefix}"}]} for s in services
        ]
    }


def _self(href: str) -> dict[str, str]:
    return {"rel": "self", "href": href}


def _compute(service: Service, root: str) -> dict[str, Document]:
    low, high = service.versions

    def version(base: str) -> dict[str, Any]:
        return {
            "id": "v2.1",
            "status": "CURRENT",
            "version": str(high),
            "min_version": str(low),
            "updated": UPDATED,
            "links": [_self(f"{base}{root}/v2.1/")],
        }

    def one(base: str) -> tuple[int, dict[str, Any]]:
        about = version(base)
        about["links"].append({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"})
        about["media-types"] = [{"base": "application/json", "type": _MEDIA.format("compute") + ";version=2.1"}]
        return 200, {"version": about}

    return {root: lambda base: (200, {"versions": [version(base)]}), f"{root}/v2.1": one}


def _identity(_service: Service, root: str) -> dict[str, Document]:
    def version(base: str) -> dict[str, Any]:
        return {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [_self(f"{base}{root}/v3/")],
            "media-types": [{"base": "application/json", "type": _MEDIA.format("identity-v3")}],
        }

    return {
        root: lambda base: (300, {"versions": {"values": [version(base)]}}),
        f"{root}/v3": lambda base: (200, {"version": version(base)}),
    }


def _network(_service: Service, root: str) -> dict[str, Document]:
    def versions(base: str) -> tuple[int, dict[str, Any]]:
        return 200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [_self(f"{base}{root}/v2.0/")]}]}

    def resources(base: str) -> tuple[int, dict[str, Any]]:
        url = f"{base}{root}/v2.0"
        listed = [{"name": n, "collection": f"{n}s", "links": [_self(f"{url}/{n}s")]} for n in _NETWORK_RESOURCES]
        return 200, {"resources": listed}

    return {root: versions, f"{root}/v2.0": resources}


def _image(_service: Service, root: str) -> dict[str, Document]:
    def listed(base: str) -> dict[str, Any]:
        return {
            "versions": [
                {
                    "id": name,
                    "status": "CURRENT" if name == _IMAGE_VERSIONS[0] else "SUPPORTED",
                    "links": [_self(f"{base}{root}/v2/")],
                }
                for name in _IMAGE_VERSIONS
            ]
        }

    return {
        root: lambda base: (300, listed(base)),
        f"{root}/versions": lambda base: (200, listed(base)),
        f"{root}/v2": lambda base: (300, listed(base)),
    }


def _placement(service: Service, root: str) -> dict[str, Document]:
    low, high = service.versions

    def versions(base: str) -> tuple[int, dict[str, Any]]:
        about = {
            "id": "v1.0",
            "status": "CURRENT",
            "min_version": str(low),
            "max_version": str(high),
            "links": [_self(f"{base}{root}/")],
        }
        return 200, {"versions": [about]}

    return {root: versions}


_MAKERS: dict[str, Callable[[Service, str], dict[str, Document]]] = {
    "compute": _compute,
    "identity": _identity,
    "network": _network,
    "image": _image,
    "placement": _placement,
}
