"""A deleted image is remembered while a server may be made anew from it: nobody slips another image under its id."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from cumulet.compute.model import BASE_IMAGE, RESCUE_IMAGE, SHELVED_IMAGE
from cumulet.compute.store import servers
from cumulet.db.engine import Tx
from cumulet.testing import Client, TestCloud

from .test_compute_servers import create
from .test_history import forget


def _make(client: Client, **attributes: object) -> int:
    body = {"name": "mine", "disk_format": "raw", "container_format": "bare", **attributes}
    return client.request("POST", "/image/v2/images", body).status


def _deleted(client: Client) -> str:
    image = client.request("POST", "/image/v2/images", {"name": "mine", "disk_format": "raw"})
    assert client.request("DELETE", f"/image/v2/images/{image['id']}").status == 204
    return str(image["id"])


@pytest.mark.parametrize("reference", ["image_id", BASE_IMAGE, RESCUE_IMAGE, SHELVED_IMAGE])
@pytest.mark.parametrize("limit", [{"history_days": -1}, {"history_rows": 1}])
def test_the_image_of_a_server_is_remembered(
    cloud: TestCloud, member: Client, other_member: Client, reference: str, limit: dict[str, int]
) -> None:
    server = create(member)
    wanted, *others = [_deleted(member) for _ in range(3)]

    def refer(tx: Tx) -> None:
        metadata = {**server.get("system_metadata", {}), reference: wanted}
        values = {"image_id": wanted} if reference == "image_id" else {"system_metadata": metadata}
        tx.execute(sa.update(servers).where(servers.c.id == server["id"]).values(values))

    cloud.embedded.db.write(refer)
    forget(cloud, **limit)
    assert _make(other_member, id=wanted) == 409
    assert _make(other_member, id=others[0]) == 201, "no server was made from this one"
    assert member.compute("DELETE", f"/servers/{server['id']}").status == 204
    cloud.idle()
    forget(cloud, history_days=-1)
    assert _make(other_member, id=wanted) == 201
