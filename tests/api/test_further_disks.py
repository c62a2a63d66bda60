"""Flavors with ephemeral and swap disks: only hosts that make them are chosen, and others say why they are not."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.compute import promises
from cumulet.testing import Client

from .test_live_migration import image_and_flavor


@pytest.mark.parametrize("disk", [{"OS-FLV-EXT-DATA:ephemeral": 1}, {"swap": 64}])
def test_a_host_that_makes_no_further_disks_is_not_chosen(
    admin: Client, member: Client, monkeypatch: pytest.MonkeyPatch, disk: dict[str, Any]
) -> None:
    wanted = {"name": "more", "vcpus": 1, "ram": 128, "disk": 1, **disk}
    flavor = admin.compute("POST", "/flavors", {"flavor": wanted})["flavor"]["id"]

    def created() -> str:
        body = {"name": "s", "networks": "none", **image_and_flavor(member), "flavorRef": flavor}
        server: str = member.compute("POST", "/servers", {"server": body})["server"]["id"]
        return server

    member.wait_for_status(created(), "ACTIVE")
    monkeypatch.setattr(promises, "FURTHER_DISKS", "nobody's")
    server = created()
    member.wait_for_status(server, "ERROR")
    assert "EXTRA_SPEC_NOT_KEPT" in admin.server(server)["fault"]["details"]
