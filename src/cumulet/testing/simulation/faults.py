"""What can go wrong, how often, in one run; drawn from the seed, so that runs differ in what they are harsh about."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(slots=True, kw_only=True)
class Weather:
    """Chances. Per message: lost, slow, twice. Per verb: it fails before or after it did its work, or takes long.

    Per commit: it fails, or its answer is lost. Per step: somebody crashes, is cut off, or has a clock that jumps.
    """

    lost: float = 0.0
    slow: float = 0.0
    twice: float = 0.0
    verb_fails_before: float = 0.0
    verb_fails_after: float = 0.0
    verb_hangs: float = 0.0
    commit_fails: float = 0.0
    commit_unknown: float = 0.0
    conductor_crash: float = 0.0
    agent_crash: float = 0.0
    host_crash: float = 0.0
    guest_crash: float = 0.0
    partition: float = 0.0
    clock_jump: float = 0.0
    host_lost: float = 0.0

    def calm(self) -> None:
        """The faults heal: from here on nothing goes wrong any more."""
        for name in self.__slots__:
            setattr(self, name, 0.0)


_WORST = {
    "lost": 0.15, "slow": 0.2, "twice": 0.15, "verb_fails_before": 0.1, "verb_fails_after": 0.1, "verb_hangs": 0.05,
    "commit_fails": 0.05, "commit_unknown": 0.05, "conductor_crash": 0.2, "agent_crash": 0.2, "host_crash": 0.08,
    "guest_crash": 0.08, "partition": 0.15, "clock_jump": 0.1, "host_lost": 0.06,
}  # fmt: skip


def draw(random: Random) -> Weather:
    """Each kind is off in half of the runs, else anything up to its worst."""
    return Weather(
        **{name: worst * random.random() if random.random() < 0.5 else 0.0 for name, worst in _WORST.items()}
    )
