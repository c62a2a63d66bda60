"""The package people install to test their own tools: what its first page promises."""

from __future__ import annotations

import cumulet.testing
from cumulet.image.files import image_folder, stored
from cumulet.testing import Client, TestCloud


def test_an_sdk_connection_works_as_it_is(cloud: TestCloud) -> None:
    connection = cloud.connection("demo")
    assert "m1.nano" in {flavor.name for flavor in connection.compute.flavors()}
    assert [image.name for image in connection.image.images()] == ["cumulet-tiny"]
    connection.close()


def test_two_clouds_share_nothing() -> None:
    with cumulet.testing.cloud(hosts=1) as one, cumulet.testing.cloud(hosts=3) as other:
        assert one.url != other.url
        assert one.cacert.read_bytes() != other.cacert.read_bytes()
        assert len(other.hosts) == 3
        token = one.persona("admin").token
        assert token is not None
        stranger = Client(other.anonymous().http, token)
        assert stranger.compute("GET", "/servers").status == 401


def test_reset_gives_the_cloud_as_it_was(cloud: TestCloud, admin: Client) -> None:
    image = admin.request("GET", "/image/v2/images")["images"][0]
    admin.request("DELETE", f"/image/v2/images/{image['id']}")
    admin.compute("POST", "/flavors", {"flavor": {"name": "mine", "vcpus": 1, "ram": 64, "disk": 1}})
    cloud.reset()
    assert cloud.persona("admin").request("GET", f"/image/v2/images/{image['id']}/file").status == 200
    names = {flavor["name"] for flavor in cloud.persona("admin").compute("GET", "/flavors")["flavors"]}
    assert "mine" not in names


def test_reset_removes_what_was_uploaded_and_staged(cloud: TestCloud, member: Client) -> None:
    folder = image_folder(cloud.embedded.settings.state_dir)
    before = stored(folder)
    for path in ("file", "stage"):
        image = {"name": path, "disk_format": "raw", "container_format": "bare"}
        image_id = member.request("POST", "/image/v2/images", image)["id"]
        headers = {"Content-Type": "application/octet-stream"}
        sent = member.request("PUT", f"/image/v2/images/{image_id}/{path}", content=b"x" * 512, headers=headers)
        assert sent.status == 204, sent.text
    assert len(stored(folder)) == len(before) + 2
    cloud.reset()
    assert stored(folder) == before


def test_time_can_be_moved_and_tokens_end() -> None:
    with cumulet.testing.cloud(hosts=1) as cloud:
        late = cloud.user("late", project="own", roles=("member",))
        assert late.compute("GET", "/servers").status == 200
        cloud.clock.advance(seconds=cloud.embedded.settings.token_life_seconds + 1)
        assert late.compute("GET", "/servers").status == 401
