"""A host's watchdog: a tiny process that kills the host's guests when its lease has run out, whatever the agent does.

It kills the agent first, which might still do an earlier command and start a guest without a lease. The host's routers
end, too, because another host takes them over once this one counts as lost. The watchdog shares only files with the
agent: the lease, and the note that each guest's process has written about itself. The agent starts a watchdog if there
is none. The watchdog ends when there is nothing left to watch: no lease, no guest, no agent.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cumulet.agent import lease
from cumulet.drivers.linux_network import names, namespaces
from cumulet.drivers.qemu import process
from cumulet.drivers.qemu.record import ProcessId, folders

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
START_SECONDS = 10.0
LOCK = "watchdog.lock"
AGENT_LOCK = "agent.lock"
_NOTE_BYTES = 512


def watch(state: Path) -> None:
    """Be the watchdog of the host whose agent's state folder is `state`, unless there is one."""
    with _lock(state / LOCK, seconds=START_SECONDS) as alone:
        watching = _Watching(state)
        if alone:
            _note(state / LOCK)
        while alone:
            left = watching.seconds_left()
            try:
                if watching.look(left):
                    return
            except OSError as problem:  # Nobody but the agent starts another watchdog, and that may be dead or hang.
                log.warning("will look again: %s", problem)
            time.sleep(min(left, LOOK_SECONDS) if left > 0 else LOOK_SECONDS)


class _Watching:
    """What a watchdog knows from look to look. What a look could not end, the next one ends."""

    def __init__(self, state: Path) -> None:
        """A lease that could never be read counts for as long as a watchdog has to start."""
        self._state = state
        self._ends_at = lease.now() + START_SECONDS
        self._had_lease = False
        self._routers_are_left = False

    def seconds_left(self) -> float:
        """Of the lease. One that cannot be read just now ends when it would have at the last look."""
        try:
            left = lease.seconds_left(lease_file(self._state))
        except OSError as problem:
            log.warning("the lease cannot be read: %s", problem)
            return self._ends_at - lease.now()
        self._ends_at = lease.now() + left
        return left

    def look(self, left: float) -> bool:
        """Whether there is nothing left to watch."""
        if left > 0:
            self._had_lease, self._routers_are_left = True, False
            return False
        if self._had_lease:
            if kill_agent(self._state):
                log.warning("the lease has run out: the agent killed, with what it was at")
            # Only once: the next agent gets a lease only after it has learned which routers it has.
            self._had_lease, self._routers_are_left = False, True
        killed = kill_guests(self._state)
        if killed:
            log.warning("the lease has run out: %s guests killed", killed)
        if self._routers_are_left:
            if routers := end_routers():
                log.warning("the lease has run out: %s routers ended", routers)
            self._routers_are_left = False
        return not killed and not _is_locked(self._state / AGENT_LOCK)


def lease_file(state: Path) -> Path:
    return state / "lease.json"


def note_agent(state: Path) -> None:
    """The identity of this host's agent, which holds its lock."""
    _note(state / AGENT_LOCK)


def noted_agent(state: Path) -> ProcessId | None:
    """The agent that has, or had last, this host's lock."""
    return _noted(state / AGENT_LOCK)


def _note(lock: Path) -> None:
    """Written over: a full disk has no room for another file."""
    content = msgspec.json.encode(process.identify(os.getpid())).ljust(_NOTE_BYTES)
    file = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(file, content, 0)
    finally:
        os.close(file)


def _noted(lock: Path) -> ProcessId | None:
    try:
        return msgspec.json.decode(lock.read_bytes(), type=ProcessId)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def kill_agent(state: Path) -> bool:
    """SIGKILL to this host's agent, also a stopped or hung one; whether it lived. A supervisor starts the next."""
    noted = noted_agent(state)
    return noted is not None and _kill(noted)


def kill_guests(state: Path) -> int:
    """SIGKILL to every guest's process of this host, also stopped or hung ones; how many lived."""
    noted = (folder.read_process() for folder in folders(state / "qemu" / "guests"))
    return sum(_kill(guest) for guest in noted if guest is not None)


def end_routers() -> int:
    """Remove the network namespaces of this host's routers with all that is in them; how many there were."""
    there = namespaces.named(names.namespaces_of(namespaces.identity()))
    for name in there:
        namespaces.remove(name)
    return len(there)


def _kill(noted: ProcessId) -> bool:
    """SIGKILL to exactly this process, never to a later one with its number; whether it lived."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(noted.pid)
        try:
            if process.identify(noted.pid) == noted:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return True
        finally:
            os.close(handle)
    return False


@contextlib.contextmanager
def _lock(path: Path, *, seconds: float = 0.0) -> Iterator[bool]:
    """Yields True if the lock could be taken within this time. Then it is held until the block ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _acquire(held, time.monotonic() + seconds)
    finally:
        os.close(held)


def _acquire(held: int, deadline: float) -> bool:
    """Take the lock; False if others hold it until `deadline`. One who only looks holds it for a moment, too."""
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _is_locked(path: Path) -> bool:
    with _lock(path) as free:
        return not free


def is_watched(state: Path) -> bool:
    return _is_locked(state / LOCK)


def ensure(state: Path) -> None:
    """Return once a watchdog lives; start one, in a session of its own, where none does. Raises TimeoutError."""
    if is_watched(state):
        return
    subprocess.Popen(
        [sys.executable, "-m", "cumulet.agent.watchdog", str(state)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + START_SECONDS
    while not is_watched(state):
        if time.monotonic() > deadline:
            raise TimeoutError("the watchdog does not start")
        time.sleep(0.02)


def dismiss(state: Path) -> None:
    """End the watchdog, not the guests: this host has no lease any more, and nobody counts on its end.

    Raises TimeoutError if the watchdog does not end.
    """
    if not lease_file(state).exists():
        return
    noted = _noted(state / LOCK)
    if noted is not None:
        _kill(noted)
    with _lock(state / LOCK, seconds=START_SECONDS) as gone:
        if not gone:
            raise TimeoutError("an earlier watchdog of this host does not end")
        lease_file(state).unlink()


if __name__ == "__main__":
    logging.basicConfig(format="watchdog: %(message)s")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    watch(Path(sys.argv[1]))
