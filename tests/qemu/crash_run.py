"""What a seed decides of a crash run: the blow, the moment of the move at which it strikes, and how long it lasts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from cumulet.compute.live_migration import LIVE_MIGRATION

PATIENCE_SECONDS = 8.0
"""How long a copy may be without progress in the clouds of these runs, and `host_silent_seconds`: settings like any."""
SILENT_SECONDS = 4.0

LASTS_SECONDS = (1.0, 7.0)
"""How long a process is stopped or the network cut: up to longer than a host may be silent, less than patience."""
HANGS_SECONDS = 12.0
"""Longer than patience."""

STEPS = [item.name for item in LIVE_MIGRATION.plan]


class Victim(StrEnum):
    CONTROL_PLANE = "control plane killed"
    SOURCE_QEMU = "source QEMU killed"
    DESTINATION_QEMU = "destination QEMU killed"
    SOURCE_AGENT = "source agent killed"
    DESTINATION_AGENT = "destination agent killed"
    SOURCE_AGENT_TWICE = "source agent killed twice"
    DESTINATION_AGENT_TWICE = "destination agent killed twice"
    KEEPERS = "control plane and agents killed"
    EVERYTHING = "everything killed"
    CONTROL_PLANE_STOPPED = "control plane stopped"
    SOURCE_QEMU_STOPPED = "source QEMU stopped"
    DESTINATION_QEMU_STOPPED = "destination QEMU stopped"
    SOURCE_AGENT_STOPPED = "source agent stopped"
    DESTINATION_AGENT_STOPPED = "destination agent stopped"
    CUT = "network cut"
    CUT_UNTIL_THE_END = "network cut until the move has ended"
    LINKS_DOWN = "links down"
    DISK_FULL = "disk full"
    """The control plane's: its database, images and logs."""
    FLOOD = "flood"

    @property
    def cuts(self) -> bool:
        return self in (Victim.CUT, Victim.CUT_UNTIL_THE_END, Victim.LINKS_DOWN)

    @property
    def kills_the_control_plane(self) -> bool:
        return self in (Victim.CONTROL_PLANE, Victim.KEEPERS, Victim.EVERYTHING)

    @property
    def kills_a_guest(self) -> bool:
        return self in (Victim.SOURCE_QEMU, Victim.DESTINATION_QEMU, Victim.EVERYTHING)


class Moment(StrEnum):
    """Steps as `operations` rows show them; of the others each is over with the one before it."""

    ACCEPTED = "accepted"
    START_DESTINATION = "start_destination"
    COPY_MEMORY = "copy_memory"
    SWITCHOVER = "copy_memory, the guest stopped"
    RESUME_GUEST = "resume_guest"
    DISCARD_SOURCE = "discard_source"
    CANCEL_COPY = "undo copy_memory"
    DESTROY_DESTINATION = "undo start_destination"

    @property
    def undoes(self) -> bool:
        """Reached by an abort in the middle of the copy."""
        return self in (Moment.CANCEL_COPY, Moment.DESTROY_DESTINATION)

    @property
    def step(self) -> str:
        """The step's name, of one that is a step."""
        return self.value.removeprefix("undo ")


DELAYS = {
    Moment.ACCEPTED: 0.05,
    Moment.START_DESTINATION: 1.0,
    Moment.COPY_MEMORY: 3.0,
    Moment.SWITCHOVER: 0.06,
    Moment.RESUME_GUEST: 0.05,
    Moment.DISCARD_SOURCE: 0.05,
    Moment.CANCEL_COPY: 0.05,
    Moment.DESTROY_DESTINATION: 0.02,
}
"""Up to how many seconds after its begin a blow strikes."""

_NOT_THERE_YET = {
    (Victim.DESTINATION_QEMU, Moment.ACCEPTED),
    (Victim.DESTINATION_QEMU_STOPPED, Moment.ACCEPTED),
}
PAIRS = [(victim, moment) for victim in Victim for moment in Moment if (victim, moment) not in _NOT_THERE_YET]
POST_COPY_PAIRS = [
    (victim, moment)
    for victim in Victim
    if victim is not Victim.CUT_UNTIL_THE_END  # It does not end before the network is back.
    for moment in (Moment.COPY_MEMORY, Moment.SWITCHOVER, Moment.RESUME_GUEST, Moment.DISCARD_SOURCE)
]
"""For moves that are forced to complete, where hosts can receive in post-copy."""
_STRIDE = 31
"""Without a common divisor with the number of pairs: so many seeds in a row are each pair once, in a mixed order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that a seed decides."""

    seed: int
    victim: Victim
    moment: Moment
    abort_after: float
    """Seconds into the copy, of a moment that an abort leads to."""
    delay: float
    lasts: float
    pause: float
    """Seconds between two blows to one victim."""
    post_copy: bool = False

    @classmethod
    def of(cls, seed: int, *, post_copy: bool = False) -> Run:
        random = Random(seed)
        pairs = POST_COPY_PAIRS if post_copy else PAIRS
        victim, moment = pairs[seed * _STRIDE % len(pairs)]
        lasts = random.uniform(*LASTS_SECONDS)
        if (post_copy or not victim.cuts) and seed // len(pairs) % 2:
            lasts = HANGS_SECONDS
        return cls(
            seed=seed,
            victim=victim,
            moment=moment,
            abort_after=random.uniform(0.0, 1.5),
            delay=random.uniform(0.0, DELAYS[moment]),
            lasts=lasts,
            pause=random.uniform(0.0, 1.0),
            post_copy=post_copy,
        )

    def __str__(self) -> str:
        how = " in post-copy" if self.post_copy else ""
        return f"seed {self.seed}{how}: {self.victim}, {self.delay:.3f} s into {self.moment}"
