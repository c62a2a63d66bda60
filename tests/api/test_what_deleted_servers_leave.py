"""Deleted servers count in no quota, so that little may stay of them, however much their user wrote."""

from __future__ import annotations

import base64

import sqlalchemy as sa

from cumulet.compute.keypairs import LONGEST_PUBLIC_KEY
from cumulet.compute.store import servers
from cumulet.db.engine import Tx, metadata
from cumulet.image.attributes import PROPERTY_BYTES
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import ask_for, create
from tests.api.test_guest_metadata import KEY

MOST_LEFT = 4 << 10
"""Bytes in all tables of the database, for each deleted server."""
WRITTEN = "what a user has written "


def bytes_of_tables(cloud: TestCloud) -> dict[str, int]:
    def measured(tx: Tx) -> dict[str, int]:
        return {
            table.name: sum(len(str(value)) for row in tx.all(sa.select(table)) for value in row if value is not None)
            for table in metadata.sorted_tables
        }

    return cloud.embedded.db.read(measured)


def long(text: str, size: int) -> str:
    return (text * (size // len(text) + 1))[:size]


def largest_image(cloud: TestCloud) -> str:
    """An image with properties as long as they may be, of which servers have a part."""
    admin = cloud.persona("admin")
    (image,) = admin.request("GET", "/image/v2/images")["images"]
    each = PROPERTY_BYTES // 100
    patch = [{"op": "add", "path": f"/hw_x{n}", "value": long(WRITTEN, each)} for n in range(100)]
    media = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    patched = admin.request("PATCH", f"/image/v2/images/{image['id']}", patch, headers=media)
    assert patched.status == 200, patched.text
    return str(image["id"])


def with_longest_key(member: Client) -> str:
    public_key = KEY + long(WRITTEN, LONGEST_PUBLIC_KEY - len(KEY))
    body = {"keypair": {"name": "long", "type": "ssh", "public_key": public_key}}
    assert member.compute("POST", "/os-keypairs", body).status == 201
    body["keypair"] |= {"name": "longer", "public_key": public_key + "x"}
    refused = member.compute("POST", "/os-keypairs", body)
    assert (refused.status, "public_key" in refused.text) == (400, True)
    return "long"


def test_little_stays_of_a_server_that_had_much(cloud: TestCloud, member: Client) -> None:
    image_id = largest_image(cloud)
    key_name = with_longest_key(member)
    before = bytes_of_tables(cloud)
    for _ in range(2):
        server = create(
            member,
            imageRef=image_id,
            key_name=key_name,
            config_drive=True,
            user_data=base64.b64encode(long(WRITTEN, 45_000).encode()).decode(),
            metadata={f"key{n}": long(WRITTEN, 255) for n in range(128)},
        )
        assert member.compute("POST", f"/servers/{server['id']}/action", {"reboot": {"type": "HARD"}}).status == 202
        cloud.idle()
        member.compute("DELETE", f"/servers/{server['id']}")
        cloud.idle()
    after = bytes_of_tables(cloud)
    left = {name: size - before[name] for name, size in after.items() if size > before[name]}
    assert sum(left.values()) <= 2 * MOST_LEFT, left


def test_what_its_user_wrote_goes_with_a_server(cloud: TestCloud, member: Client) -> None:
    server = ask_for(
        member,
        user_data=base64.b64encode(b"SECRET-user-data").decode(),
        metadata={"secret": "SECRET-metadata"},
        key_name=with_longest_key(member),
    )["server"]
    cloud.idle()
    member.compute("DELETE", f"/servers/{server['id']}")
    cloud.idle()
    (row,) = cloud.embedded.db.read(lambda tx: tx.all(sa.select(servers).where(servers.c.id == server["id"])))
    assert "SECRET" not in str(row)
    assert WRITTEN not in str(row)
    shown = cloud.persona("admin").compute("GET", "/servers/detail?deleted=1&all_tenants=1", version="2.96").text
    assert server["id"] in shown
    assert base64.b64encode(b"SECRET-user-data").decode() not in shown
