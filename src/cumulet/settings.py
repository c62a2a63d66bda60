"""What a cloud is started with. Few, typed, each used; read once at start, never changed while running."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

PUBLIC_URL = r"\Ahttps://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?\Z"

BUS_URL = r"\A(nats://[A-Za-z0-9.:\[\]-]{1,260}(,(?=nats))?){1,16}\Z"

_WEB_HOST = r"(\*|(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*)"
WEB_HOSTS = rf"\A( *{_WEB_HOST} *(, *{_WEB_HOST} *)*)?\Z"

# Every number has an upper bound: beyond it, what is computed from it would fail later, where nobody reads of it.
MOST_DAYS = 36_500
MOST_SECONDS = MOST_DAYS * 86_400

Number = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
NumberOrNone = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Rows = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Days = Annotated[int, msgspec.Meta(ge=1, le=MOST_DAYS)]
DaysOrNone = Annotated[int, msgspec.Meta(ge=0, le=MOST_DAYS)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=MOST_SECONDS)]
SecondsOrNone = Annotated[int, msgspec.Meta(ge=0, le=MOST_SECONDS)]
Wait = Annotated[float, msgspec.Meta(gt=0, le=7 * 86_400)]
Gib = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
GibOrNone = Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
MibOrNone = Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]
MibPerSecond = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Ratio = Annotated[float, msgspec.Meta(gt=0, le=10_000)]


class HostNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """The address of a host of this machine for guests that move to it."""

    address: str = "127.0.0.1"
    namespace: str | None = None
    """The network namespace of its agent and its guests, by its name in `ip netns`; None: this process's."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a cloud, with units in their names. `cumulet settings` shows the docstring below each."""

    state_dir: Path
    """The folder that all state is kept in. Option `--state`."""
    database_url: str
    """``postgresql://USER:PASSWORD@HOST/NAME`` or ``sqlite:///FILE``; default: SQLite in the state folder."""
    listen_address: str = "127.0.0.1"
    """The address where HTTPS is served. Option `--listen`."""
    listen_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8774
    """The port where HTTPS is served; 0 picks a free one."""
    hosts_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8775
    """The port where machines join and their agents fetch images, on the same address. Nothing listens there before
    `cumulet host add`. 0 picks a free one."""
    bus: Annotated[str, msgspec.Meta(pattern=BUS_URL)] | None = None
    """``nats://ADDRESS:PORT``, several with commas between: your own NATS for hosts on other machines. Default: the
    cloud starts its own server at the first `cumulet host add`. Option `--bus`."""
    bus_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 4222
    """The port of the cloud's own NATS, on the same address; 0 picks a free one."""
    public_url: Annotated[str, msgspec.Meta(pattern=PUBLIC_URL)] | None = None
    """``https://NAME[:PORT]`` by which clients reach this cloud: the beginning of every link, whatever a client's Host
    header says. Without it links begin with the address a request came to."""
    connections: Number = 1000
    """Connections of all clients. If there are more, one that asks for nothing is dropped."""
    connections_per_address: Number = 200
    """Connections of one IPv4 address or one IPv6 /64."""
    tls_certificate_file: Path | None = None
    """A certificate of your own for HTTPS, with its chain, as PEM; default: one from the cloud's own authority."""
    tls_key_file: Path | None = None
    """Its private key, as PEM, readable by the cloud's user only."""
    tls_authority_file: Path | None = None
    """The authority of your certificate, which clouds.yaml names for clients; default: the system's authorities."""
    driver: Literal["simulated", "qemu"] = "simulated"
    """What hosts run."""
    host_names: tuple[str, ...] = ("host1", "host2")
    """The hosts' names."""
    host_networks: Mapping[str, HostNetwork] = {}
    """By host, ADDRESS or ADDRESS@NAMESPACE that receives guests moving to it; hosts not named have the loopback
    address. Only hosts with real guests have one."""
    region: str = "RegionOne"
    """The region's name in the catalog."""
    bare: bool = False
    """Seed no flavors, image and networks at first start."""
    machine_on_public: bool = True
    """Whether this machine gets the address of the gateway of `public`, so that it reaches floating IPs. Counts where
    the cloud makes the hosts' networks itself (as root)."""
    public_interface: str | None = None
    """An interface that leads to `public`: one of this machine, which then has no address on `public` itself; with
    `--host-network`, one of each host's namespace."""
    global_physnet_mtu: Annotated[int, msgspec.Meta(ge=1330, le=65535)] = 1500
    """Bytes of the largest packet that the wire between hosts carries. It is the largest MTU of flat and VLAN networks;
    VXLAN takes 50 bytes of it. Networks that exist keep theirs. As Neutron's setting of this name."""
    rootless_networks: bool = True
    """Whether real guests have networks if the cloud is started without root: in namespaces of the user, which end with
    the cloud, as the guests do. Otherwise they have none."""
    leave_guests: bool = False
    """Whether real guests go on when the cloud stops; the next start finds them again. Default: only if the cloud runs
    as a service (under systemd, with `Type=notify`)."""
    resume_guests_state_on_host_boot: bool = True
    """Whether servers that ran when the machine or the cloud was stopped are started when their host is back. As Nova's
    setting of this name, which is off by default; when off, such servers are SHUTOFF."""
    policy_file: Path | None = None
    """Policy rules that differ from the defaults, as oslo.policy reads them."""
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    """The lowest level that is logged; default: info, on a terminal warning."""
    log_file: Path | None = None
    """The file of the log, rotated, of 576 MiB at most; default: standard error."""
    log_format: Literal["json", "text"] | None = None
    """One JSON object a line, or a line for people; default: text on a terminal, else json."""
    token_life_seconds: Seconds = 3600
    """How long a token is good."""
    argon2_memory_kib: Annotated[int, msgspec.Meta(ge=8, le=1 << 20)] = 19_456
    """Memory for hashing a password. More makes passwords of a stolen database harder to guess, and logins slower."""
    login_failures_per_minute: Number = 10
    """Wrong passwords of one user at one address (IPv6: one /64) before further attempts must wait."""
    login_failures_per_minute_everywhere: Number = 100
    """The same for all addresses together, except those where the user has logged in."""
    password_expires_days: DaysOrNone = 0
    """How many days a password is good, if it is set from now on; 0: for ever. Then its user has to change it. As
    Keystone's setting of this name."""
    change_password_upon_first_use: bool = False
    """Whether a password that an administrator sets has to be changed before it is good for anything else. As
    Keystone's setting of this name."""
    password_history: Annotated[int, msgspec.Meta(ge=0, le=24)] = 0
    """A new password must differ from so many last passwords of its user, the present one included; 0: it may be any.
    As Keystone's `unique_last_password_count`."""
    password_minimum_age_days: DaysOrNone = 0
    """For how many days users must keep a password before they change it again; 0: not at all. As Keystone's
    `minimum_password_age`."""
    password_regex: str = ""
    """A regular expression of Python that new passwords must match from their first character on; empty: none. One that
    takes long for some passwords holds up the whole cloud. As Keystone's setting of this name."""
    password_regex_description: str = ""
    """What `password_regex` asks for, in words: who sets a password that does not match is told this. Everybody may
    read both. As Keystone's setting of this name."""
    lockout_failures: NumberOrNone = 0
    """After so many wrong passwords, from any address, a user is locked: no password is right for `lockout_seconds`. 0:
    never, because anybody could lock others out. As Keystone's `lockout_failure_attempts`."""
    lockout_seconds: Seconds = 1800
    """How long a user stays locked after the last wrong password, unless an administrator sets `enabled`."""
    disable_user_account_days_inactive: DaysOrNone = 0
    """A user whose password was last right so many days ago counts as disabled, until an administrator sets `enabled`;
    0: never. Administrators too: exempt one by `ignore_user_inactivity` first. As Keystone's setting of this name."""
    host_silent_seconds: Wait = 10.0
    """A host that has not answered for so long is shown as down. Hosts are asked four times in this time."""
    lease_seconds: Wait = 10.0
    """How long the lease of a conductor on its operations lasts."""
    host_lease_seconds: Wait = 30.0
    """How long the lease of a host with a watchdog lasts. At least twice `lease_seconds` and `host_silent_seconds`
    together, so that it is renewed in time by another conductor when one dies."""
    fence_silent_hosts: bool = False
    """Whether each host has a watchdog that stops its guests when the control plane has not heard from it for
    `host_lease_seconds`. Then a silent host's servers may be evacuated. Off in a cloud of one machine, where hosts and
    control plane fail together."""
    restart_servers_of_lost_hosts: bool = False
    """Whether servers of a host that is lost for certain (see `fence_silent_hosts`; or forced down) are started on
    other hosts automatically, from their images."""
    keep_unknown_guests: bool = False
    """Whether guests of servers that are in no record are left alone and only reported. For the first start after a
    restore: such guests came after the backup."""
    dhcp_domain: str = ""
    """The domain of the host names that guests are told, as Nova's `dhcp_domain`; empty: the names as the API shows
    them."""
    resize_confirm_seconds: SecondsOrNone = 0
    """After so long, a resize that was neither confirmed nor reverted is confirmed; 0: never, as Nova's default."""
    shelved_offload_time: Annotated[int, msgspec.Meta(ge=-1, le=MOST_SECONDS)] = 0
    """For how many seconds a shelved server stays on its host, stopped, and keeps its share; 0: it leaves at once; -1:
    it stays until `shelveOffload`. As Nova's setting of this name."""
    migration_bandwidth_mib_s: MibPerSecond = 1024
    """The network bandwidth that a live migration may take."""
    migration_downtime_limit_ms: Annotated[int, msgspec.Meta(ge=1, le=2_000_000)] = 300
    """How long a guest may stand still at the end of a live migration; QEMU aims at this. With KVM it aims at less
    first."""
    migration_progress_timeout_seconds: Wait = 30.0
    """A live migration without progress for so long is aborted."""
    migration_timeout_seconds_per_gib: Wait = 120.0
    """How long a live migration may take, for each GiB of memory and disk."""
    migration_timeout_action: Literal["abort", "force_complete"] = "abort"
    """What happens to a live migration that takes longer. If it is forced, it has the same time again before it is
    aborted. As Nova's `live_migration_timeout_action`."""
    guest_uids: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{4,9}-[0-9]{4,9}\Z")] = "70000-73999"
    """``FIRST-LAST``: user ids of real guests, one for each guest, if the cloud is started as root."""
    simulated_speed: Annotated[float, msgspec.Meta(gt=0, le=1_000_000_000)] = 100.0
    """Virtual seconds per second for simulated hosts' work."""
    simulated_vcpus: Number = 64
    """Processors of each simulated host."""
    simulated_memory_mib: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] = 262_144
    """Memory of each simulated host."""
    simulated_disk_gib: Gib = 4096
    """Disk of each simulated host."""
    cpu_allocation_ratio: Ratio = 4.0
    """Virtual processors for each processor of a host, as Nova's setting of this name."""
    ram_allocation_ratio: Ratio = 1.0
    """Guests' memory for a host's memory."""
    disk_allocation_ratio: Ratio = 1.0
    """Guests' disks for a host's disk."""
    free_space_floor_mib: MibOrNone = 1024
    """The space that images, caches and guests' disks leave free on their file systems for the cloud's own records; at
    most a tenth of the file system. If only a quarter of it is left, members may read and delete only."""
    image_cache_gib: GibOrNone = 64
    """The space of the images that a host keeps; those not used for longest are removed first. For a machine that
    joined, this and the next three are set by `cumulet agent --set`."""
    image_cache_days: Days = 30
    """An image that no guest of a host was made from for so many days is removed from that host."""
    disk_mib_per_second: MibPerSecond = 512
    """What one real guest may read and write on all its disks. A change counts for guests that start or move later."""
    disk_requests_per_second: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] = 20_000
    """Requests of one real guest to all its disks. Copies of a move are not slowed by either limit."""
    history_days: Days = 90
    """How long records are kept: ended operations, migrations and actions of servers, and what was deleted."""
    history_rows: Rows = 100_000
    """So many records of each of these kinds are kept, the newest."""
    history_rows_per_server: Rows = 1000
    """So many actions of one server are kept, the newest."""
    largest_page: Number = 1000
    """The most rows of a list in one answer, of every service at every version. As Nova's `max_limit`."""
    image_size_limit_gib: Gib = 64
    """The largest upload."""
    image_virtual_size_limit_gib: Gib = 1024
    """The largest disk that an image may describe."""
    image_project_quota_gib: Gib = 512
    """The space of one project's images in the store, uploads under way included."""
    upload_least_kib_per_second: NumberOrNone = 16
    """An upload of an image that is a minute behind this rate ends; 0: only one that sends nothing for a minute."""
    images_per_project: Number = 200
    """Images of one project, with data or without."""
    web_download_hosts: Annotated[str, msgspec.Meta(pattern=WEB_HOSTS)] = ""
    """`HOST`, `*.DOMAIN` or `*`, several with commas between: hosts of the Internet that images may be imported from
    (`web-download`). `*` is every one with a public address, other machines of this cloud among them. Empty: none."""
    image_conversion_output_format: Literal["raw", "qcow2"] | None = None
    """The disk format of imported images: raw data is converted to qcow2, or qcow2 to raw, and other data stays as it
    comes. Machines with a conductor need `qemu-img`. Default: no conversion. As Glance's `[image_conversion]
    output_format`."""
