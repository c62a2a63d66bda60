"""What a server is: the few facts that are stored, and the many that are derived from them."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class VmState(StrEnum):
    """Nova's vm_state (stored: it is what users asked for and what was last reached)."""

    BUILDING = "building"
    ACTIVE = "active"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    RESIZED = "resized"
    RESCUED = "rescued"
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    ERROR = "error"
    DELETED = "deleted"


class PowerState(StrEnum):
    """Nova's power_state, as last observed; numbers as in the API reference (0, 1, 3, 4, 6, 7)."""

    NOSTATE = "nostate"
    RUNNING = "running"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    SUSPENDED = "suspended"

    @property
    def number(self) -> int:
        return {"nostate": 0, "running": 1, "paused": 3, "shutdown": 4, "crashed": 6, "suspended": 7}[self.value]


class Flavor(msgspec.Struct, frozen=True, kw_only=True):
    """A flavor as embedded in a server: what it was when the server was created."""

    flavor_id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    ephemeral_gib: int
    swap_mib: int
    rxtx_factor: float
    is_public: bool
    disabled: bool
    description: str | None
    extra_specs: dict[str, str]


SHELVED_IMAGE, RESCUE_IMAGE = "shelved_image_id", "rescue_image_id"
"""Keys of a server's system metadata: the images that it is unshelved from, and rescued with."""
BASE_IMAGE = "base_image_ref"
"""Likewise, of a server that was made from a snapshot: the image that this goes back to."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `servers` (tags are rows of their own). Change one with `compute.store`, never by hand."""

    id: str
    project_id: str
    user_id: str
    name: str
    hostname: str
    description: str | None
    reservation_id: str
    launch_index: int
    flavor: Flavor
    image_id: str | None
    image_properties: dict[str, str]
    key_name: str | None
    public_key: str | None
    key_type: str | None
    """``ssh`` or ``x509``."""
    user_data: str | None
    config_drive: bool
    metadata: dict[str, str]
    system_metadata: dict[str, str]
    availability_zone: str
    requested_zone: str | None
    pinned_host: str | None
    scheduler_hints: dict[str, object]
    disk_config: str
    access_ipv4: str | None
    access_ipv6: str | None
    host: str | None
    """The owner: changed in exactly one statement per move (`compute.store.change_owner`)."""
    launched_on: str | None
    generation: int
    """Counts ownership decisions; every command to an agent carries it, lower ones are refused."""
    guest: dict[str, object] | None
    """The frozen `host.driver.Guest` description, as made by the first host."""
    guest_secrets: dict[str, str] | None
    """What only the guest is told: `admin_password`, and the `seed` of its random numbers. None once it is deleted."""
    vm_state: VmState
    task_state: str | None
    power_state: PowerState
    progress: int
    locked: bool
    locked_by: str | None
    locked_reason: str | None
    fault_code: int | None
    fault_message: str | None
    fault_details: str | None
    fault_at_us: int | None
    created_at_us: int
    updated_at_us: int
    launched_at_us: int | None
    terminated_at_us: int | None
    deleted_at_us: int | None
    revision: int
