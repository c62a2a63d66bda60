"""Hosts that die, with real guests: what was theirs starts elsewhere, never before it cannot run where it was."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from cumulet.agent import watchdog
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Image

from .crash_cloud import BOOT_SECONDS, HOSTS, CrashCloud, kill, until
from .crash_judgement import Records, judge_alive, settle
from .serial_watch import SerialWatch

SILENT_SECONDS = 2.0
LEASE_SECONDS = 8.0
FENCED = ("fence_silent_hosts=true", "lease_seconds=3", f"host_lease_seconds={LEASE_SECONDS}")
WRITTEN = 30
"""A record that a guest has written before its host dies, and that one which has just begun anew has not."""


@contextlib.contextmanager
def running(base: Path, *settings: str) -> Iterator[tuple[CrashCloud, str, str]]:
    """A cloud, a server in it, and the server's host."""
    cloud = CrashCloud(
        base,
        "--leave-guests",
        *(word for setting in (f"host_silent_seconds={SILENT_SECONDS}", *settings) for word in ("--set", setting)),
    )
    try:
        cloud.start()
        server_id = cloud.create(1)[0]
        until("much is written", 120.0, lambda: f"seq {WRITTEN}" in cloud.console(server_id), pause=0.25)
        yield cloud, server_id, cloud.host(server_id)
        cloud.stop()
    finally:
        cloud.destroy()


def other(host: str) -> str:
    return next(one for one in HOSTS if one != host)


def judge_evacuated(cloud: CrashCloud, scratch: Path, server_id: str, destination: str) -> None:
    """It has begun anew with the image's disk where it is now; what it had written before is where it was."""
    until("it is elsewhere", 60.0, lambda: cloud.host(server_id) == destination)
    until("it runs there", 60.0, lambda: cloud.show(server_id)["status"] == "ACTIVE")
    assert set(cloud.guests(server_id)) == {destination}
    assert Records(cloud, scratch, other(destination), server_id).at_place_of(WRITTEN) == (WRITTEN, server_id)
    assert Records(cloud, scratch, destination, server_id).at_place_of(WRITTEN) == (0, "")


def test_a_server_of_a_dead_host_starts_elsewhere_from_its_image_once_it_was_fenced(
    facts: QemuFacts, image: Image, tmp_path: Path
) -> None:
    with running(tmp_path) as (cloud, server_id, source):
        destination = other(source)
        with cloud.dead(source, [server_id]):
            until("the host is down", 60.0, lambda: cloud.service(source)["state"] == "down")
            refused = cloud.evacuate(server_id)
            assert (refused.status, "say so with force-down" in refused.message) == (400, True)
            assert cloud.host(server_id) == source
            cloud.force_down(source, down=True)
            assert cloud.evacuate(server_id).status == 200
            judge_evacuated(cloud, tmp_path, server_id, destination)
            until("it boots", BOOT_SECONDS, lambda: "tick 1 " in cloud.console(server_id), pause=0.25)
        cloud.force_down(source, down=False)
        settle(cloud, server_id)
        assert not cloud.folder(source, server_id).exists(), "what was left there is removed"
        judge_alive(cloud, server_id)


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        kill(process, signal.SIGCONT)


def test_the_watchdog_ends_the_guests_of_a_silent_host_before_they_may_start_elsewhere(
    facts: QemuFacts, image: Image, tmp_path: Path
) -> None:
    with running(tmp_path, *FENCED) as (cloud, server_id, source):
        destination = other(source)
        with SerialWatch(server_id, {host: cloud.folder(host, server_id) for host in HOSTS}) as watch:
            until("the guest is heard", 30.0, watch.newest_written)
            before = cloud.guests(server_id)
            begun = time.monotonic()
            with cloud.without_agent(source):
                refused = cloud.evacuate(server_id)
                assert (refused.status, "still in use" in refused.message) == (400, True)
                assert cloud.guests(server_id) == before, "it runs as long as the lease does"
                until("the host is down", 60.0, lambda: cloud.service(source)["state"] == "down")
                assert cloud.guests(server_id) == {}, "its watchdog was faster, with nobody's help"
                assert time.monotonic() - begun >= LEASE_SECONDS
                assert cloud.evacuate(server_id).status == 200
                judge_evacuated(cloud, tmp_path, server_id, destination)
                process = cloud.guests(server_id)[destination]
                until("it boots", BOOT_SECONDS, lambda: watch.heard_from(process))
            settle(cloud, server_id)
        assert watch.double() == []
        assert not cloud.folder(source, server_id).exists(), "what was left there is removed"
        judge_alive(cloud, server_id)


def runs_again(cloud: CrashCloud, server_id: str) -> bool:
    """Its user starts it; until the new agent has a lease, that is refused by the host."""
    server = cloud.show(server_id)
    if server["status"] == "SHUTOFF" and server["OS-EXT-STS:task_state"] is None:
        assert cloud.admin.act(server_id, {"os-start": None}).status == 202
    return bool(server["status"] == "ACTIVE")


def test_an_agent_that_hangs_is_ended_with_its_guests_and_replaced(
    facts: QemuFacts, image: Image, tmp_path: Path
) -> None:
    with running(tmp_path, *FENCED) as (cloud, server_id, source):
        with SerialWatch(server_id, {host: cloud.folder(host, server_id) for host in HOSTS}) as watch:
            hung = cloud.agent(source)
            begun = time.monotonic()
            with stopped(hung):
                until("its watchdog has ended the guest", 60.0, lambda: cloud.guests(server_id) == {})
                assert time.monotonic() - begun >= LEASE_SECONDS / 2, "it ran as long as the lease did"
                until("the record says so", 60.0, lambda: cloud.show(server_id)["status"] == "SHUTOFF")
                assert cloud.host(server_id) == source
                assert cloud.agent(source) != hung
            until("it runs again", 60.0, lambda: runs_again(cloud, server_id), pause=1.0)
            settle(cloud, server_id)
        assert watch.double() == []
        judge_alive(cloud, server_id)


def watched(cloud: CrashCloud, host: str) -> bool:
    return watchdog.is_watched(cloud.state / "hosts" / host)


def test_watchdogs_that_come_later_and_go_again_end_no_guest(facts: QemuFacts, image: Image, tmp_path: Path) -> None:
    """Whether hosts have them is a setting, and guests go on through the starts that change it."""
    with running(tmp_path) as (cloud, server_id, source):
        before = cloud.guests(server_id)
        assert not watched(cloud, source)
        cloud.terminate()
        unfenced = cloud.options
        # Longer than any of these starts takes: a host that nobody hears for so long ends its guests rightly.
        cloud.options = (*unfenced, "--set", "fence_silent_hosts=true", "--set", "host_lease_seconds=90")
        cloud.start()
        until("the host has a lease", 30.0, lambda: cloud.lease_held(source))
        assert watched(cloud, source)
        assert cloud.guests(server_id) == before
        assert cloud.show(server_id)["status"] == "ACTIVE"
        cloud.terminate()
        cloud.options = unfenced
        cloud.start()
        until("its watchdog has gone", 30.0, lambda: not watched(cloud, source))
        assert not cloud.lease_held(source)
        # The lease goes after the watchdog, which would end the guests if there were none.
        lease = watchdog.lease_file(cloud.state / "hosts" / source)
        until("nothing is left that could run out", 30.0, lambda: not lease.exists())
        assert cloud.guests(server_id) == before
        judge_alive(cloud, server_id)
