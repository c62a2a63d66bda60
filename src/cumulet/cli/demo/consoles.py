"""What the guests print: `tick N <server id>` lines on their serial consoles, ten a second, read through the API."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field

from cumulet.cli.client import Persona

TICK = re.compile(r"^tick (\d+) (\S+)\s*$", re.MULTILINE)
TICK_SECONDS = 0.1
LOOK_SECONDS = 0.02


def console_lines(who: Persona, server_id: str, length: int) -> str:
    """The last `length` lines of a server's serial console; empty while it has none."""
    answer = who.act(server_id, {"os-getConsoleOutput": {"length": length}})
    return str(answer.json["output"]) if answer.status == 200 else ""


def newest_tick(output: str, server_id: str) -> int | None:
    """The highest tick that the server itself printed, or None. A tick of another server counts for nothing."""
    ticks = [int(number) for number, owner in TICK.findall(output) if owner == server_id]
    return ticks[-1] if ticks else None


@dataclass(frozen=True, slots=True)
class Sight:
    """A tick and when it was first seen from outside (monotonic seconds)."""

    tick: int
    at: float


@dataclass(slots=True)
class Watcher:
    """Looks at one console again and again, in a thread of its own, and notes when each new tick came into sight."""

    who: Persona
    server_id: str
    sights: list[Sight] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watcher:
        self._thread = threading.Thread(target=self._watch, name="console-watcher", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            tick = newest_tick(console_lines(self.who, self.server_id, 4), self.server_id)
            if tick is not None and (not self.sights or tick != self.sights[-1].tick):
                self.sights.append(Sight(tick, time.monotonic()))
            self._stop.wait(LOOK_SECONDS)

    def wait_for_more(self, ticks: int, seconds: float) -> bool:
        """Wait until the counter has gone on by `ticks` from where it is now; False if it has not within `seconds`."""
        target = (self.sights[-1].tick if self.sights else 0) + ticks
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.sights and self.sights[-1].tick >= target:
                return True
            self._stop.wait(LOOK_SECONDS)
        return False

    @property
    def uninterrupted(self) -> bool:
        """The counter lives in the guest's memory: a guest started anew would begin at 1, a second copy would repeat.

        So it has to rise all the time, and no faster than the clock allows (with a second's tolerance for our polling).
        """
        if len(self.sights) < 2:
            return False
        steps = zip(self.sights, self.sights[1:], strict=False)
        return all(
            0 < after.tick - before.tick <= (after.at - before.at + 1.0) / TICK_SECONDS for before, after in steps
        )

    @property
    def longest_gap_ms(self) -> float:
        """The longest time in which no new tick came into sight, less the time between two ticks."""
        steps = zip(self.sights, self.sights[1:], strict=False)
        longest = max((after.at - before.at for before, after in steps), default=0.0)
        return max(0.0, longest - TICK_SECONDS) * 1000
