"""The keys that seal tokens: only the cloud's user can read them. They rotate without ending tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulet.identity.fernet_keys import KEYS_KEPT, ROTATE_AFTER_SECONDS, FernetKeys
from cumulet.owned import Exposed
from tests.api.identity.place import HandClock


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def test_keys_are_made_at_first_for_the_owner_only_and_found_again(tmp_path: Path) -> None:
    folder, clock = tmp_path / "keys", HandClock()
    sealed = FernetKeys(folder, clock).seal(b"secret")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert FernetKeys(folder, clock).open(sealed) == b"secret"
    assert FernetKeys(tmp_path / "others", HandClock()).open(sealed) == b"secret"  # the same seed makes the same keys
    other_clock = HandClock()
    other_clock.uuid()
    assert FernetKeys(tmp_path / "strangers", other_clock).open(sealed) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
@pytest.mark.parametrize("name", [".", "0", "1"])
def test_keys_that_others_can_reach_stop_the_start(tmp_path: Path, name: str, mode: int) -> None:
    FernetKeys(tmp_path / "keys", HandClock())
    path = tmp_path / "keys" / name
    path.chmod(mode | (0o100 if name == "." else 0))
    with pytest.raises(Exposed, match="chmod go="):
        FernetKeys(tmp_path / "keys", HandClock())


def test_a_key_that_is_a_link_stops_the_start(tmp_path: Path) -> None:
    FernetKeys(tmp_path / "keys", HandClock())
    key = tmp_path / "keys" / "1"
    key.rename(tmp_path / "elsewhere")
    key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exposed):
        FernetKeys(tmp_path / "keys", HandClock())


def test_rotation_keeps_what_was_sealed_until_the_key_is_the_oldest(tmp_path: Path) -> None:
    keys = FernetKeys(tmp_path, HandClock())
    waiting = (tmp_path / "0").read_bytes()
    sealed = keys.seal(b"x")
    keys.rotate()
    assert (tmp_path / str(numbers(tmp_path)[-1])).read_bytes() == waiting
    assert keys.open(sealed) == b"x"
    assert keys.open(keys.seal(b"y")) == b"y"
    keys.rotate()
    assert len(numbers(tmp_path)) == KEYS_KEPT
    assert keys.open(sealed) is None


def test_another_process_picks_a_rotation_up(tmp_path: Path) -> None:
    one, other = FernetKeys(tmp_path, HandClock()), FernetKeys(tmp_path, HandClock())
    one.rotate()
    assert other.open(one.seal(b"x")) == b"x"  # sealed with what was waiting, so nothing need be read
    one.rotate()
    assert other.open(one.seal(b"x")) == b"x"


def test_nothing_is_sealed_with_a_key_that_another_process_has_destroyed(tmp_path: Path) -> None:
    one, other = FernetKeys(tmp_path, HandClock()), FernetKeys(tmp_path, HandClock(), rotates=False)
    one.rotate()
    one.rotate()
    assert one.open(other.seal(b"x")) == b"x"


def test_an_old_key_is_rotated_at_the_start(tmp_path: Path) -> None:
    clock = HandClock()
    FernetKeys(tmp_path, clock)
    clock.advance(ROTATE_AFTER_SECONDS)
    sealed = FernetKeys(tmp_path, clock).seal(b"x")
    assert numbers(tmp_path) == [0, 1]
    clock.advance(1)
    for _ in range(5):  # once, however often it starts
        assert FernetKeys(tmp_path, clock).open(sealed) == b"x"
        assert numbers(tmp_path) == [0, 1, 2]


def test_keys_are_rotated_while_it_runs_and_tokens_outlive_that(tmp_path: Path) -> None:
    clock = HandClock()
    keys, other = FernetKeys(tmp_path, clock), FernetKeys(tmp_path, clock)
    sealed = keys.seal(b"x")
    clock.advance(ROTATE_AFTER_SECONDS + 1)
    waiting = (tmp_path / "0").read_bytes()
    fresh = keys.seal(b"y")
    assert numbers(tmp_path) == [0, 1, 2]
    assert (tmp_path / "2").read_bytes() == waiting
    assert keys.open(sealed) == b"x"
    assert other.open(fresh) == b"y"
    other.seal(b"z")  # of two processes, one rotates
    keys.seal(b"z")
    assert numbers(tmp_path) == [0, 1, 2]
    for week in range(3, 6):
        clock.advance(ROTATE_AFTER_SECONDS + 1)
        assert other.open(keys.seal(b"z")) == b"z"
        assert numbers(tmp_path) == [0, week - 1, week]
    assert other.open(sealed) is None


@pytest.mark.parametrize("days", [1, 7, 30, 400])
def test_what_is_sealed_is_opened_for_as_long_as_it_is_good(tmp_path: Path, days: int) -> None:
    """Whenever it is sealed, and however often something is sealed after it."""
    clock, day = HandClock(), 24 * 3600
    keys = FernetKeys(tmp_path, clock, life_seconds=days * day)
    sealed: list[str] = []
    for _ in range(3 * days + 20):
        sealed.append(keys.seal(b"x"))
        assert [keys.open(token) for token in sealed[-days:]] == [b"x"] * len(sealed[-days:])
        clock.advance(day)
    assert keys.open(sealed[0]) is None
    assert len(numbers(tmp_path)) == KEYS_KEPT


@pytest.mark.parametrize("token", ["", "x", "gAAAAA", "\ud800", "ä" * 300, "\0"])
def test_what_we_did_not_seal_is_not_opened(tmp_path: Path, token: str) -> None:
    assert FernetKeys(tmp_path, HandClock()).open(token) is None
