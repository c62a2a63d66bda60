"""What must be its owner's alone is refused where it is not: files, and every folder on the way to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cumulet.ca import CertificateAuthority
from cumulet.owned import Exposed, refuse_exposed, refuse_foreign_path

STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")


def test_a_folder_of_ours_is_fine_wherever_it_is(tmp_path: Path) -> None:
    refuse_foreign_path(tmp_path)
    refuse_foreign_path(tmp_path / "not" / "yet" / "there")
    (tmp_path / "link").symlink_to(tmp_path)
    refuse_foreign_path(tmp_path / "link" / "x")


@as_root
@pytest.mark.parametrize("step", ["a", "a/b", "a/b/c"])
def test_a_folder_that_somebody_else_owns_is_refused_wherever_it_is_on_the_way(tmp_path: Path, step: str) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    os.chown(tmp_path / step, STRANGER, STRANGER)
    with pytest.raises(Exposed, match=f"{tmp_path / step} belongs to user {STRANGER}"):
        refuse_foreign_path(tmp_path / "a" / "b" / "c")


@as_root
def test_a_link_that_somebody_else_can_turn_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    os.lchown(tmp_path / "link", STRANGER, STRANGER)
    with pytest.raises(Exposed, match="link belongs to user"):
        refuse_foreign_path(tmp_path / "link")
    (tmp_path / "others").mkdir()
    os.chown(tmp_path / "others", STRANGER, STRANGER)
    (tmp_path / "mine" / "in").symlink_to(tmp_path / "others")
    with pytest.raises(Exposed, match="others belongs to user"):
        refuse_foreign_path(tmp_path / "mine" / "in" / "state")


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_folder_that_everybody_may_write_is_refused_unless_it_is_sticky(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(Exposed, match="may be written by others"):
        refuse_foreign_path(tmp_path / "open" / "state")
    (tmp_path / "open").chmod(mode | 0o1000)
    refuse_foreign_path(tmp_path / "open" / "state")


@as_root
def test_an_authority_in_a_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    CertificateAuthority.load_or_create(tmp_path / "ca")
    os.chown(tmp_path / "ca", STRANGER, STRANGER)
    with pytest.raises(Exposed, match="belongs to user"):
        CertificateAuthority.load_or_create(tmp_path / "ca")
    os.chown(tmp_path / "ca", 0, 0)
    os.chown(tmp_path / "ca" / "ca-key.pem", STRANGER, STRANGER)
    with pytest.raises(Exposed, match=r"ca-key\.pem must belong"):
        CertificateAuthority.load_or_create(tmp_path / "ca")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    refuse_exposed(secret)
    secret.chmod(mode)
    with pytest.raises(Exposed, match="readable by others"):
        refuse_exposed(secret)
