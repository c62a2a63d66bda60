"""Volumes attached to servers: none can be, as there is no Block Storage yet; attaching answers 501."""

from __future__ import annotations

from cumulet.compute.model import Server
from cumulet.compute.rules import READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.errors import NotFound
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import NonNegativeInteger, Query

LIST = rule("os_compute_api:os-volumes-attachments:index", READER)
SHOW = rule("os_compute_api:os-volumes-attachments:show", READER)
PATH = "/servers/{server_id}/os-volume_attachments"


class AttachmentsQuery(Query, closed_since="2.75"):
    limit: NonNegativeInteger | None = None
    offset: NonNegativeInteger | None = None


@COMPUTE.operation("GET", PATH, rules=(Rule(LIST),), target=server_in_sight, query=AttachmentsQuery)
def list_volume_attachments(call: Call[Server, None]) -> dict[str, object]:
    """List a server's volumes."""
    return {"volumeAttachments": []}


@COMPUTE.operation("GET", PATH + "/{volume_id}", rules=(Rule(SHOW),), target=server_in_sight)
def show_volume_attachment(call: Call[Server, None]) -> dict[str, object]:
    """Show one of a server's volumes."""
    raise NotFound(f"Instance {call.target.id} is not attached to volume {call.path['volume_id']}")
