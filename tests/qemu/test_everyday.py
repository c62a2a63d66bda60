"""Everyday life of a real guest through the API: an image of it, a second server from that, shelved, rescued, rebuilt.

What the guest wrote and fsynced tells which disk is which: records go with an image, and are gone after a rebuild.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Image

from .crash_cloud import HOSTS, SERVERS, CrashCloud, until
from .crash_judgement import Records

WRITTEN = 30
"""A record that the guest has written before anything is done to it."""


class Life:
    """One server of a cloud, and what is asked of it."""

    def __init__(self, cloud: CrashCloud, base: Path, server_id: str) -> None:
        self.cloud = cloud
        self.base = base
        self.id = server_id

    def act(self, body: Mapping[str, object], *statuses: int) -> Any:
        answer = self.cloud.admin.act(self.id, body)
        assert answer.status in (statuses or (202,)), answer
        return answer.json

    def becomes(self, status: str) -> None:
        def reached() -> bool:
            server = self.cloud.show(self.id)
            assert server["status"] != "ERROR", server.get("fault")
            return server["status"] == status and server["OS-EXT-STS:task_state"] is None

        until(f"{self.id} is {status}", 120.0, reached)

    def record(self) -> tuple[int, str]:
        """What its disk has, where it is now, at the place of the record that its first guest has written."""
        return Records(self.cloud, self.base, self.cloud.host(self.id), self.id).at_place_of(WRITTEN)


def test_a_day_of_a_real_guest(facts: QemuFacts, image: Image, tmp_path: Path) -> None:
    cloud = CrashCloud(tmp_path)
    try:
        cloud.start()
        life = Life(cloud, tmp_path, cloud.create(1)[0])
        until("much is written", 120.0, lambda: f"seq {WRITTEN}" in cloud.console(life.id), pause=0.25)
        written = (WRITTEN, life.id)

        image_id = life.act({"createImage": {"name": "of it"}})["image_id"]
        life.becomes("ACTIVE")
        found = cloud.admin.get(f"/image/v2/images/{image_id}")
        assert (found["status"], found["disk_format"], found["virtual_size"]) == ("active", "qcow2", 1 << 30)
        flavor = cloud.flavor("m1.nano")
        wanted = {"name": "second", "imageRef": image_id, "flavorRef": flavor, "networks": "none"}
        second = Life(cloud, tmp_path, cloud.admin.must("POST", SERVERS, {"server": wanted})["server"]["id"])
        second.becomes("ACTIVE")
        assert second.record() == written, "it was made from the first one's disk"
        cloud.delete(second.id)

        life.act({"os-stop": None})
        life.becomes("SHUTOFF")
        life.act({"shelve": None})
        life.becomes("SHELVED_OFFLOADED")
        assert not any(cloud.folder(host, life.id).exists() for host in HOSTS), "nothing of it is left on any host"
        life.act({"unshelve": None})
        life.becomes("ACTIVE")
        life.act({"os-stop": None})
        life.becomes("SHUTOFF")
        assert life.record()[1] == life.id, "its disk came back"

        life.act({"rescue": {"rescue_image_ref": image_id}}, 200)
        life.becomes("RESCUE")
        life.act({"unrescue": None})
        life.becomes("ACTIVE")

        base_image = cloud.admin.get("/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        life.act({"os-stop": None})
        life.becomes("SHUTOFF")
        life.act({"rebuild": {"imageRef": base_image}})
        life.becomes("SHUTOFF")
        assert life.record() == (0, ""), "its disk is a new one"
        life.act({"os-start": None})
        life.becomes("ACTIVE")
        cloud.stop()
    finally:
        cloud.destroy()
