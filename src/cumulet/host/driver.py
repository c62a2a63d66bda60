"""What a host can do: protocols that `drivers.simulated` and `drivers.qemu` implement, and verbs (`messages`) call.

Every verb is idempotent: asked twice, it does the work once and answers the same. A driver never decides who owns a
guest; it does what it is told and says what it observes. All sizes are in the unit of their name.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from cumulet.host.diagnostics import GuestCounters
from cumulet.host.disks import Disk, Rescue, Snapshots
from cumulet.host.guest_agent import GuestAgent
from cumulet.host.record import Record

if TYPE_CHECKING:
    from collections.abc import Collection

    from cumulet.host.endpoint import Endpoint, Peer
    from cumulet.host.traffic import Traffic
    from cumulet.host.wiring import InForce, Wiring


class GuestState(StrEnum):
    """What the hypervisor says about a guest, by asking it, never from memory."""

    RUNNING = "running"
    PAUSED = "paused"
    """Paused by a user; never a side of a migration."""
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
    """Where the guest sees it, from 0; None (in descriptions by older versions): its place in the list."""


class Image(Record, frozen=True, forbid_unknown_fields=False):
    """A boot image: what has the checksum `sha512` (hexadecimal). A host fetches it by that (`host.images`).

    Descriptions that were frozen by older versions also name a file: it is ignored.
    """

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
    """A frozen description: all that decides what the guest sees, so that a destination can be started alike."""

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
    """Base64, at most 65,535 characters. With `metadata`: the config drive of a guest that was described before there
    was `config_drive`."""
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    config_drive: tuple[DriveFile, ...] = ()
    """Empty: it has none."""
    extra_specs: dict[str, str] = msgspec.field(default_factory=dict)
    nic_slots: int = 0
    """Places for NICs that come and go while it runs: as the first host has frozen it."""
    screen: bool = False
    """It has a graphics adapter: as the first host has frozen it."""
    agent: bool = False
    """Its image says that QEMU's guest agent runs in it: it has a channel to that."""
    disks: tuple[Disk, ...] = ()
    """Ephemeral and swap disks, in the order of their places."""


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
    """e.g. ``post-copy``, ``networks``, ``local-disk``; ``public``: it leads to the physical network of that name;
    `wiring.BANDWIDTH_LIMITS`."""
    address: str
    """Where migrations to this host connect."""
    booted_at_us: int
    """Since when the machine runs; of a simulated host, since when its driver does."""
    session: str = ""
    """Which start of its agent this is: a message for an earlier start can be recognised (`messages.Welcome`)."""
    lease_seconds: float | None = None
    """How long this start of its agent may be unheard before its watchdog ends the guests; None: it has no watchdog."""
    lease_held: bool = False
    """Whether this start of its agent has such a lease now, and its watchdog lives: only then silence ends its guests.
    """
    version: str = ""
    """The version of its agent's Cumulet; empty for an agent that is too old to say it."""
    protocol: int = 1
    """`host.joining.PROTOCOL` of its agent."""


class GuestReport(Record, frozen=True):
    """One guest as observed."""

    server_id: str
    state: GuestState
    generation: int
    """Highest generation this host has accepted for the guest (0: none)."""
    step: int = 0
    """The last step of it."""
    ports: tuple[str, ...] | None = None
    """The ports of the NICs in its description here; None: the host does not say."""
    rescued: bool = False
    """It runs from a rescue image."""


class MigrationPhase(StrEnum):
    """Where a copy is, as the source's hypervisor says."""

    NONE = "none"
    DISK = "disk"
    SETUP = "setup"
    ACTIVE = "active"
    SWITCHOVER = "switchover"
    POST_COPY_READY = "post-copy-ready"
    """The guest stands still, its disk is whole at the destination, its memory waits for `begin_post_copy`."""
    POST_COPY = "post-copy"
    """The destination may run the guest; the memory it still lacks follows, first what it asks for."""
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
    """Output of a console session from `position` on. `ended`: why nothing follows."""

    position: int
    data: bytes
    ended: str | None = None


class DriverError(Exception):
    """A verb failed, with the hypervisor's own words. Says nothing about where the guest runs: observe."""


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
        """Make the host's network so: all of it, as often as asked. A host without the feature says that nothing is."""

    async def in_force(self) -> InForce:
        """What `wire` would answer, and changes nothing. Revision 0 where nobody has told this host anything yet."""

    async def traffic(self, port_ids: Collection[str]) -> Traffic:
        """What was dropped here, by cause, and what went through these ports. Nothing where no packets pass."""


class Life(Protocol):
    """The life of one guest on its host."""

    async def create(self, guest: Guest, *, run: bool = True) -> Guest:
        """Define, make the disk from the image, boot. Returns the frozen description (machine and CPU filled in).

        Without `run` it is left stopped, ready for `start`. A destination that was prepared for it earlier is replaced.
        """

    async def destroy(self, server_id: str) -> None:
        """Kill the process, remove disk, taps, sockets and description. Absent is success."""

    async def start(self, server_id: str, *, drop_saved: bool = False) -> None:
        """One that is suspended is refused; with `drop_saved` the memory that it has saved is dropped, and it boots."""

    async def stop(self, server_id: str, *, grace_seconds: float) -> None:
        """ACPI power button, then kill after the grace time."""

    async def reboot(self, server_id: str, *, hard: bool) -> None:
        """A suspended guest is refused; if `hard`, the memory that it has saved is dropped, and it boots."""

    async def pause(self, server_id: str) -> None: ...
    async def unpause(self, server_id: str) -> None: ...
    async def suspend(self, server_id: str) -> None:
        """Save memory to local storage and end the process; `resume` restores it."""

    async def resume(self, server_id: str) -> None: ...
    async def inject_nmi(self, server_id: str) -> None:
        """A non-maskable interrupt on every processor. A system that is set up for it then dumps its memory."""
        ...

    async def plug(self, server_id: str, nic: Nic) -> None:
        """Give the guest this NIC, a running one at once. There already is success. Its port's rules are in force."""

    async def unplug(self, server_id: str, port_id: str, *, insist: bool = True) -> None:
        """Take a NIC away: its link goes down, a running guest is asked to let go of it. Absent is success. Its
        description is without it in any case; with `insist` it is a DriverError if the guest keeps it."""


class Console(Protocol):
    """A guest's consoles: its serial line, which all who are on it share, and its screen, with a client each."""

    async def console_output(self, server_id: str, *, max_bytes: int) -> bytes:
        """The newest output of the serial console."""

    async def open_console(self, server_id: str, session: str) -> None:
        """Begin a session on the serial console of a guest that has a process. There already is success."""

    async def open_screen(self, server_id: str, session: str) -> None:
        """Begin a session on the screen of a guest that has a process and a screen. There already is success.

        Its bytes are RFB's (RFC 6143), from the server's first on; none of them is ever left out.
        """

    async def read_console(self, server_id: str, session: str, *, position: int, wait_seconds: float) -> Printed:
        """What a session of either kind has received from `position` on: as soon as there is something, and nothing
        if there is none within `wait_seconds`."""

    async def write_console(self, server_id: str, session: str, *, position: int, data: bytes) -> None:
        """Type, or speak as RFB's client. What lies before the bytes that this session has said already is left out."""

    async def close_console(self, server_id: str, session: str) -> None:
        """End a session. Absent is success."""


class Copy(Protocol):
    """A guest's way from one host to another: first what its destination does, then its source."""

    async def prepare_outgoing(self, server_id: str, *, move: str) -> Peer:
        """Source: be ready for `start_copy`. Answers what the destination must be told to know it by.

        Asked again for the same move, answers the same. Forgotten where no copy begins within some minutes. Whether
        the guest can be copied is not looked at.
        """
        ...

    async def prepare_incoming(self, guest: Guest, *, source: Peer, parameters: MigrationParameters) -> Endpoint:
        """Make disks, start the guest paused and listening, accepting TLS from `source` only.
        Asked again for the same guest, answers the same endpoint if it still listens. One that holds a guest's
        state, or receives it, is not thrown away: DriverError. Else it starts afresh."""

    async def resume_destination(self, server_id: str) -> None:
        """The commit is recorded: stop NBD, run the guest. Running already is success.

        In post-copy some of its memory is still at the source: `arrival` tells when all has come.
        """

    async def arrival(self, server_id: str) -> MigrationPhase:
        """How much of an incoming guest is here: COMPLETED, POST_COPY, FAILED where the rest of its memory does not
        come any more because the connection is lost, ACTIVE before that, NONE where no state was ever received."""

    async def recover_incoming(self, server_id: str) -> Endpoint:
        """In post-copy, when the connection is lost or brings nothing: cut it, and listen for the same source again."""

    async def give_up_memory(self, server_id: str) -> None:
        """After the commit, when the rest of its memory will never come: what is left is a stopped guest, its disk
        whole. A guest that has all of its memory, or is stopped, is left alone."""

    # -- the source's side

    async def start_copy(self, server_id: str, endpoint: Endpoint, parameters: MigrationParameters) -> None:
        """Begin copying disks then memory, for the move that `prepare_outgoing` named. Begun already is success."""
        ...

    async def copy_progress(self, server_id: str, *, wait_seconds: float, seen: MigrationPhase) -> MigrationProgress:
        """Progress; waits up to `wait_seconds` for the phase to differ from `seen`, answers at once then."""

    async def force_complete(self, server_id: str) -> None:
        """Post-copy where it was agreed on, else the guest stands still for as long as the rest takes.

        With post-copy the copy comes to POST_COPY_READY and waits there.
        """

    async def begin_post_copy(self, server_id: str) -> None:
        """The commit is recorded: let the state go that the destination needs to run, and the rest after it.

        Returns once the destination may be resumed. Begun already, or completed, is success.
        """

    async def recover_copy(self, server_id: str, endpoint: Endpoint) -> None:
        """In post-copy, when the connection is lost or brings nothing: cut it, and send the rest to `endpoint`. One
        that has completed is success."""

    async def cancel_copy(self, server_id: str) -> MigrationProgress:
        """Cancel (yank where the main loop hangs) and wait until the copy has ended; answers what was observed then:
        COMPLETED if it was too late. Does not resume a HANDED_OVER guest."""

    async def resume_source(self, server_id: str) -> None:
        """The move is aborted: the guest runs on here. Running already is success; a paused one stays paused."""

    # -- a stopped guest stands by, is copied like one that lives, and is taken in

    async def stand_by(self, server_id: str) -> None:
        """Source: make a stopped guest copyable (`start_copy`) without letting it run. Standing by is success."""

    async def stand_down(self, server_id: str) -> None:
        """Source: a guest that stands by, copied or not, is stopped again, with its disk. Any other: nothing."""

    async def take_in(self, guest: Guest) -> None:
        """Destination: what a completed copy has brought is a stopped guest of this host, of the size `guest` says.

        Its disks grow to that size; swap is made anew, and so is a further disk that did not come with it."""


class Driver(Sight, Wired, Life, Console, Copy, Snapshots, Rescue, GuestAgent, Protocol):
    """A host's hypervisor. What it cannot do it leaves out of `HostFacts.features`."""

    async def close(self) -> None:
        """Let go of guests without stopping them."""
