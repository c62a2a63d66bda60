"""An image of a server has the properties of the image that the server was made from, but for those of one only."""

from __future__ import annotations

import pytest

from cumulet.compute.image_promises import MIN_DISK, MIN_RAM, inherited, stored
from cumulet.compute.store import get_server, update_server
from cumulet.image.attributes import MOST_PROPERTIES, PROPERTY_BYTES
from cumulet.testing import Client, JsonObject, TestCloud

from .test_compute_servers import create
from .test_create_image import made
from .test_image_promises import image

OWN = {"distro_vendor": "acme", "build_id": "42", "trait:CUSTOM_FAST": "forbidden", "os_foo": "x", "hw_foo": "y"}
ONLY_ITS = {
    "img_signature_key_type": "x",
    "cinder_encryption_key_deletion_policy": "x",
    "cache_in_nova": "x",
    "bittorrent": "x",
}


def of_one_made_from(member: Client, **properties: object) -> JsonObject:
    """The server."""
    return create(member, imageRef=image(member, **properties))


def test_a_snapshot_has_what_the_image_of_its_server_had(member: Client) -> None:
    server = of_one_made_from(member, **OWN, **ONLY_ITS, os_distro="debian", mappings="x", image_type="mine")
    found = made(member, server["id"])
    assert {name: found.get(name) for name in OWN} == OWN
    assert (found["os_distro"], found["image_type"]) == ("debian", "snapshot")
    assert not {*ONLY_ITS, "mappings"} & set(found)
    again = made(member, create(member, imageRef=found["id"])["id"])
    assert {name: again.get(name) for name in OWN} == OWN, "of a server of a snapshot"


def test_a_shelved_image_has_them(member: Client) -> None:
    server = of_one_made_from(member, **OWN)["id"]
    assert member.action(server, {"shelve": None}).status == 202
    member.wait_for_status(server, "SHELVED_OFFLOADED")
    images = member.request("GET", "/image/v2/images")["images"]
    (found,) = [one for one in images if one.get("instance_uuid") == server]
    assert {name: found.get(name) for name in OWN} == OWN


def test_a_rebuilt_server_has_those_of_its_new_image(member: Client) -> None:
    server = of_one_made_from(member, **OWN)["id"]
    other = image(member, build_id="43", min_ram=32)
    assert member.action(server, {"rebuild": {"imageRef": other}}).status == 202
    member.wait_for_status(server, "ACTIVE")
    found = made(member, server)
    assert (found["build_id"], found["min_ram"], "distro_vendor" in found) == ("43", 32, False)


def test_a_server_shows_those_that_upstream_knows(member: Client) -> None:
    shown = {"os_distro": "debian", "architecture": "x86_64", "vmware_ostype": "x"}
    server = of_one_made_from(member, **OWN, **shown)
    assert member.server(server["id"], version="2.98")["image"]["properties"] == shown


def test_the_least_memory_is_remembered(member: Client) -> None:
    base = image(member, min_ram=48)
    server = create(member, imageRef=base)["id"]
    assert member.request("DELETE", f"/image/v2/images/{base}").status == 204
    assert made(member, server)["min_ram"] == 48


@pytest.mark.parametrize(("deleted", "least"), [(False, 48), (True, 0)])
def test_an_older_server_asks_its_image(cloud: TestCloud, member: Client, deleted: bool, least: int) -> None:
    base = image(member, min_ram=48)
    server = create(member, imageRef=base)["id"]
    older = cloud.embedded.db.read(lambda tx: get_server(tx, server))
    kept = {name: value for name, value in older.system_metadata.items() if name not in (MIN_RAM, MIN_DISK)}
    now = cloud.embedded.clock.now_us()
    cloud.embedded.db.write(lambda tx: update_server(tx, get_server(tx, server), now_us=now, system_metadata=kept))
    if deleted:
        assert member.request("DELETE", f"/image/v2/images/{base}").status == 204
    assert made(member, server)["min_ram"] == least


def test_an_image_with_all_the_properties_that_it_may_have_can_be_made_anew(member: Client) -> None:
    many = {f"a{n:03}": "x" for n in range(MOST_PROPERTIES - 1)}
    found = made(member, of_one_made_from(member, **many, os_distro="debian")["id"])
    assert found["os_distro"] == "debian"
    assert 0 < len(set(many) & set(found)) < len(many)


def test_what_is_inherited_fits_beside_the_rest() -> None:
    long = stored({f"a{n}": "é" * 300 for n in range(100)})
    assert {len(value) for value in long.values()} == {255}
    own = {"mine": "x" * (PROPERTY_BYTES - 1_100)}
    assert inherited(long, own) == {"a0": long["a0"], "a1": long["a1"]}
    assert inherited({"mine": "other", "os_glance_x": "1"}, own) == {}
    assert inherited(long, {f"b{n}": "" for n in range(MOST_PROPERTIES + 1)}) == {}
