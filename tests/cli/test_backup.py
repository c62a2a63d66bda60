"""A cloud is saved while it works, and restored elsewhere. `backup` and `restore` refuse what cannot be."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import stat
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from cumulet.cli.client import Credentials, Persona, credentials_of, https, log_in
from cumulet.cli.program import run
from cumulet.cli.state_folder import held
from cumulet.db import schema
from cumulet.db.engine import Database

from .conftest import Up, cumulet, up

PASSWORD = "a-user's-own-password"
IMAGE = os.urandom(3 << 20)


def admin_of(cloud: Up) -> Persona:
    credentials, authority = credentials_of(cloud.clouds_file, "cumulet")
    return log_in(https(cloud.url, authority), "admin", credentials)


def user_of(cloud: Up, name: str) -> Persona:
    _, authority = credentials_of(cloud.clouds_file, "cumulet")
    credentials = Credentials(auth_url=cloud.url, user=name, password=PASSWORD, project="demo")
    return log_in(https(cloud.url, authority), name, credentials)


def make_user(admin: Persona, name: str) -> str:
    user = admin.must("POST", "/identity/v3/users", {"user": {"name": name, "password": PASSWORD}})["user"]["id"]
    [project] = admin.get("/identity/v3/projects?name=demo")["projects"]
    [role] = admin.get("/identity/v3/roles?name=member")["roles"]
    admin.must("PUT", f"/identity/v3/projects/{project['id']}/users/{user}/roles/{role['id']}")
    return str(user)


def make_image(admin: Persona) -> str:
    body = {"name": "kept", "disk_format": "raw", "container_format": "bare", "visibility": "public"}
    image = admin.must("POST", "/image/v2/images", body)["id"]
    headers = {"X-Auth-Token": admin.token or "", "Content-Type": "application/octet-stream"}
    assert admin.http.put(f"/image/v2/images/{image}/file", content=IMAGE, headers=headers).status_code == 204
    return str(image)


def make_server(owner: Persona, name: str) -> str:
    [image] = owner.get("/image/v2/images?name=cumulet-tiny")["images"]
    flavors = {one["name"]: one["id"] for one in owner.get("/compute/v2.1/flavors")["flavors"]}
    server = {"name": name, "imageRef": image["id"], "flavorRef": flavors["m1.nano"], "networks": "none"}
    return str(owner.must("POST", "/compute/v2.1/servers", {"server": server})["server"]["id"])


class Busy:
    """Makes key pairs and images without data, one after the other, on a thread, until told to stop."""

    def __init__(self, admin: Persona) -> None:
        self._admin, self._stop = admin, threading.Event()
        self.acknowledged: list[str] = []
        self.some = threading.Event()
        self.problem: Exception | None = None
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                name = f"project-{len(self.acknowledged)}"
                self._admin.must("POST", "/identity/v3/projects", {"project": {"name": name}})
                self.acknowledged.append(name)
                self.some.set()
        except Exception as problem:
            self.problem = problem
            self.some.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A backup that was made while its cloud worked, and what it must hold."""

    file: Path
    state: Path
    token: str
    image: str
    server: str
    projects: list[str]
    said: str


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("backup")
    file = folder / "cloud.tar"
    with up(folder / "state") as cloud:
        admin = admin_of(cloud)
        make_user(admin, "carol")
        carol = user_of(cloud, "carol")
        image, server = make_image(admin), make_server(carol, "kept")
        with Busy(admin) as busy:
            assert busy.some.wait(60)
            projects = list(busy.acknowledged)
            done = cumulet("backup", str(file), "--state", str(cloud.state))
            after = len(busy.acknowledged)
        assert done.status == 0, done.err
        assert busy.problem is None
        assert after >= len(projects)
        assert cloud.stop() == 0
    assert carol.token
    return Saved(
        file=file,
        state=folder / "state",
        token=carol.token,
        image=image,
        server=server,
        projects=projects,
        said=done.out,
    )


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {one.name: content.read() for one in tar if (content := tar.extractfile(one)) is not None}


def rewritten(saved: Saved, target: Path, **changed: bytes | None) -> Path:
    """The backup with other content under some names; None: without that file."""
    with tarfile.open(target, "w") as tar:
        for name, content in {**members(saved.file), **changed}.items():
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return target


def test_a_backup_is_private_and_says_what_is_not_part_of_it(saved: Saved) -> None:
    assert stat.S_IMODE(saved.file.stat().st_mode) == 0o600
    assert "Guests' disks are not part of it" in saved.said
    assert not [path.name for path in saved.file.parent.iterdir() if path.name.startswith(".")]
    assert not (saved.state / ".backup").exists()
    names = members(saved.file)
    assert {"cumulet.db", "clouds.yaml", "ca/ca-key.pem", "audit.key", f"images/{saved.image}"} <= names.keys()
    assert not [name for name in names if name.startswith("hosts/")]


def test_what_was_acknowledged_before_a_backup_is_there_after_a_restore_elsewhere(saved: Saved, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    done = cumulet("restore", str(saved.file), "--state", str(elsewhere))
    assert done.status == 0, done.err
    assert f"cumulet up --state {elsewhere}" in done.out
    assert cumulet("audit", "verify", "--state", str(elsewhere)).status == 0
    with up(elsewhere) as cloud:
        admin = admin_of(cloud)
        there = {one["name"] for one in admin.get("/identity/v3/projects")["projects"]}
        assert set(saved.projects) <= there
        assert user_of(cloud, "carol").get(f"/compute/v2.1/servers/{saved.server}")["server"]["name"] == "kept"
        earlier = Persona(name="carol", http=admin.http, token=saved.token)
        assert earlier.get(f"/compute/v2.1/servers/{saved.server}")["server"]["name"] == "kept"
        headers = {"X-Auth-Token": admin.token or ""}
        assert admin.http.get(f"/image/v2/images/{saved.image}/file", headers=headers).content == IMAGE
        make_user(admin, "dave")  # and it goes on
        assert cloud.stop() == 0
    # The trail goes on from where the backup had it.
    assert cumulet("audit", "verify", "--state", str(elsewhere)).status == 0


def test_a_stopped_cloud_is_saved_too_and_is_left_as_it_was(saved: Saved, tmp_path: Path) -> None:
    before = sorted(path.name for path in saved.state.iterdir())
    done = cumulet("backup", str(tmp_path / "again.tar"), "--state", str(saved.state))
    assert done.status == 0, done.err
    assert sorted(path.name for path in saved.state.iterdir()) == before


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(list(arguments)) in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_backup_replaces_nothing(saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "precious"
    file.write_text("mine")
    assert "exists" in refused(capsys, "backup", str(file), "--state", str(saved.state))
    assert file.read_text() == "mine"


def test_where_there_is_no_cloud_or_no_database_nothing_is_saved(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none.tar"
    assert "no folder" in refused(capsys, "backup", str(file), "--state", str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "no cloud" in refused(capsys, "backup", str(file), "--state", str(tmp_path / "empty"))
    elsewhere = f"sqlite:///{tmp_path / 'other.db'}"
    words = refused(capsys, "backup", str(file), "--state", str(saved.state), "--database", elsewhere)
    assert f"no database {tmp_path / 'other.db'}" in words
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"not a database at all" * 1000)
    words = refused(capsys, "backup", str(file), "--state", str(saved.state), "--database", f"sqlite:///{damaged}")
    assert "cannot be copied" in words
    assert not (saved.state / ".backup").exists()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tar"] == []


def test_records_that_went_to_another_database_are_not_saved_as_they_were(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy of before would leave out what came since, images among it."""
    moved, file = tmp_path / "moved.db", tmp_path / "old.tar"
    shutil.copy(saved.state / "cumulet.db", moved)
    database = Database(f"sqlite:///{moved}")
    schema.mark_moved(database, "postgresql://cloud:***@db.example.org/cloud")
    database.close()
    arguments = ["--state", str(saved.state), "--database", f"sqlite:///{moved}"]
    words = refused(capsys, "backup", str(file), *arguments)
    assert "were copied to postgresql://cloud:***@db.example.org/cloud" in words
    assert "name that database with --database" in words
    assert "were copied to" in refused(capsys, "database", "upgrade", "--database", f"sqlite:///{moved}")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tar"] == []
    assert not (saved.state / ".backup").exists()


def test_a_database_of_postgresql_is_left_to_pg_dump(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "files.tar"
    arguments = ["backup", str(file), "--state", str(saved.state), "--database", "postgresql://nobody.invalid/cloud"]
    assert run(arguments) == 0
    words = capsys.readouterr().err
    assert "pg_dump" in words
    assert "audit trails" not in words, "nobody knows of any"
    assert "cumulet.db" not in members(file)
    assert f"images/{saved.image}" in members(file)


def test_a_restore_goes_into_an_empty_folder_only(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(saved.state):
        words = refused(capsys, "restore", str(saved.file), "--state", str(saved.state))
        assert f"in use by another cumulet (process {os.getpid()})" in words
    assert "not empty" in refused(capsys, "restore", str(saved.file), "--state", str(saved.state))
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "letter").write_text("mine")
    assert "not empty" in refused(capsys, "restore", str(saved.file), "--state", str(home))
    assert [path.name for path in home.iterdir()] == ["letter"]
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["cumulet.db", "ca/ca-key.pem", "audit.key"])
def test_a_file_that_is_not_what_the_manifest_says_is_found_and_nothing_is_restored(
    name: str, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = members(saved.file)[name]
    for kind, other in (
        ("flipped", content[:-1] + bytes([content[-1] ^ 1])),
        ("shorter", content[:-1]),
        ("gone", None),
    ):
        file, state = tmp_path / f"{kind}.tar", tmp_path / kind
        rewritten(saved, file, **{name: other})
        assert f"{name} is not what its manifest says" in refused(capsys, "restore", str(file), "--state", str(state))
        assert not state.exists()
    state.mkdir(mode=0o700)
    (state / "lock").touch()
    refused(capsys, "restore", str(file), "--state", str(state))
    assert [path.name for path in state.iterdir()] == ["lock"]  # it was there before
    assert run(["restore", str(saved.file), "--state", str(state)]) == 0  # a folder with a lock only is empty


def test_what_is_no_backup_is_refused(saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, whole = tmp_path / "new" / "state", saved.file.read_bytes()
    for number, content in enumerate((b"", b"no tar", whole[: len(whole) // 2], whole[:700])):
        file = tmp_path / f"{number}.tar"
        file.write_bytes(content)
        assert "no backup of Cumulet" in refused(capsys, "restore", str(file), "--state", str(state))
    for name in ("../outside", "/tmp/outside", "hosts/x", "images/../../outside"):
        file = rewritten(saved, tmp_path / "names.tar", **{name: b"x", "manifest.json": None})
        assert "it holds" in refused(capsys, "restore", str(file), "--state", str(state))
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "new").exists()
    state.mkdir(parents=True, mode=0o700)
    assert "it holds" in refused(capsys, "restore", str(file), "--state", str(state))
    assert list(state.iterdir()) == []


def test_a_newer_schema_is_refused_by_name(saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest: dict[str, object] = json.loads(members(saved.file)["manifest.json"])
    for change in ({"schema": "9999"}, {"format": 2}):
        newer = json.dumps({**manifest, **change, "version": "99.1"}).encode()
        file = rewritten(saved, tmp_path / "newer.tar", **{"manifest.json": newer})
        words = refused(capsys, "restore", str(file), "--state", str(tmp_path / "state"))
        assert "was made by Cumulet 99.1" in words


def test_a_cloud_does_not_start_in_a_restore_that_did_not_end(tmp_path: Path) -> None:
    (tmp_path / "state" / ".restoring").mkdir(parents=True, mode=0o700)
    tried = cumulet("up", "--state", str(tmp_path / "state"), "--driver", "simulated", "--listen", "127.0.0.1:0")
    assert tried.status == 1
    assert "did not end" in tried.err


def test_two_backups_at_once_do_not_meet_and_what_a_killed_one_left_is_removed(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    links = saved.state / ".backup"
    links.mkdir(mode=0o700)
    (links / "left").write_text("by a backup that was killed")
    under_way = os.open(links, os.O_RDONLY)
    try:
        fcntl.flock(under_way, fcntl.LOCK_EX)
        words = refused(capsys, "backup", str(tmp_path / "second.tar"), "--state", str(saved.state))
        assert "another backup" in words
        assert (links / "left").exists()
    finally:
        os.close(under_way)
    assert run(["backup", str(tmp_path / "third.tar"), "--state", str(saved.state)]) == 0
    assert not links.exists()
