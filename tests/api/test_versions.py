"""What Compute says of its versions without a microversion being asked for."""

from __future__ import annotations

from cumulet.testing import Client


def test_every_version_that_is_listed_is_described_under_its_own_link(admin: Client) -> None:
    listed = admin.request("GET", "/compute/")["versions"]
    assert [version["id"] for version in listed] == ["v2.0", "v2.1"]
    for version in listed:
        (link,) = version["links"]
        answer = admin.request("GET", "/compute/" + link["href"].partition("/compute/")[2])
        assert answer.status == 200, link
        described = answer["version"]
        assert described["id"] == version["id"]
        assert [one for one in described["links"] if one["rel"] == "self"] == [link]
        assert described["media-types"][0]["type"].endswith({"v2.0": "version=2", "v2.1": "version=2.1"}[version["id"]])
    assert admin.request("GET", "/compute/v2/servers").status == 404
