"""A modelled guest: what it is, in which state, and how long it ran."""

from __future__ import annotations

import msgspec

from cumulet.host import devices, uneven_memory
from cumulet.host.devices import USUAL, Devices
from cumulet.host.disks import SWAP
from cumulet.host.driver import DriverError, Guest, GuestReport, GuestState, Image
from cumulet.host.endpoint import Peer
from cumulet.host.nics import DEVICE_TAGS
from cumulet.host.telling import LIVE_METADATA, Posted, Told
from cumulet.host.wiring import (
    BANDWIDTH_LIMITS,
    DSCP_MARKS,
    FLOATING_IP_LIMITS,
    GATEWAY_LIMITS,
    METERING,
    NO_PACKETS,
    PORT_NAMES,
    TRUNKS,
)

DEFAULT_DIRTY_RATE_MIB_S = 20.0
TICKS_PER_SECOND = 10
MACHINE_TYPE = "simulated-1.0"
ADDRESS = "127.0.0.1"
"""Of every simulated host."""
CPU_MODEL = "simulated"
NO_PROCESS = (GuestState.STOPPED, GuestState.SUSPENDED, GuestState.CRASHED)
"""States of a guest that no process runs."""

FEATURES = (
    "local-disk",
    "networks",
    NO_PACKETS,
    BANDWIDTH_LIMITS,
    FLOATING_IP_LIMITS,
    GATEWAY_LIMITS,
    DSCP_MARKS,
    PORT_NAMES,
    METERING,
    TRUNKS,
    "post-copy",
    "further-disks",
    "guest-agent",
    DEVICE_TAGS,
    uneven_memory.FEATURE,
    *devices.ALL_FEATURES,
    LIVE_METADATA,
)
"""What simulated hosts offer."""


def require_devices(guest: Guest) -> None:
    """DriverError for a device that simulated hosts do not offer."""
    missing = devices.lacking(guest.devices, FEATURES)
    if missing is not None:
        raise DriverError(f"DEVICES: this host does not offer {missing}")


class SimulatedGuest(msgspec.Struct, kw_only=True):
    """A guest on one simulated host, as kept on that host's disk. `ran_us` counts across moves."""

    guest: Guest
    state: GuestState
    ran_us: int = 0
    running_since_us: int | None = None
    console_from_us: int = 0
    """`ran_us` when this host began to print its console."""
    incoming_peer: Peer | None = None
    """The source of the move by which it comes or came here: the only peer that it lets in."""
    incoming_complete: bool = False
    died_incoming: bool = False
    """Its process ended before a move had let it run. As with QEMU, its host does not know yet whose it is."""
    disk_whole: bool = False
    """Of an incoming guest whose memory has not come yet: its disk has, so that it could boot."""
    memory_at: str | None = None
    """In post-copy: the host that still has a part of its memory."""
    starved: bool = False
    """The rest of its memory will never come: the guest stands still at the first page that is missing."""
    rescue_image: Image | None = None
    """The image that it runs from while it is rescued."""
    rescued_by: Devices = USUAL
    """Its `rescue_bus` and `rescue_device`."""
    disks: dict[int, str] = msgspec.field(default_factory=dict)
    """By place of a further disk: its content, and where and when it was made. One that is made again is empty."""
    passwords: dict[str, str] = msgspec.field(default_factory=dict)
    """By user: SHA-256 of the password that its agent was told to set."""
    freezes: int = 0
    """How often its file systems were frozen and thawed for an image."""
    nmis: int = 0
    """How many NMIs it was sent. It ignores them."""
    told: Told | None = None
    """What its metadata service was told since its description was frozen."""
    posted: Posted | None = None
    """A password that it has posted and that is not on record yet."""
    paused_by_user: bool = False
    standing_by: bool = False

    @classmethod
    def stopped(cls, guest: Guest, made: str, disks: dict[int, str] | None = None) -> SimulatedGuest:
        """A guest with the further disks of its description. `disks`: those that it has already.

        Swap, and a disk that it does not have yet, are made; `made` says where and when.
        """
        kept = {place: found for place, found in (disks or {}).items() if not found.startswith(SWAP)}
        told = {
            disk.place: kept[disk.place] if disk.content != SWAP and disk.place in kept else f"{disk.content} {made}"
            for disk in guest.disks
        }
        return cls(guest=guest, state=GuestState.STOPPED, disks=told)

    def run(self, now_us: int) -> None:
        self.state = GuestState.RUNNING
        if self.running_since_us is None:
            self.running_since_us = now_us

    def halt(self, state: GuestState, now_us: int) -> None:
        self.state = state
        if state in NO_PROCESS:
            self.memory_at, self.starved = None, False
        if self.running_since_us is not None:
            self.ran_us += now_us - self.running_since_us
            self.running_since_us = None

    @property
    def incoming_from(self) -> str | None:
        return self.incoming_peer.host if self.incoming_peer is not None else None

    @property
    def linked(self) -> tuple[str, ...]:
        """Ids of the ports whose links are up: a process is plugged into them."""
        return () if self.state in NO_PROCESS else tuple(nic.port_id for nic in self.guest.nics)

    def report(self, *, copied: bool) -> GuestReport:
        return GuestReport(
            server_id=self.guest.server_id,
            state=self.state,
            generation=0,
            ports=tuple(nic.port_id for nic in self.guest.nics),
            rescued=self.rescue_image is not None,
            copied=copied,
            posted=self.posted.id if self.posted is not None else "",
        )

    def printed(self, now_us: int, max_bytes: int) -> bytes:
        """The last `max_bytes` of what it has printed on this host."""
        last = self.ran_until(now_us) * TICKS_PER_SECOND // 1_000_000
        first = max(self.console_from_us * TICKS_PER_SECOND // 1_000_000, last - max_bytes // 20)
        lines = [f"tick {n} {self.guest.server_id}" for n in range(first, last + 1)]
        head = [] if first else [f"Simulated guest {self.guest.name}: no real machine runs here."]
        return ("\n".join(head + lines) + "\n").encode()[-max_bytes:]

    def ran_until(self, now_us: int) -> int:
        return self.ran_us + (now_us - self.running_since_us if self.running_since_us is not None else 0)

    @property
    def dirty_rate_mib_s(self) -> float:
        return float(self.guest.extra_specs.get("cumulet:dirty_rate_mib_s", DEFAULT_DIRTY_RATE_MIB_S))
