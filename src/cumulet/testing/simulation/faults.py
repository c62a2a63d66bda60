"""What can go wrong, how often, in one run; drawn from the seed, so that runs differ in what they are harsh about."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(slots=True, kw_only=True)
class Weather:
    """Chances. Per message: lost, slow, twice, longer than the bus takes. Per verb: it fails before or after it did its
    work, or takes long.

    Per commit: it fails, its answer is lost, or the API that made it dies with it. Per step: somebody crashes, hangs,
    is cut off (both ways, or only what it says is lost), or has a clock that jumps; a disk fails or is slow; a copy
    stands still; a process of the control plane is stopped for a while, or does not reach a host, or the database; the
    bus cuts a host or a process off that has read too slowly, which connects again at once.
    Per move in post-copy: its copy fails as the source lets go.
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
    process_stops: float = 0.0
    process_cut_off: float = 0.0
    without_database: float = 0.0
    host_reconnects: float = 0.0
    process_reconnects: float = 0.0
    too_long: float = 0.0
    agent_crash: float = 0.0
    host_crash: float = 0.0
    guest_crash: float = 0.0
    partition: float = 0.0
    clock_jump: float = 0.0
    host_lost: float = 0.0
    dies_at_commit: float = 0.0
    api_crash: float = 0.0
    unheard: float = 0.0
    guest_hangs: float = 0.0
    copy_stalls: float = 0.0
    disk_fails: float = 0.0
    disk_slow: float = 0.0
    switch_fails: float = 0.0

    @property
    def is_calm(self) -> bool:
        return not any(getattr(self, name) for name in self.__slots__)

    def become(self, other: Weather) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def __str__(self) -> str:
        chances = [f"{name} {getattr(self, name):.2f}" for name in self.__slots__ if getattr(self, name)]
        return ", ".join(chances) or "none"


_WORST = {
    "lost": 0.15, "slow": 0.2, "twice": 0.15, "verb_fails_before": 0.1, "verb_fails_after": 0.1, "verb_hangs": 0.05,
    "commit_fails": 0.05, "commit_unknown": 0.05, "conductor_crash": 0.2, "process_stops": 0.1,
    "process_cut_off": 0.1, "without_database": 0.08, "host_reconnects": 0.1,
    "process_reconnects": 0.08, "too_long": 0.02, "agent_crash": 0.2, "host_crash": 0.08, "guest_crash": 0.08,
    "partition": 0.15,
    "clock_jump": 0.1, "host_lost": 0.06, "dies_at_commit": 0.1,
    "api_crash": 0.08, "unheard": 0.08, "guest_hangs": 0.15, "copy_stalls": 0.1, "disk_fails": 0.06, "disk_slow": 0.08,
    "switch_fails": 0.5,
}  # fmt: skip
_SILENCE = {"partition": 0.2, "unheard": 0.3, "host_lost": 0.15, "slow": 0.2, "lost": 0.3, "verb_hangs": 0.1}
"""Worse than the worst: hosts that are not heard, for runs that are about leases, evacuations and coming back."""


QUIET_RUNS = 0.1


def draw(random: Random) -> Weather:
    """Each kind is off in half of the runs, else up to its worst; some are mild, some about silence, some quiet."""
    if random.random() < QUIET_RUNS:
        return Weather()
    harshness = random.choice((0.2, 0.6, 1.0, 1.0))
    drawn = {
        name: harshness * worst * random.random() if random.random() < 0.5 else 0.0 for name, worst in _WORST.items()
    }
    if random.random() < 0.2:
        drawn |= {name: worst * random.uniform(0.5, 1.0) for name, worst in _SILENCE.items()}
    return Weather(**drawn)
