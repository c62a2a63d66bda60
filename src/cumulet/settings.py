"""What a cloud is started with. Few, typed, each used; read once at start, never changed while running."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

PUBLIC_URL = r"\Ahttps://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?\Z"


class HostNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """Where a host of this machine is reached by those that move guests to it."""

    address: str = "127.0.0.1"
    namespace: str | None = None
    """The network namespace, as `ip netns` names it, that its agent and its guests live in; None: this process's."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a cloud, with their units in their names."""

    state_dir: Path
    database_url: str
    listen_address: str = "127.0.0.1"
    listen_port: int = 8774
    public_url: Annotated[str, msgspec.Meta(pattern=PUBLIC_URL)] | None = None
    """``https://NAME[:PORT]`` by which clients reach this cloud: the beginning of every link, whatever a client's Host
    header says. Without it links begin with the address a request came to."""
    connections: int = 1000
    """Of all clients; where there are more, one that asks for nothing is dropped."""
    connections_per_address: int = 200
    """Of one IPv4 address or one IPv6 /64."""
    driver: Literal["simulated", "qemu"] = "simulated"
    host_names: tuple[str, ...] = ("host1", "host2")
    host_networks: Mapping[str, HostNetwork] = {}
    """By host; those not named are reached on the loopback address. Only hosts with real guests have one."""
    region: str = "RegionOne"
    bare: bool = False
    policy_file: Path | None = None
    token_life_seconds: int = 3600
    argon2_memory_kib: int = 19_456
    login_failures_per_minute: int = 10
    """Of one user at one address (IPv6: one /64)."""
    login_failures_per_minute_everywhere: int = 100
    """Of one user at all addresses together, but for those where the user has logged in."""
    host_silent_seconds: float = 10.0
    lease_seconds: float = 10.0
    fence_silent_hosts: bool = False
    """Whether each host has a watchdog that stops its guests once it has not been heard for `lease_seconds`: then a
    silent host's servers may be evacuated. Off in a cloud of one machine: hosts and control plane die together."""
    restart_servers_of_lost_hosts: bool = False
    """Whether servers that ran on a host that is lost for certain (see `fence_silent_hosts`; or forced down) start on
    another one by themselves, from their images."""
    resize_confirm_seconds: int = 0
    """After so long a resize that nobody confirmed or reverted is confirmed; 0: never, as Nova's default."""
    migration_bandwidth_mib_s: int = 1024
    migration_downtime_limit_ms: int = 300
    migration_progress_timeout_seconds: float = 30.0
    migration_timeout_seconds_per_gib: float = 120.0
    migration_timeout_action: Literal["abort", "force_complete"] = "abort"
    """What becomes of a live migration that has not ended by then; forced, it has as long again before it is aborted.
    As Nova's `live_migration_timeout_action`."""
    simulated_speed: float = 100.0
    """Virtual seconds per second for simulated hosts' work."""
    simulated_vcpus: int = 64
    simulated_memory_mib: int = 262_144
    simulated_disk_gib: int = 4096
    cpu_allocation_ratio: float = 4.0
    ram_allocation_ratio: float = 1.0
    disk_allocation_ratio: float = 1.0
    free_space_floor_mib: int = 1024
    """What images, caches and guests' disks leave free on their file systems, for the cloud's own records; at most a
    tenth of the file system. Where but a quarter of it is left, members may only delete."""
    history_days: int = 90
    """How long is kept what has ended: operations, migrations, actions of servers; records of what was deleted."""
    history_rows: int = 100_000
    """Of each of these kinds, so many are kept, the newest."""
    history_rows_per_server: int = 1000
    """Actions of one server that are kept, the newest."""
    largest_page: int = 1000
    """Rows of a list in one answer, of every service at every version. As Nova's `max_limit`."""
    image_size_limit_gib: int = 64
    """Largest upload."""
    image_virtual_size_limit_gib: int = 1024
    """Largest disk an image may unfold to."""
    image_project_quota_gib: int = 512
    """What one project's images may take up in the store, uploads under way included."""
    images_per_project: int = 200
    """With data or without."""
