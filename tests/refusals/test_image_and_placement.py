"""What Image and Placement refuse and no story comes upon."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.db.engine import Tx
from cumulet.image import attributes
from cumulet.image.files import image_folder
from cumulet.image.store import images
from cumulet.placement import allocations
from cumulet.testing import Answer, JsonObject

from .table import Refusal, Scene, table
from .test_compute import server

REFUSALS, refused = table()


def image(scene: Scene, content: bytes | None = b"content", **values: object) -> str:
    body = {"name": "i", "disk_format": "raw", "container_format": "bare", **values}
    answer = scene.admin.request("POST", "/image/v2/images", body)
    assert answer.status == 201, answer.text
    if content is not None:
        assert upload(scene, answer["id"], content).status == 204
    image_id: str = answer["id"]
    return image_id


def upload(scene: Scene, image_id: str, content: bytes, **headers: str) -> Answer:
    headers = {"Content-Type": "application/octet-stream", **headers}
    return scene.admin.request("PUT", f"/image/v2/images/{image_id}/file", headers=headers, content=content)


def changed(scene: Scene, image_id: str, change: Mapping[str, object], dialect: str = "2.1") -> Answer:
    headers = {"Content-Type": f"application/openstack-images-v{dialect}-json-patch"}
    content = json.dumps([change]).encode()
    return scene.admin.request("PATCH", f"/image/v2/images/{image_id}", headers=headers, content=content)


SIGNED = dict.fromkeys(("img_signature", "img_signature_hash_method", "img_signature_key_type"), "x") | {
    "img_signature_certificate_uuid": "00000000-0000-4000-8000-000000000000"
}


@refused(501, "Verifying the signature")
def data_whose_signature_is_to_be_verified(scene: Scene) -> Answer:
    return upload(scene, image(scene, None, **SIGNED), b"content")


@refused(501, "Verifying the signature")
def an_import_whose_signature_is_to_be_verified(scene: Scene) -> Answer:
    made = image(scene, None)
    headers = {"Content-Type": "application/octet-stream"}
    path = f"/image/v2/images/{made}/stage"
    assert scene.admin.request("PUT", path, headers=headers, content=b"content").status == 204
    for name, value in SIGNED.items():
        assert changed(scene, made, {"op": "add", "path": f"/{name}", "value": value}).status == 200
    body = {"method": {"name": "glance-direct"}}
    return scene.admin.request("POST", f"/image/v2/images/{made}/import", body)


@refused(400, "longer than 255")
def a_name_that_is_too_long(scene: Scene) -> Answer:
    return changed(scene, image(scene, None), {"op": "replace", "path": "/name", "value": "i" * 256})


@refused(400, "control characters")
def a_name_of_two_lines(scene: Scene) -> Answer:
    return changed(scene, image(scene, None), {"op": "replace", "path": "/name", "value": "one\ntwo"})


@refused(400, "The pointer contains control characters.")
def a_change_of_an_attribute_that_is_named_with_a_break(scene: Scene) -> Answer:
    return changed(scene, image(scene, None), {"op": "replace", "path": "/name\n", "value": "other"})


@refused(400, "The value of attribute 'owner' contains control characters.")
def an_owner_of_two_lines(scene: Scene) -> Answer:
    return changed(scene, image(scene, None), {"op": "replace", "path": "/owner", "value": "one\ntwo"})


@refused(400, "missing image size")
def data_whose_size_is_no_number(scene: Scene) -> Answer:
    return upload(scene, image(scene, None), b"content", **{"x-openstack-image-size": "many"})


@refused(400, "longer than its sender said: 6 bytes")
def data_that_is_longer_than_it_says(scene: Scene) -> Answer:
    return upload(scene, image(scene, None), b"content", **{"x-openstack-image-size": "6"})


@refused(400, "has 7 bytes; its sender said 8 bytes")
def data_that_is_shorter_than_it_says(scene: Scene) -> Answer:
    return upload(scene, image(scene, None), b"content", **{"x-openstack-image-size": "8"})


@refused(413, "too large")
def data_that_says_it_is_too_large(scene: Scene) -> Answer:
    size = scene.cloud.embedded.settings.image_size_limit_gib * 2**30 + 1
    return upload(scene, image(scene, None), b"content", **{"x-openstack-image-size": str(size)})


@refused(404, "Failed to find image")
def data_that_is_gone_from_the_disk(scene: Scene) -> Answer:
    image_id = image(scene)
    (image_folder(scene.cloud.embedded.settings.state_dir) / image_id).unlink()
    return scene.admin.request("GET", f"/image/v2/images/{image_id}/file")


@refused(413, "members for an image is exceeded")
def a_member_too_many(scene: Scene) -> Answer:
    image_id = image(scene, None, visibility="shared")
    path = f"/image/v2/images/{image_id}/members"
    for number in range(attributes.MOST_MEMBERS):
        assert scene.admin.request("POST", path, {"member": f"p{number}"}).status == 200
    return scene.admin.request("POST", path, {"member": "one more"})


@refused(400, "x-image-meta-store")
def data_for_a_store_that_is_not(scene: Scene) -> Answer:
    return upload(scene, image(scene, None), b"content", **{"X-Image-Meta-Store": "elsewhere"})


def imported(scene: Scene, header: str | None = None, **stores: object) -> Answer:
    image_id = image(scene, None)
    path, sent = f"/image/v2/images/{image_id}", {"Content-Type": "application/octet-stream"}
    assert scene.admin.request("PUT", f"{path}/stage", content=b"x", headers=sent).status == 204
    body = {"method": {"name": "glance-direct"}, **stores}
    headers = {} if header is None else {"X-Image-Meta-Store": header}
    return scene.admin.request("POST", f"{path}/import", body, headers=headers)


@refused(400, "All_stores parameter can't be used with")
def an_import_to_all_stores_and_to_one(scene: Scene) -> Answer:
    return imported(scene, stores=["file"], all_stores=True)


@refused(400, "can't be both specified")
def an_import_to_stores_of_its_body_and_of_a_header(scene: Scene) -> Answer:
    return imported(scene, "file", stores=["file"])


@refused(400, "The pointer contains control characters.")
def a_property_whose_name_has_two_lines(scene: Scene) -> Answer:
    return changed(scene, image(scene, None), {"op": "add", "path": "/a\nb", "value": "x"}, "2.1")


@refused(400, "The name of a property contains control characters.")
def a_property_of_a_new_image_whose_name_has_two_lines(scene: Scene) -> Answer:
    return scene.admin.request("POST", "/image/v2/images", {"name": "i", "a\nb": "x"})


@refused(400, "member")
def a_member_whose_name_has_two_lines(scene: Scene) -> Answer:
    path = f"/image/v2/images/{image(scene, None, visibility='shared')}/members"
    return scene.admin.request("POST", path, {"member": "a\nb"})


@refused(413, "properties for an image is exceeded")
def a_property_too_many(scene: Scene) -> Answer:
    return image_with(scene, {f"p{number}": "x" for number in range(attributes.MOST_PROPERTIES + 1)})


@refused(413, "bytes for the properties of an image is exceeded")
def properties_that_are_too_long_together(scene: Scene) -> Answer:
    half = "x" * (attributes.PROPERTY_BYTES // 2)
    return image_with(scene, {"p": half, "q": half + "x"})


@refused(413, "tags for an image is exceeded")
def an_image_tag_too_many(scene: Scene) -> Answer:
    return image_with(scene, {"tags": [f"t{number}" for number in range(attributes.MOST_TAGS + 1)]})


def image_with(scene: Scene, values: Mapping[str, object]) -> Answer:
    return scene.admin.request("POST", "/image/v2/images", {"name": "i", **values})


@refused(409, "already present")
def a_property_of_its_own_added(scene: Scene) -> Answer:
    return changed(scene, image(scene, None), {"add": "/name", "value": "another"}, "2.0")


# -- Placement


def place(scene: Scene, method: str, path: str, body: object = None, version: str = "1.39") -> Answer:
    headers = {"OpenStack-API-Version": f"placement {version}"}
    return scene.admin.request(method, f"/placement{path}", body, headers=headers)


@refused(400, "given twice")
def one_consumer_in_two_spellings(scene: Scene) -> Answer:
    consumer = scene.cloud.clock.uuid()
    nothing: dict[str, object] = {"allocations": {}, "project_id": "p", "user_id": "u", "consumer_generation": None}
    both = {name: {**nothing, "consumer_type": "INSTANCE"} for name in (consumer, consumer.upper())}
    return place(scene, "POST", "/allocations", both)


@refused(400, "Cannot update standard resource class")
def another_name_for_a_standard_class(scene: Scene) -> Answer:
    return place(scene, "PUT", "/resource_classes/VCPU", {"name": "CUSTOM_CPU"}, "1.2")


@refused(409, "already exists")
def a_class_renamed_to_one_that_is(scene: Scene) -> Answer:
    for name in ("CUSTOM_ONE", "CUSTOM_TWO"):
        assert place(scene, "PUT", f"/resource_classes/{name}").status in (201, 204)
    return place(scene, "PUT", "/resource_classes/CUSTOM_ONE", {"name": "CUSTOM_TWO"}, "1.2")


@refused(400, "need the prefix 'in:'")
def several_aggregates_without_a_word(scene: Scene) -> Answer:
    both = ",".join(scene.cloud.clock.uuid() for _ in range(2))
    return place(scene, "GET", f"/resource_providers?member_of={both}")


@pytest.mark.parametrize(
    ("settings", "size", "words"),
    [
        ({"images_per_project": 1}, 1, "limit of 1 images is reached"),
        ({"image_project_quota_gib": 1}, 2**30, "exceed its storage quota"),
    ],
)
def test_a_project_at_its_limit_makes_no_image_of_a_server(settings: JsonObject, size: int, words: str) -> None:
    with cumulet.testing.cloud(hosts=1, **settings) as cloud:
        member = cloud.persona("member")
        made = server(Scene(cloud), member)
        first = member.action(made, {"createImage": {"name": "first"}})
        assert first.status == 202, first.text
        cloud.idle()
        grown = sa.update(images).where(images.c.id == first["image_id"]).values(size=size)
        cloud.embedded.db.write(lambda tx: tx.execute(grown))
        answer = member.action(made, {"createImage": {"name": "second"}})
        assert (answer.status, words in answer.text) == (403, True), answer.text


def test_who_offers_nothing_is_claimed_nothing_of(scene: Scene) -> None:
    def claim(tx: Tx) -> None:
        with pytest.raises(allocations.InsufficientCapacity, match="nobody offers no resources"):
            allocations.claim(
                tx, consumer="c", provider="nobody", resources={"VCPU": 1}, project_id="p", user_id="u", now_us=1
            )

    scene.cloud.embedded.db.read(claim)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused(scene: Scene, refusal: Refusal) -> None:
    refusal.check(scene)
