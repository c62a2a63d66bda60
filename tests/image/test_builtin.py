"""The images a cloud brings along."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulet.image import store
from cumulet.image.builtin import add_builtin_image
from cumulet.image.files import Upload
from cumulet.image.qcow2 import Refused

from . import attack_images
from .conftest import World


def add(world: World, source: Path | None) -> str:
    cloud = world.cloud
    return add_builtin_image(
        cloud.db, cloud.clock, cloud.state_dir, name="cumulet-tiny", owner="admin-project", source=source
    )


def test_a_builtin_image_is_public_and_added_once(world: World, tmp_path: Path) -> None:
    source = tmp_path / "tiny.qcow2"
    source.write_bytes(attack_images.GOOD.build())
    image_id = add(world, source)
    assert add(world, source) == image_id
    image = world.show(image_id, "other")
    assert (image["name"], image["status"], image["visibility"]) == ("cumulet-tiny", "active", "public")
    assert (image["disk_format"], image["virtual_size"]) == ("qcow2", 8 << 20)
    assert (world.store / image_id).read_bytes() == source.read_bytes()


def test_a_placeholder_stands_in_where_there_is_no_file(world: World) -> None:
    image = world.show(add(world, None), "other")
    assert (image["disk_format"], image["size"]) == ("raw", 1 << 20)


def test_a_builtin_image_is_inspected_like_any_other(world: World, tmp_path: Path) -> None:
    source = tmp_path / "tiny.qcow2"
    source.write_bytes(attack_images.Qcow2(backing=b"/etc/shadow").build())
    with pytest.raises(Refused):
        add(world, source)
    assert world.files() == set()


def test_what_a_killed_start_has_left_of_it_is_made_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Upload, "place", _killed)
        patched.setattr(store, "delete", _killed)
        with pytest.raises(KeyboardInterrupt):
            add(world, None)
    left = [image["id"] for image in world.ask("other", "GET", "/images").json()["images"]]
    assert [world.show(image_id, "other")["status"] for image_id in left] == ["saving"]
    image_id = add(world, None)
    assert [image["id"] for image in world.ask("other", "GET", "/images").json()["images"]] == [image_id] != left


def _killed(*_arguments: object, **_named: object) -> None:
    raise KeyboardInterrupt


def test_an_image_that_is_refused_leaves_no_record(world: World, tmp_path: Path) -> None:
    source = tmp_path / "tiny.qcow2"
    source.write_bytes(attack_images.Qcow2(backing=b"/etc/shadow").build())
    with pytest.raises(Refused):
        add(world, source)
    assert world.ask("other", "GET", "/images").json()["images"] == []
