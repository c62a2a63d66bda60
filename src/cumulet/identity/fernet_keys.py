"""The keys that seal tokens: files named by number in one folder. The highest seals, all open, 0 waits to be next."""

from __future__ import annotations

import base64
import fcntl
import os
import threading
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from cumulet.clock import Clock
from cumulet.owned import refuse_exposed

KEYS_KEPT = 3
ROTATE_AFTER_SECONDS = 7 * 24 * 3600


class FernetKeys:
    """Seals and opens text tokens. Picks up a rotation made by another process, at the latest when it matters."""

    def __init__(self, folder: Path, clock: Clock, *, rotates: bool = True, life_seconds: float = 0.0) -> None:
        """rotates: old keys are replaced by themselves. Otherwise the caller seals everything anew with the present key
        and then calls `rotate`. life_seconds: for how long what is sealed can be opened at least, if for longer than
        `ROTATE_AFTER_SECONDS`: a key is there until the one after it has served."""
        self._folder = folder
        self._rotates = rotates
        self._served_seconds = max(ROTATE_AFTER_SECONDS, life_seconds)
        self._clock = clock
        self._rotating = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _numbers(folder):
            _write(folder / "0", clock)
            _write(folder / "1", clock)
        self._load()
        self._rotate_if_old()

    def seal(self, payload: bytes) -> str:
        """A token; sealed with a new key where the present one has served long enough, however long we run already."""
        self._rotate_if_old()
        self._load_if_changed()  # Or it might be sealed with a key that another process has destroyed.
        return self._fernet.encrypt_at_time(payload, self._clock.now_us() // 1_000_000).decode()

    def open(self, token: str) -> bytes | None:
        """The payload, or None for anything that we did not seal."""
        try:
            return self._fernet.decrypt(token)
        except InvalidToken:
            pass
        except (ValueError, TypeError):  # not even ASCII
            return None
        try:
            return self._fernet.decrypt(token) if self._load_if_changed() else None
        except InvalidToken:
            return None

    def _rotate_if_old(self) -> None:
        if not self._is_old():
            return
        with self._rotating, open(self._folder / ".lock", "a", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._load()  # Another thread, or another process, may have been first.
            if self._is_old():
                self.rotate()

    def _is_old(self) -> bool:
        return self._rotates and self.age_seconds() > self._served_seconds

    def age_seconds(self) -> float:
        """How long the present key has sealed."""
        return self._clock.now_us() / 1e6 - self._primary_made_at

    def rotate(self) -> None:
        """The waiting key becomes the sealing one; a new one waits; the oldest beyond `KEYS_KEPT` are destroyed."""
        numbers = _numbers(self._folder)
        waiting = self._folder / "0"
        if not waiting.exists():  # an earlier rotation was cut short
            _write(waiting, self._clock)
        # A key's age counts from when it began to seal: otherwise each start would rotate the one that waited long.
        _set_time(waiting, self._clock)
        waiting.rename(self._folder / str(numbers[-1] + 1))
        _write(waiting, self._clock)
        for number in _numbers(self._folder)[1 : -KEYS_KEPT + 1]:
            (self._folder / str(number)).unlink()
        self._load()

    def _load_if_changed(self) -> bool:
        if self._loaded_at_ns == self._folder.stat().st_mtime_ns:
            return False
        self._load()
        return True

    def _load(self) -> None:
        self._loaded_at_ns = self._folder.stat().st_mtime_ns
        refuse_exposed(self._folder)
        paths = [self._folder / str(number) for number in reversed(_numbers(self._folder))]
        for path in paths:
            refuse_exposed(path)
        self._primary_made_at = paths[0].stat().st_mtime
        self._fernet = MultiFernet([Fernet(path.read_bytes()) for path in paths])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def _write(path: Path, clock: Clock) -> None:
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.urlsafe_b64encode(clock.token_bytes(32)))
        file.flush()
        os.fsync(descriptor)
    _set_time(fresh, clock)
    fresh.rename(path)


def _set_time(path: Path, clock: Clock) -> None:
    now_ns = clock.now_us() * 1000
    os.utime(path, ns=(now_ns, now_ns))
