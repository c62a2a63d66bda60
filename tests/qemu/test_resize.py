"""Resize of real guests through the API: what was written moves along, and comes back with a revert."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Image

from .crash_cloud import BOOT_SECONDS, HOSTS, CrashCloud, until
from .crash_judgement import Records, judge_alive, settle

WRITTEN = 30
"""A record that the guest has written before it is resized."""


@contextlib.contextmanager
def resized(base: Path) -> Iterator[tuple[CrashCloud, str, str, str]]:
    """A server that has written and was resized: the cloud, its id, the host it came from, the one it is on."""
    cloud = CrashCloud(base)
    try:
        cloud.start()
        server_id = cloud.create(1)[0]
        source = cloud.host(server_id)
        destination = next(host for host in HOSTS if host != source)
        until("much is written", 120.0, lambda: f"seq {WRITTEN}" in cloud.console(server_id), pause=0.25)
        assert cloud.resize(server_id, "m1.micro").status == 202
        until("it is resized", 120.0, lambda: cloud.show(server_id)["status"] == "VERIFY_RESIZE")
        assert cloud.host(server_id) == destination
        assert cloud.show(server_id)["flavor"]["ram"] == 192
        assert set(cloud.guests(server_id)) == {destination}
        for host in HOSTS:
            assert Records(cloud, base, host, server_id).at_place_of(WRITTEN) == (WRITTEN, server_id)
        yield cloud, server_id, source, destination
        settle(cloud, server_id)
        judge_alive(cloud, server_id, seconds=BOOT_SECONDS)
        cloud.stop()
    finally:
        cloud.destroy()


def test_a_resize_that_is_confirmed_leaves_one_larger_guest_with_its_disk(
    facts: QemuFacts, image: Image, tmp_path: Path
) -> None:
    with resized(tmp_path) as (cloud, server_id, _, destination):
        assert cloud.admin.act(server_id, {"confirmResize": None}).status == 204
        until("it is confirmed", 60.0, lambda: cloud.show(server_id)["status"] == "ACTIVE")
        assert cloud.host(server_id) == destination
        assert memory_mib(cloud, server_id, destination) == 192


def test_a_resize_that_is_reverted_leaves_the_guest_as_it_was(facts: QemuFacts, image: Image, tmp_path: Path) -> None:
    with resized(tmp_path) as (cloud, server_id, source, _):
        assert cloud.admin.act(server_id, {"revertResize": None}).status == 202
        until("it is reverted", 120.0, lambda: cloud.show(server_id)["status"] == "ACTIVE")
        assert cloud.host(server_id) == source
        assert Records(cloud, tmp_path, source, server_id).at_place_of(WRITTEN) == (WRITTEN, server_id)
        assert cloud.show(server_id)["flavor"]["ram"] == 128
        assert memory_mib(cloud, server_id, source) == 128


def memory_mib(cloud: CrashCloud, server_id: str, host: str) -> int:
    """What its process was started with."""
    words = Path("/proc", str(cloud.guests(server_id)[host]), "cmdline").read_bytes().split(b"\0")
    return int(words[words.index(b"-m") + 1].removeprefix(b"size=").removesuffix(b"K")) >> 10
