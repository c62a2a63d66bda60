"""The version documents at /identity and /identity/v3, which clients read before anything else."""

from __future__ import annotations

from typing import Any

from cumulet.identity.api import IDENTITY, IDENTITY_VERSIONS
from cumulet.web.operation import Call, Reply


def _version(base_url: str) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{base_url}{IDENTITY.prefix}/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


@IDENTITY_VERSIONS.operation("GET", "", public=True, success=300)
def list_versions(call: Call[None, None]) -> Reply:
    """List the versions of the Identity API."""
    headers = {"Location": f"{call.base_url}{IDENTITY.prefix}/", "Vary": "X-Auth-Token"}
    return Reply(body={"versions": {"values": [_version(call.base_url)]}}, headers=headers)


@IDENTITY.operation("GET", "", public=True)
def show_version(call: Call[None, None]) -> Reply:
    """Show the version of the Identity API that is offered here."""
    return Reply(body={"version": _version(call.base_url)}, headers={"Vary": "X-Auth-Token"})
