"""Real guests under what `deploy/cumulet.service` takes from its service: a mask, capabilities, new privileges."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cumulet.cli.client import Persona
from cumulet.cli.entry import entry_of, logged_in
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.host.driver import Image
from tests.cli.test_service import options

PATIENCE_SECONDS = 60.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the unit runs the cloud as root")


def as_the_unit_says(command: list[str]) -> list[str]:
    """`command` with the unit's mask and no more than its capabilities."""
    set_to = dict(options())
    kept = " ".join(value for name, value in options() if name == "CapabilityBoundingSet").lower().split()
    bounded = ",".join(["-all", *(f"+{name.removeprefix('cap_')}" for name in kept)])
    assert set_to["NoNewPrivileges"] == "yes"
    limited = ["setpriv", "--no-new-privs", "--bounding-set", bounded, "--inh-caps", "-all", "--"]
    return [*limited, "sh", "-c", f'umask {set_to["UMask"]} && exec "$@"', "sh", *command]


def wait(what: str, done: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def moved(person: Persona, server: str) -> bool:
    [last, *_] = person.get(f"/compute/v2.1/os-migrations?instance_uuid={server}")["migrations"]
    assert last["status"] not in ("error", "failed", "cancelled"), last
    return bool(last["status"] == "completed")


@needs_root
def test_a_server_boots_confined_and_moves(facts: QemuFacts, image: Image) -> None:
    with tempfile.TemporaryDirectory(prefix="cumulet-unit-") as folder:
        state, log = Path(folder) / "state", Path(folder) / "log"
        command = [sys.executable, "-m", "cumulet", "up", "--state", str(state), "--listen", "127.0.0.1:0"]
        with open(log, "w") as err:
            cloud = subprocess.Popen(
                as_the_unit_says([*command, "--driver", "qemu"]), stdout=subprocess.PIPE, stderr=err, text=True
            )
        try:
            assert cloud.stdout is not None
            assert cloud.stdout.readline().startswith("ready "), log.read_text()
            with logged_in(entry_of(state / "clouds.yaml", "cumulet")) as admin:
                tiny = admin.get("/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
                flavors = admin.get("/compute/v2.1/flavors")["flavors"]
                nano = next(one["id"] for one in flavors if one["name"] == "m1.nano")
                body = {"name": "one", "imageRef": tiny, "flavorRef": nano, "networks": "none"}
                server = admin.must("POST", "/compute/v2.1/servers", {"server": body})["server"]["id"]

                def status() -> str:
                    found = admin.get(f"/compute/v2.1/servers/{server}")["server"]
                    assert found["status"] != "ERROR", found["fault"]
                    return str(found["status"])

                wait("boot", lambda: status() == "ACTIVE")
                [note] = (state / "hosts").glob(f"*/qemu/guests/{server}/process.json")
                pid = note.read_text().partition('"pid": ')[2].partition(",")[0]
                assert "vm" in os.listdir(f"/proc/{pid}/root"), "a root folder of its own"
                assert not os.path.exists(f"/proc/{pid}/root/home")
                move = {"os-migrateLive": {"block_migration": "auto", "host": None}}
                admin.must("POST", f"/compute/v2.1/servers/{server}/action", move)
                wait("move", lambda: moved(admin, server))
                wait("settled", lambda: status() == "ACTIVE")
            cloud.terminate()
            assert cloud.wait(PATIENCE_SECONDS) == 0, log.read_text()
            assert " without a bound " not in log.read_text()
        finally:
            cloud.terminate()  # Where the story has failed, it ends its guests and agents now.
            with contextlib.suppress(subprocess.TimeoutExpired):
                cloud.wait(PATIENCE_SECONDS)
            cloud.kill()
            cloud.wait()
            cloud.stdout.close()  # type: ignore[union-attr]


@needs_root
def test_guests_get_a_root_folder_of_their_own_whatever_the_mask_is() -> None:
    sandbox = Sandbox("test")
    before = os.umask(0o077)
    try:
        asyncio.run(sandbox.probe())
    finally:
        os.umask(before)
    assert sandbox.own_root
