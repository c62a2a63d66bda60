"""Which servers a caller can see: their project's own, and every one for administrators. The rest does not exist."""

from __future__ import annotations

from cumulet.compute.model import Server
from cumulet.compute.store import get_server
from cumulet.web.operation import Call


def server_in_sight(call: Call[object, object]) -> Server:
    """The server named by the path, or NotFound: the same words for another project's as for one that never was."""
    return get_server(call.tx, call.path["server_id"], project_id=project_in_sight(call))


def project_in_sight(call: Call[object, object]) -> str | None:
    """The one project whose things the caller can see; None: every one's."""
    return None if call.caller.is_admin else call.caller.project_id or ""
