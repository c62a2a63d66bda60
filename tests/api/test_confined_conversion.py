"""What qemu-img can do while it converts an import: write to one file, as its own user. Nothing else is trusted."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import cumulet.testing
from cumulet.confined import qemu_img, tools, users
from cumulet.image import conversion
from cumulet.image.uploads import Receiver
from cumulet.part import SettingRefused
from cumulet.settings import Settings
from cumulet.space import Space
from cumulet.testing import TestCloud
from tests.api.test_image_conversion import DISK, WHOLE, imported, matches, refused, stored

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


@pytest.fixture
def to_qcow2() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(image_conversion_output_format="qcow2") as made:
        yield made


def test_data_is_converted_whatever_the_mask_is(to_qcow2: TestCloud) -> None:
    before = os.umask(0o077)
    try:
        assert imported(to_qcow2.persona("member"), DISK)["disk_format"] == "qcow2"
        conversion.require(to_qcow2.embedded.settings)
    finally:
        os.umask(before)


class WithoutRoot(conversion._Work):
    def __init__(self, folder: Path, source: Path, uids: range) -> None:
        super().__init__(folder, source, uids)
        self._as_root = False


def test_without_root_qemu_img_works_on_the_files_where_they_are(
    to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_Work", WithoutRoot)
    found = imported(to_qcow2.persona("member"), DISK)
    assert (found["status"], found["disk_format"], found["virtual_size"]) == ("active", "qcow2", len(WHOLE))
    assert matches(found, stored(to_qcow2, found).read_bytes())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/bin/false"], "The data could not be converted to qcow2."),
        (["/bin/true"], "The conversion made no file."),
        (["/bin/cp", "/etc/ld.so.cache", "TARGET"], "The content is not qcow2."),
    ],
)
def test_what_qemu_img_leaves_is_not_trusted(
    to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch, command: list[str], words: str
) -> None:
    assert told_after(to_qcow2, monkeypatch, command) == words


def told_after(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> str:
    """The reason why an import fails where this runs in the place of qemu-img."""

    def convert(_program: str, *, source: str, target: str, **_more: str) -> list[str]:
        return [{"SOURCE": source, "TARGET": target}.get(word, word) for word in command]

    monkeypatch.setattr(qemu_img, "convert", convert)
    return refused(cloud, imported(cloud.persona("member"), DISK))


@pytest.mark.parametrize(
    "command",
    [
        ["/bin/cp", "/etc/ld.so.cache", "/vm/other"],
        ["/bin/cp", "/etc/ld.so.cache", "/other"],
        ["/bin/cp", "/dev/null", "/image"],
        ["/bin/mkdir", "/vm/folder"],
        ["/bin/ln", "-sf", "/etc/passwd", "TARGET"],
        ["/bin/rm", "TARGET"],
        ["/bin/ln", "TARGET", "/vm/other"],
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root confines programs to folders")
def test_qemu_img_can_write_to_its_file_and_to_nothing_else(
    to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    assert told_after(to_qcow2, monkeypatch, command) == "The data could not be converted to qcow2."


@pytest.mark.parametrize(
    "command",
    [["/bin/ln", "-sf", "/etc/passwd", "TARGET"], ["/bin/ln", "-f", "SOURCE", "TARGET"], ["/bin/rm", "TARGET"]],
)
def test_without_root_a_link_is_not_followed(
    to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr(conversion, "_Work", WithoutRoot)
    assert told_after(to_qcow2, monkeypatch, command) == "The conversion made no file."


class Growing:
    """Of a conversion: the file grows each time when somebody looks, and then it is whole. Room is noted then."""

    def __init__(self, space: Space) -> None:
        self.image = SimpleNamespace(disk_format="raw")
        self.promised: list[int] = []
        self._space = space
        self._sizes = iter((100, 300, 300, 600))
        self._whole = threading.Event()

    async def run(self, source_format: str, output: str, limit: int) -> None:
        await asyncio.to_thread(self._whole.wait)

    def written_bytes(self) -> int:
        size = next(self._sizes, None)
        if size is None:
            self._whole.set()
        return size or 600

    async def require_ours(self) -> None:
        self.promised.append(self._space.promised)


def test_room_is_promised_for_what_is_not_written_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "WATCH_SECONDS", 0.0)
    space = Space()
    promise = space.promise(tmp_path, 1000, floor_mib=0)
    work = Growing(space)
    asyncio.run(conversion._run(cast("conversion._Work", work), cast("Receiver", work), promise, "qcow2", 1000))
    assert work.promised[:4] == [900, 700, 700, 400]
    assert set(work.promised[4:]) == {400}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users to run programs as")
def test_without_a_user_of_its_own_qemu_img_does_not_run(to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_uids: range, _owner: Path) -> int:
        raise users.NoUserLeft

    monkeypatch.setattr(users, "take", none_left)
    message = refused(to_qcow2, imported(to_qcow2.persona("member"), DISK))
    assert message == "The cloud has no user left to convert with."


@pytest.mark.skipif(os.geteuid() != 0, reason="only root confines programs to folders")
def test_where_root_cannot_confine_qemu_img_the_setting_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path, database_url="", image_conversion_output_format="raw")
    assert tools.problem(None) is None
    without = ["/usr/bin/setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    line_of = tools.line_of
    monkeypatch.setattr(tools, "line_of", lambda spec: [*without, *line_of(spec)])
    with pytest.raises(SettingRefused, match=r"cannot be confined on this machine: jail: .*unshare.*not permitted"):
        conversion.require(settings)
