"""A shelved server whose image is gone is not unshelved, and its owner is told why."""

from __future__ import annotations

import pytest

from cumulet.compute import operations
from cumulet.testing import Client, TestCloud

from .servers import and_then_the_image_goes, create_pair
from .test_shelve import images_of, shelve, unshelve


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member, networks="auto")[0]


@pytest.mark.parametrize("how", ["deleted", "deactivated"])
def test_without_its_image_it_is_refused(
    cloud: TestCloud, admin: Client, member: Client, server: str, how: str
) -> None:
    shelve(member, server)
    (image,) = images_of(member, server)
    path = f"/image/v2/images/{image['id']}"
    gone = ("DELETE", path) if how == "deleted" else ("POST", f"{path}/actions/deactivate")
    assert admin.request(*gone).status == 204
    answer = admin.action(server, {"unshelve": None})
    assert (answer.status, answer.headers["x-cumulet-reason"]) == (409, "IMAGE_GONE"), answer.text
    assert "the image that it was shelved to cannot be used" in member.action(server, {"unshelve": None}).text
    assert member.server(server)["OS-EXT-STS:task_state"] is None
    if how == "deactivated":
        assert admin.request("POST", f"{path}/actions/reactivate").status == 204
        unshelve(member, server)


def test_one_whose_image_goes_meanwhile_says_so(
    cloud: TestCloud, member: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve(member, server)
    (image,) = images_of(member, server)
    with monkeypatch.context() as planted:
        planted.setattr(operations, "begin", and_then_the_image_goes(image["id"]))
        assert member.action(server, {"unshelve": None}).status == 202
        cloud.idle()
    shown = member.server(server)
    assert (shown["status"], shown["fault"]["message"]) == (
        "SHELVED_OFFLOADED",
        f"Image {image['id']} could not be found.",
    )
    assert "details" not in shown["fault"], "those are for administrators"
