"""Two blows of crash runs that kill nothing: a disk without room, and one caller who floods."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from cumulet.cli.client import Persona

LARGE = "4g"
"""Nobody writes so much: a file system in memory takes what is in it."""
CONNECTIONS = 3
SILENT = 150
KEYPAIRS = "/compute/v2.1/os-keypairs"


class SmallDisk:
    """The file system of a cloud's state - database, images, logs - but for its hosts' folders. Made by root."""

    def __init__(self, base: Path) -> None:
        self._state, self._hosts = base / "state", base / "hosts"
        self._mounted: list[Path] = []
        for folder in (self._state, self._hosts):
            folder.mkdir(mode=0o700)
        try:
            self._mount(self._state, "-t", "tmpfs", "-o", f"size={LARGE},mode=0700", "none")
            (self._state / "hosts").mkdir(mode=0o700)
            self._mount(self._state / "hosts", "--bind", str(self._hosts))
        except BaseException:
            self.remove()
            raise

    def _mount(self, target: Path, *options: str) -> None:
        subprocess.run(["mount", *options, str(target)], check=True)
        self._mounted.append(target)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """It becomes as small as what is in it, so nothing more can be written."""
        found = os.statvfs(self._state)
        self._resize(str((found.f_blocks - found.f_bfree) * found.f_frsize))
        try:
            yield
        finally:
            self._resize(LARGE)

    def _resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self._state)], check=True)

    def remove(self) -> None:
        for target in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(target)], check=True)
        self._mounted.clear()


def flood(caller: Persona, seconds: float) -> int:
    """Keys that exist are asked for again and again, and many connections say nothing. How many answers came."""
    caller.ask("POST", KEYPAIRS, {"keypair": {"name": "flood"}}, version="2.1")
    ended = time.monotonic() + seconds
    answers = itertools.count()
    strange: list[str] = []
    address = urlsplit(str(caller.http.base_url))

    def ask_again() -> None:
        while time.monotonic() < ended:
            with contextlib.suppress(httpx.HTTPError):  # Too many connections: the next is tried.
                answer = caller.ask("POST", KEYPAIRS, {"keypair": {"name": "flood"}}, version="2.1")
                next(answers)
                if answer.status not in (409, 429, 503):
                    strange.append(f"{answer.status} {answer.text[:100]}")

    asking = [threading.Thread(target=ask_again) for _ in range(CONNECTIONS)]
    with contextlib.ExitStack() as silent:
        for _ in range(SILENT):
            with contextlib.suppress(OSError):
                silent.enter_context(socket.create_connection((address.hostname or "", address.port or 443), 5.0))
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
    assert strange == []
    return next(answers)
