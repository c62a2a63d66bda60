"""What a host can do: protocols that `drivers.simulated` and `drivers.qemu` implement, and verbs (`messages`) call.

Every verb is idempotent: asked twice, it does the work once and answers the same. A driver never decides who owns a
guest; it does what it is told and says what it observes. All sizes are in the unit of their name.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from cumulet.host.devices import USUAL, Devices
from cumulet.host.diagnostics import GuestCounters
from cumulet.host.disks import Disk, Rescue, Snapshots
from cumulet.host.guest_agent import GuestAgent
from cumulet.host.record import Record
from cumulet.host.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Collection

    from cumulet.host.endpoint import Endpoint, Peer
    from cumulet.host.traffic import Traffic
    from cumulet.host.wiring import InForce, Wiring


class GuestState(StrEnum):
    """A guest's state, as the hypervisor says when it is asked."""

    RUNNING = "running"
    PAUSED = "paused"
    """Paused by a user; not part of a migration."""
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    """Defined here, with its disk, no process (or the guest powered itself off)."""
    INCOMING = "incoming"
    """A destination: waits for, or holds, state that is not yet allowed to run."""
    HANDED_OVER = "handed-over"
    """A source after `completed`: paused, its state sent; may be brought back with `resume_source`."""
    CRASHED = "crashed"
    ABSENT = "absent"


class Nic(Record, frozen=True):
    """A port to plug. `mac` as aa:bb:cc:dd:ee:ff, addresses with their prefix (``10.0.0.5/24``)."""

    port_id: str
    network_id: str
    mac: str
    addresses: tuple[str, ...] = ()
    slot: int | None = None
    """The place at which the guest sees it, from 0; None in descriptions of older versions: its index in the list."""
    tag: str = ""
    """The user's, of a port that was attached later; the config drive has those of the others. Only told to hosts that
    offer `nics.DEVICE_TAGS`."""


class Image(Record, frozen=True, forbid_unknown_fields=False):
    """A boot image. By its checksum, `sha512` (hexadecimal), a host fetches it (`host.images`). A file that older
    versions named is ignored."""

    id: str
    disk_format: str
    size_bytes: int
    virtual_size_bytes: int
    sha512: str


class DriveFile(Record, frozen=True):
    """A file of a config drive, which may be found at several paths (``openstack/latest/meta_data.json``)."""

    paths: tuple[str, ...]
    content: bytes


class Guest(Record, frozen=True):
    """A frozen description of all that the guest sees, so that a destination can make the same machine."""

    server_id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    image: Image | None
    nics: tuple[Nic, ...] = ()
    machine_type: str = ""
    """Versioned, e.g. ``pc-q35-7.2``; filled by the first host from its own best, frozen afterwards."""
    cpu_model: str = ""
    user_data: str | None = None
    """Base64. With `metadata` it makes the config drive of guests of older versions, which have no `config_drive`."""
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    config_drive: tuple[DriveFile, ...] = ()
    """Empty: the guest has no drive."""
    extra_specs: dict[str, str] = msgspec.field(default_factory=dict)
    nic_slots: int = 0
    """Slots for NICs that are plugged and unplugged while it runs; frozen by the first host."""
    screen: bool = False
    """It has a graphics adapter; frozen by the first host."""
    agent: bool = False
    """It has a channel to QEMU's guest agent, which runs in it, as its image says."""
    disks: tuple[Disk, ...] = ()
    """Ephemeral and swap disks, in the order of their places."""
    devices: Devices = USUAL
    uneven_memory: bool = False
    """It has a little more than `memory_mib` (`host.uneven_memory`); frozen by the first host."""


class HostFacts(Record, frozen=True):
    """What a host offers, reported at every connection; placement's inventory and compatibility checks come from it."""

    name: str
    driver: str
    hypervisor_type: str
    hypervisor_version: int
    """As libvirt counts: major * 1,000,000 + minor * 1,000 + micro."""
    vcpus: int
    memory_mib: int
    disk_gib: int
    cpu_models: tuple[str, ...]
    machine_types: tuple[str, ...]
    features: tuple[str, ...]
    """e.g. ``post-copy``, ``networks``; ``public``: it leads to that physical network; `devices.ALL_FEATURES`."""
    address: str
    """Where migrations to this host connect."""
    booted_at_us: int
    """When the machine was started; of a simulated host, when its driver was."""
    session: str = ""
    """Names this start of its agent, so that a message for an earlier start is recognised (`messages.Welcome`)."""
    lease_seconds: float | None = None
    """How long this start of its agent may be unheard before its watchdog ends the guests; None: it has no watchdog."""
    lease_held: bool = False
    """Whether this start of its agent has a lease now and its watchdog lives: only then its guests end in silence."""
    version: str = ""
    """The version of its agent's Cumulet; empty for agents that are too old to tell it."""
    protocol: int = 1
    """`host.joining.PROTOCOL` of its agent."""


class GuestReport(Record, frozen=True):
    """One guest as observed."""

    server_id: str
    state: GuestState
    generation: int
    """Highest generation this host has accepted for the guest (0: none)."""
    step: int = 0
    """The last step of that generation."""
    ports: tuple[str, ...] | None = None
    """The ports of the NICs in its description here; None: the host does not say."""
    rescued: bool = False
    """It runs from a rescue image."""
    copied: bool = False
    """It is the source of a copy that has not ended, so its power and its devices cannot be changed."""
    posted: str = ""
    """`telling.Posted.id` of a password that waits to be recorded."""


class MigrationPhase(StrEnum):
    """The phase of a copy, as the source's hypervisor says."""

    NONE = "none"
    DISK = "disk"
    SETUP = "setup"
    ACTIVE = "active"
    SWITCHOVER = "switchover"
    POST_COPY_READY = "post-copy-ready"
    """The guest stands still, its disk is whole at the destination, its memory waits for `begin_post_copy`."""
    POST_COPY = "post-copy"
    """The destination may run the guest. The rest of its memory follows, first the pages that it asks for."""
    COMPLETED = "completed"
    """All state has left; the source is paused (`GuestState.HANDED_OVER`), the destination holds it, nobody runs."""
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self is MigrationPhase.COMPLETED or self.failed

    @property
    def failed(self) -> bool:
        """It failed, was cancelled, or the source knows of no copy."""
        return self in (MigrationPhase.FAILED, MigrationPhase.CANCELLED, MigrationPhase.NONE)


class MigrationProgress(Record, frozen=True):
    """Progress of a copy, observed. Bytes unless named otherwise."""

    phase: MigrationPhase
    error: str | None = None
    memory_total: int = 0
    memory_processed: int = 0
    memory_remaining: int = 0
    disk_total: int = 0
    disk_processed: int = 0
    disk_remaining: int = 0
    rate_bytes_s: float = 0.0
    dirty_rate_bytes_s: float = 0.0
    rounds: int = 0
    downtime_ms: int | None = None
    elapsed_ms: int = 0


class MigrationParameters(Record, frozen=True):
    """How to copy."""

    bandwidth_mib_s: int
    downtime_limit_ms: int
    copy_disk: bool
    post_copy: bool = False
    paused: bool = False
    """The guest's user has paused it: it stays paused after the move."""


class Printed(Record, frozen=True):
    """Output of a console session from `position` on. `ended`: the reason why nothing follows, or None."""

    position: int
    data: bytes
    ended: str | None = None


class DriverError(Exception):
    """A verb failed, with the hypervisor's own words. Where the guest runs is unknown until it is observed."""


class Sight(Protocol):
    """What a hypervisor says of itself and of its guests."""

    async def facts(self) -> HostFacts: ...

    async def guests(self) -> list[GuestReport]:
        """All guests this host knows of in any state, by asking each hypervisor process. `generation` may be 0 here."""

    async def observe(self, server_id: str) -> GuestState: ...

    async def diagnostics(self, server_id: str) -> GuestCounters: ...


class Wired(Protocol):
    """The network of a host, for all of its guests."""

    async def wire(self, wiring: Wiring) -> InForce:
        """Bring the host's network to this wiring. A host that wires no guests answers that nothing is done."""

    async def in_force(self) -> InForce:
        """The answer of `wire`, without a change. Revision 0 if this host was told no wiring yet."""

    async def traffic(self, port_ids: Collection[str]) -> Traffic:
        """Packets that were dropped here, by cause, and that went through these ports. Empty on simulated hosts."""


class Life(Protocol):
    """The life of one guest on its host."""

    async def create(self, guest: Guest, *, run: bool = True) -> Guest:
        """Define, make the disk from the image, boot. Returns the frozen description (machine and CPU filled in).

        Without `run` it is left stopped, ready for `start`. A destination that was prepared for it earlier is replaced.
        """

    async def destroy(self, server_id: str) -> None:
        """Kill the process, remove disk, taps, sockets and description. Absent is success."""

    async def start(self, server_id: str, *, drop_saved: bool = False) -> None:
        """Start a stopped guest. A suspended one is refused; with `drop_saved` it drops its saved memory and boots."""

    async def stop(self, server_id: str, *, grace_seconds: float) -> None:
        """ACPI power button, then kill after the grace time."""

    async def reboot(self, server_id: str, *, hard: bool) -> None:
        """Reboot. A suspended guest is refused; if `hard`, its saved memory is dropped, and it boots."""

    async def pause(self, server_id: str) -> None: ...
    async def unpause(self, server_id: str) -> None: ...
    async def suspend(self, server_id: str) -> None:
        """Save memory to local storage and end the process; `resume` restores it."""

    async def resume(self, server_id: str) -> None: ...
    async def inject_nmi(self, server_id: str) -> None:
        """Send a non-maskable interrupt to every processor. A system that is set up for it dumps its memory."""

    async def plug(self, server_id: str, nic: Nic) -> None:
        """Give the guest this NIC, a running one at once. There already is success. Its port's rules are in force."""

    async def unplug(self, server_id: str, port_id: str, *, insist: bool = True) -> None:
        """Take a NIC away: its link goes down, and a running guest is asked to release it. Absent is success.

        The guest's description has it no more. DriverError, with `insist`, if the guest does not release it, or cannot.
        """


class Console(Protocol):
    """A guest's consoles: its serial line, which all sessions share, and its screen, with one client per session."""

    async def console_output(self, server_id: str, *, max_bytes: int) -> bytes:
        """The newest output of the serial console."""

    async def open_console(self, server_id: str, session: str) -> None:
        """Begin a session on the serial console of a guest with a process. Begun already is success."""

    async def open_screen(self, server_id: str, session: str) -> None:
        """Begin a session on the screen of a guest with a process and a screen. Begun already is success.

        Its bytes are RFB's (RFC 6143), from the server's first on; none of them is ever left out.
        """

    async def read_console(self, server_id: str, session: str, *, position: int, wait_seconds: float) -> Printed:
        """Output of a session of either kind from `position` on. It waits for some up to `wait_seconds`."""

    async def write_console(self, server_id: str, session: str, *, position: int, data: bytes) -> None:
        """Input of a session: keys, or RFB as its client. Bytes that this session has sent already are left out."""

    async def close_console(self, server_id: str, session: str) -> None:
        """End a session. Absent is success."""


class Copy(Protocol):
    """The copy of a guest from one host to another: verbs of its destination first, then of its source."""

    async def prepare_outgoing(self, server_id: str, *, move: str) -> Peer:
        """Source: prepare for `start_copy`. Answers what the destination must know to authenticate this source.

        Asked again for the same move, it answers the same. It is forgotten if no copy begins within some minutes. It is
        not checked whether the guest can be copied."""

    async def prepare_incoming(self, guest: Guest, *, source: Peer, parameters: MigrationParameters) -> Endpoint:
        """Make disks, start the guest paused and listening, accepting TLS from `source` only.
        Asked again for the same guest, answers the same endpoint if it still listens. One that holds a guest's
        state, or receives it, is not thrown away: DriverError. Else it starts afresh."""

    async def resume_destination(self, server_id: str) -> None:
        """The commit is recorded: stop NBD, run the guest. Running already is success.

        In post-copy some of its memory is still at the source: `arrival` tells when all has come.
        """

    async def arrival(self, server_id: str) -> MigrationPhase:
        """How much of an incoming guest is here: NONE if no state was received, ACTIVE while it comes, POST_COPY,
        COMPLETED, or FAILED if the connection is lost, so that the rest of its memory does not come."""

    async def recover_incoming(self, server_id: str) -> Endpoint:
        """In post-copy, if the connection is lost or brings nothing: cut it and listen for the same source again."""

    async def give_up_memory(self, server_id: str) -> None:
        """After the commit, if the rest of its memory will never come: make it a stopped guest; its disk is whole. A
        guest that has all of its memory, or is stopped, is left alone."""

    # -- the source's side

    async def start_copy(self, server_id: str, endpoint: Endpoint, parameters: MigrationParameters) -> None:
        """Begin copying disks then memory, for the move that `prepare_outgoing` named. Begun already is success."""
        ...

    async def copy_progress(self, server_id: str, *, wait_seconds: float, seen: MigrationPhase) -> MigrationProgress:
        """Progress. It waits up to `wait_seconds` for the phase to differ from `seen`."""

    async def force_complete(self, server_id: str) -> None:
        """Switch to post-copy if both sides are prepared; else the guest stands still while the rest is sent.

        With post-copy the copy comes to POST_COPY_READY and waits there.
        """

    async def begin_post_copy(self, server_id: str) -> None:
        """The commit is recorded: send the state that the destination needs to run, and then the rest.

        Returns once the destination may be resumed. Begun already, or completed, is success.
        """

    async def recover_copy(self, server_id: str, endpoint: Endpoint) -> None:
        """In post-copy, if the connection is lost or brings nothing: cut it and send the rest to `endpoint`. Completed
        already is success."""

    async def cancel_copy(self, server_id: str) -> MigrationProgress:
        """Cancel the copy (with a yank if the main loop hangs) and wait until it has ended. Answers its progress, which
        is COMPLETED if it was too late. A HANDED_OVER guest is not resumed."""

    async def resume_source(self, server_id: str) -> None:
        """The move is aborted: the guest runs on here. Running already is success; a paused one stays paused."""

    # -- a stopped guest stands by, is copied like one that lives, and is taken in

    async def stand_by(self, server_id: str) -> None:
        """Source: make a stopped guest copyable (`start_copy`) without letting it run. Standing by is success."""

    async def stand_down(self, server_id: str) -> None:
        """Source: a guest that stands by, copied or not, is stopped again, with its disk. Any other: nothing."""

    async def take_in(self, guest: Guest) -> None:
        """Destination: make what a completed copy has brought a stopped guest of this host, as `guest` describes it.

        Its disks grow to that size; swap is made anew, and so is a further disk that did not come with it."""


class Driver(Sight, Wired, Life, Console, Copy, Snapshots, Rescue, GuestAgent, Telling, Protocol):
    """A host's hypervisor. `HostFacts.features` has what it can do."""

    async def close(self) -> None:
        """Let go of guests without stopping them."""
