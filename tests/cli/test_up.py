"""`cumulet up`: serves, says so, writes credentials, holds its folder, stops cleanly, and finds its state again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import msgspec
import pytest
import yaml

from cumulet import rootless
from cumulet.cli import driver_choice
from cumulet.cli.client import Persona, credentials_of, https, log_in
from cumulet.cli.driver_choice import choose
from cumulet.cli.namespaces import in_namespaces, why_no_image
from cumulet.cli.program import run
from cumulet.image import tiny
from cumulet.settings import Settings

from .conftest import Up, cumulet, up

StartUp = Callable[..., AbstractContextManager[Up]]


def logged_in(cloud: Up, entry: str = "cumulet") -> Persona:
    credentials, authority = credentials_of(cloud.clouds_file, entry)
    return log_in(https(cloud.url, authority), entry, credentials)


def entries(cloud: Up) -> Any:
    return yaml.safe_load(cloud.clouds_file.read_text())["clouds"]


def test_it_says_that_it_is_ready_and_serves_every_service(running: Up) -> None:
    admin = logged_in(running)
    assert running.ready_line == f"ready {running.url}"
    assert running.url.startswith("https://127.0.0.1:")
    hosts = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
    assert sorted((one["host"], one["state"]) for one in hosts) == [("host1", "up"), ("host2", "up")]
    for path in (
        "/identity/v3/projects",
        "/network/v2.0/networks",
        "/image/v2/images",
        "/placement/resource_providers",
    ):
        assert admin.ask("GET", path).status == 200, path


def test_what_was_seeded_is_there(running: Up) -> None:
    member = logged_in(running, "demo")
    flavors = {one["name"] for one in member.get("/compute/v2.1/flavors")["flavors"]}
    assert flavors >= {"m1.nano", "m1.micro", "m1.tiny", "m1.small", "m1.medium", "m1.large"}
    assert [one["name"] for one in member.get("/image/v2/images")["images"]] == ["cumulet-tiny"]
    assert {one["name"] for one in member.get("/network/v2.0/networks")["networks"]} >= {"public", "private"}


def test_clouds_yaml_is_private_and_names_the_cloud_s_own_authority(running: Up) -> None:
    assert stat.S_IMODE(running.clouds_file.stat().st_mode) == 0o600
    for name in ("cumulet", "demo"):
        entry = entries(running)[name]
        assert entry["auth"]["auth_url"].startswith(running.url)
        assert entry["region_name"] == "RegionOne"
        assert Path(entry["cacert"]).exists()
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(running.url, trust_env=False)


def test_the_two_entries_are_an_administrator_and_a_plain_member(running: Up) -> None:
    assert logged_in(running).ask("GET", "/compute/v2.1/os-services").status == 200
    assert logged_in(running, "demo").ask("GET", "/compute/v2.1/os-services").status == 403


def test_nothing_secret_is_printed_or_logged(running: Up) -> None:
    admin = logged_in(running)
    admin.get("/compute/v2.1/servers")
    log = running.log.read_text()
    secrets = [entry["auth"]["password"] for entry in entries(running).values()]
    secrets.append(admin.token or "")
    assert all(len(secret) >= 16 for secret in secrets)
    assert not [secret for secret in secrets if secret in log or secret in running.ready_line]


def test_it_listens_on_loopback_only(running: Up) -> None:
    table = Path(f"/proc/{running.process.pid}/net/tcp").read_text().splitlines()[1:]
    sockets = {os.readlink(path) for path in Path(f"/proc/{running.process.pid}/fd").iterdir() if path.is_symlink()}
    listening = [
        fields[1] for fields in map(str.split, table) if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets
    ]
    port = int(running.url.rstrip("/").rpartition(":")[2])
    assert listening == [f"0100007F:{port:04X}"]


def test_a_second_one_on_the_same_folder_is_refused(running: Up) -> None:
    second = cumulet("up", "--state", str(running.state), "--listen", "127.0.0.1:0", "--driver", "simulated")
    assert second.status == 1
    assert second.out == ""
    assert f"in use by another cumulet (process {running.process.pid})" in second.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m,mode=0700", "none", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here: this needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, name: str) -> None:
    with open(disk / name, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_on_a_full_disk_it_starts_and_deletes_or_says_which_folder_needs_room(small_disk: Path) -> None:
    state = small_disk / "state"
    with up(state, "--bare") as cloud:
        group = {"security_group": {"name": "one"}}
        made = logged_in(cloud).ask("POST", "/network/v2.0/security-groups", group)
        assert made.status == 201, made.text
        place = f"/network/v2.0/security-groups/{made.json['security_group']['id']}"
        cloud.stop()
    fill(small_disk, "others")
    with up(state, "--bare") as cloud:
        assert "the start takes the room kept for deleting" in cloud.log.read_text()
        assert logged_in(cloud).ask("DELETE", place).status == 204
        cloud.stop()
    assert not (state / "reserve").exists()
    fill(small_disk, "more")
    refused = cumulet("up", "--state", str(state), "--listen", "127.0.0.1:0", "--driver", "simulated")
    assert f"cannot use the state folder {state}: its disk is full" in refused.err
    assert (refused.status, "Traceback" in refused.err) == (1, False)
    assert (state / "driver").read_text() == "simulated\n"
    (small_disk / "others").unlink()
    with up(state, "--bare") as cloud:
        assert (state / "reserve").exists()


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        place = f"127.0.0.1:{holder.getsockname()[1]}"
        refused = cumulet("up", "--state", str(tmp_path / "state"), "--listen", place, "--driver", "simulated")
    assert refused.status == 1
    assert place in refused.err
    assert "Traceback" not in refused.err


def test_a_database_that_does_not_answer_is_a_clear_error_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("CUMULET_DATABASE", f"postgresql://cumulet:kept-secret@127.0.0.1:{port}/cumulet")
    refused = cumulet("up", "--state", str(tmp_path / "s"), "--listen", "127.0.0.1:0", "--driver", "simulated")
    assert refused.status == 1
    assert "database" in refused.err
    assert "Traceback" not in refused.err
    assert "kept-secret" not in refused.err


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://cumulet:kept-secret@db/cumulet",
        "postgresql://cumulet@db/cumulet?password=kept-secret",
        "postgresql+psycopg://:kept-secret@db/cumulet",
    ],
)
def test_a_password_on_the_command_line_is_refused(tmp_path: Path, url: str) -> None:
    refused = cumulet("up", "--state", str(tmp_path / "s"), "--database", url)
    assert refused.status == 2
    assert "CUMULET_DATABASE" in refused.err
    assert "kept-secret" not in refused.err
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_state_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs" / "state").mkdir(parents=True)
    os.chown(tmp_path / "theirs", 12345, 12345)
    refused = cumulet("up", "--state", str(tmp_path / "theirs" / "state"), "--driver", "simulated")
    assert refused.status == 1
    assert "theirs belongs to user 12345" in refused.err
    assert "Traceback" not in refused.err
    assert list((tmp_path / "theirs" / "state").iterdir()) == []


@pytest.mark.parametrize("url", ["http://cloud.example", "https://", "https://a b", "https://x/path", "cloud.example"])
def test_a_public_url_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    refused = cumulet("up", "--state", str(tmp_path / "s"), "--set", f"public_url={url}")
    assert refused.status == 2
    assert "public_url" in refused.err


def test_scrapers_have_a_credential_of_their_own_and_the_audit_trail_can_be_checked(start_up: StartUp) -> None:
    with start_up("--bare", "--set", "public_url=https://cloud.example:8443") as cloud:
        admin = logged_in(cloud)
        admin.must("POST", "/identity/v3/projects", {"project": {"name": "one-more"}})
        shown = (cloud.state / "metrics-token").read_text()
        assert stat.S_IMODE((cloud.state / "metrics-token").stat().st_mode) == 0o600
        answer = admin.http.get("/metrics", headers={"Authorization": f"Bearer {shown}"})
        assert answer.status_code == 200
        assert admin.http.get("/metrics").status_code == 401
        assert "https://cloud.example:8443/" in admin.http.get("/compute").text
        assert cloud.stop() == 0
        checked = cumulet("audit", "verify", "--state", str(cloud.state))
        assert checked.status == 0, checked.err
        assert checked.out.startswith("whole: ")
        head = checked.out.split()[-1]
        assert cumulet("audit", "verify", "--state", str(cloud.state), "--head", head).status == 0
        log = cloud.state / "audit.jsonl"
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
        checked = cumulet("audit", "verify", "--state", str(cloud.state))
        assert checked.status == 1
        assert "it ends with line" in checked.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(start_up: StartUp, number: signal.Signals) -> None:
    with start_up("--bare") as cloud:
        assert cloud.stop(number) == 0


def test_a_start_that_finds_no_clouds_yaml_says_why_that_may_be(start_up: StartUp) -> None:
    words = "had no clouds.yaml (it was lost, or the first start ended before it was written)"
    with start_up() as cloud:
        assert words not in cloud.log.read_text()
        assert cloud.stop() == 0
        cloud.clouds_file.unlink()
    with start_up() as cloud:
        assert words in cloud.log.read_text()
        assert logged_in(cloud).name == "cumulet"


def test_state_is_found_again_at_the_next_start(tmp_path: Path) -> None:
    ready_file, clouds_file = tmp_path / "ready", tmp_path / "elsewhere.yaml"
    state = tmp_path / "state"
    with up(state) as cloud:
        before = entries(cloud)
        project = {"name": "remembered"}
        logged_in(cloud).must("POST", "/identity/v3/projects", {"project": project})
        assert cloud.stop() == 0
    with up(state, "--ready-file", str(ready_file), "--clouds-file", str(clouds_file)) as cloud:
        names = [one["name"] for one in logged_in(cloud).get("/identity/v3/projects")["projects"]]
        assert "remembered" in names
        assert ready_file.read_text().strip() == cloud.url
        assert clouds_file.read_text() == cloud.clouds_file.read_text()
        assert stat.S_IMODE(clouds_file.stat().st_mode) == 0o600
        after = entries(cloud)
    for name in ("cumulet", "demo"):
        assert after[name]["auth"]["password"] == before[name]["auth"]["password"]


def test_an_image_that_cannot_be_built_is_one_line_and_so_is_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver_choice, "qemu_problem", lambda: None)
    monkeypatch.setattr(tiny, "available", lambda: None)
    monkeypatch.setattr(tiny, "build", Mock(side_effect=tiny.CannotBuild("apt-get failed: no route to host")))
    command = ["up", "--state", str(tmp_path / "state"), "--driver", "qemu", "--hosts", "0", "--listen", "127.0.0.1:0"]
    assert run(command) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said == (
        "cumulet: error: the tiny image cannot be built: apt-get failed: no route to host; --bare starts without it"
    )


def test_a_first_start_with_real_guests_says_why_there_is_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "available", lambda: "missing tools: syslinux")
    given = Settings(state_dir=tmp_path, database_url="sqlite://", driver="qemu")
    assert why_no_image(given) == "missing tools: syslinux"
    assert why_no_image(msgspec.structs.replace(given, driver="simulated")) is None
    assert why_no_image(msgspec.structs.replace(given, bare=True)) is None
    (tmp_path / "seeded").touch()
    assert why_no_image(given) is None


def test_a_cloud_whose_hosts_are_all_elsewhere_needs_no_qemu_and_stays_where_others_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_choice, "qemu_problem", lambda: "there is no qemu-system-x86_64 here")
    monkeypatch.setattr(rootless, "problem", lambda: "this user may not open /dev/net/tun")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert choose("auto").driver == "simulated"
    assert choose("auto", hosts_here=False).driver == choose("qemu", hosts_here=False).driver == "qemu"
    with_hosts = Settings(state_dir=tmp_path, database_url="sqlite://", driver="qemu", host_names=("host1",))
    _, told = in_namespaces(with_hosts)
    assert told == "servers have no networks here (`networks: none`): this user may not open /dev/net/tun"
    without = msgspec.structs.replace(with_hosts, host_names=())
    assert in_namespaces(without) == (without, None)


def test_a_setting_is_changed_by_its_name(start_up: StartUp) -> None:
    with start_up("--bare", "--set", "token_life_seconds=120") as cloud:
        admin = logged_in(cloud)
        answer = admin.http.get(
            "/identity/v3/auth/tokens",
            headers={"X-Auth-Token": admin.token or "", "X-Subject-Token": admin.token or ""},
        )
        token = answer.json()["token"]
        issued, expires = (datetime.fromisoformat(token[when]) for when in ("issued_at", "expires_at"))
        assert 119 <= (expires - issued).total_seconds() <= 120, "times are told in whole seconds"
        assert cloud.stop() == 0


def test_bare_seeds_nothing(start_up: StartUp) -> None:
    with start_up("--bare", "--hosts", "3") as cloud:
        admin = logged_in(cloud)
        assert admin.get("/compute/v2.1/flavors")["flavors"] == []
        assert admin.get("/image/v2/images")["images"] == []
        assert admin.get("/network/v2.0/networks")["networks"] == []
        services = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
        assert {one["host"] for one in services} == {"host1", "host2", "host3"}
