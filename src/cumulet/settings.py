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

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NoneOrMore = Annotated[int, msgspec.Meta(ge=0)]
MoreThanNone = Annotated[float, msgspec.Meta(gt=0)]


class HostNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """Where a host of this machine is reached by those that move guests to it."""

    address: str = "127.0.0.1"
    namespace: str | None = None
    """The network namespace, as `ip netns` names it, that its agent and its guests live in; None: this process's."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a cloud, with their units in their names. `cumulet settings` shows the words below each."""

    state_dir: Path
    """The folder that all state is kept in. Option `--state`."""
    database_url: str
    """``postgresql://USER:PASSWORD@HOST/NAME`` or ``sqlite:///FILE``; default: SQLite in the state folder."""
    listen_address: str = "127.0.0.1"
    """Where HTTPS is served. Option `--listen`."""
    listen_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8774
    """The port of it; 0 picks a free one."""
    hosts_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8775
    """Where machines join and their agents fetch images, on the same address; listened on once one is let join. 0 picks
    a free one."""
    bus: Annotated[str, msgspec.Meta(pattern=BUS_URL)] | None = None
    """``nats://ADDRESS:PORT``, several with commas between: your own NATS for hosts on other machines. Default: one
    that the cloud starts itself once a machine is let join. Option `--bus`."""
    bus_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 4222
    """Of the cloud's own NATS, on the same address; 0 picks a free one."""
    public_url: Annotated[str, msgspec.Meta(pattern=PUBLIC_URL)] | None = None
    """``https://NAME[:PORT]`` by which clients reach this cloud: the beginning of every link, whatever a client's Host
    header says. Without it links begin with the address a request came to."""
    connections: AtLeastOne = 1000
    """Of all clients; where there are more, one that asks for nothing is dropped."""
    connections_per_address: AtLeastOne = 200
    """Of one IPv4 address or one IPv6 /64."""
    tls_certificate_file: Path | None = None
    """A certificate of your own for HTTPS, with its chain, as PEM; default: one from the cloud's own authority."""
    tls_key_file: Path | None = None
    """Its private key, as PEM, readable by the cloud's user only."""
    tls_authority_file: Path | None = None
    """The authority that clients trust your certificate by, for clouds.yaml; default: the system's authorities."""
    driver: Literal["simulated", "qemu"] = "simulated"
    """What hosts run."""
    host_names: tuple[str, ...] = ("host1", "host2")
    """The hosts' names."""
    host_networks: Mapping[str, HostNetwork] = {}
    """By host, ADDRESS or ADDRESS@NAMESPACE where its guests are reached; those not named are on the loopback address.
    Only hosts with real guests have one."""
    region: str = "RegionOne"
    """The region's name in the catalog."""
    bare: bool = False
    """Seed no flavors, image and networks at first start."""
    machine_on_public: bool = True
    """Whether this machine, where it makes the hosts' networks itself (as root), has the address of the gateway of
    `public`, so that floating IPs are reached from here."""
    public_interface: str | None = None
    """An interface that leads to `public`: of this machine, which then has no address there itself; with
    `--host-network`, of each host's namespace."""
    rootless_networks: bool = True
    """Whether real guests have networks where the cloud is started by a user who is not root: in namespaces of that
    user's, which end with the cloud, and guests with them. Otherwise they have none."""
    leave_guests: bool = False
    """Whether real guests go on when the cloud stops, to be found again at its next start. Default: only where it runs
    as a service (under systemd, with `Type=notify`)."""
    resume_guests_state_on_host_boot: bool = True
    """Whether servers that should run and do not - the machine or the cloud was stopped - are started when their host
    is back. As Nova's setting of this name, which is off by default; when off, such servers are SHUTOFF."""
    policy_file: Path | None = None
    """Policy rules that differ from the defaults, as oslo.policy reads them."""
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    """The least of what is logged; default: info, on a terminal warning."""
    log_file: Path | None = None
    """Where the log goes, rotated by itself, of 576 MiB at most; default: standard error."""
    log_format: Literal["json", "text"] | None = None
    """One JSON object a line, or a line for people; default: text on a terminal, else json."""
    token_life_seconds: AtLeastOne = 3600
    """How long a token is good."""
    argon2_memory_kib: Annotated[int, msgspec.Meta(ge=8)] = 19_456
    """What hashing a password takes: the more, the harder to guess from a stolen database, and the slower to log in."""
    login_failures_per_minute: AtLeastOne = 10
    """Of one user at one address (IPv6: one /64)."""
    login_failures_per_minute_everywhere: AtLeastOne = 100
    """Of one user at all addresses together, but for those where the user has logged in."""
    password_expires_days: NoneOrMore = 0
    """How long a password is good that is set from now on; 0: for ever. Then its user has to change it. As Keystone's
    setting of this name."""
    change_password_upon_first_use: bool = False
    """Whether a password that an administrator sets has to be changed before it is good for anything else. As
    Keystone's setting of this name."""
    password_history: Annotated[int, msgspec.Meta(ge=0, le=24)] = 0
    """How many passwords of a user, the present one among them, the next must not be; 0: it may be any. As Keystone's
    `unique_last_password_count`."""
    password_minimum_age_days: NoneOrMore = 0
    """How long a user has to keep a password before changing it again; 0: not at all. As Keystone's
    `minimum_password_age`."""
    password_regex: str = ""
    """A regular expression of Python that new passwords must match from their first character on; empty: none. One that
    takes long for some passwords holds up the whole cloud. As Keystone's setting of this name."""
    password_regex_description: str = ""
    """What `password_regex` asks for, in words: who sets a password that does not match is told this. Everybody may
    read both. As Keystone's setting of this name."""
    lockout_failures: NoneOrMore = 0
    """After so many wrong passwords, from wherever, a user is locked: no password is right for `lockout_seconds`. 0:
    never, as anybody could lock anybody out. As Keystone's `lockout_failure_attempts`."""
    lockout_seconds: AtLeastOne = 1800
    """How long a locked user stays so after the last wrong password, unless an administrator says `enabled`."""
    host_silent_seconds: MoreThanNone = 10.0
    """A host that has not answered for so long is shown as down; it is asked four times as often."""
    lease_seconds: MoreThanNone = 10.0
    """How long an operation, or a host with a watchdog, waits to hear from whoever carries it."""
    fence_silent_hosts: bool = False
    """Whether each host has a watchdog that stops its guests once it has not been heard for `lease_seconds`: then a
    silent host's servers may be evacuated. Off in a cloud of one machine: hosts and control plane die together."""
    restart_servers_of_lost_hosts: bool = False
    """Whether servers that ran on a host that is lost for certain (see `fence_silent_hosts`; or forced down) start on
    another one by themselves, from their images."""
    dhcp_domain: str = ""
    """What the host names that guests are told end in, as Nova's `dhcp_domain`; empty: they are as the API shows them.
    """
    resize_confirm_seconds: NoneOrMore = 0
    """After so long a resize that nobody confirmed or reverted is confirmed; 0: never, as Nova's default."""
    shelved_offload_time: Annotated[int, msgspec.Meta(ge=-1)] = 0
    """How many seconds a shelved server stays on its host, stopped, with its share of it; 0: it leaves at once; -1:
    only `shelveOffload` takes it off. As Nova's setting of this name."""
    migration_bandwidth_mib_s: AtLeastOne = 1024
    """What a live migration may take of the network."""
    migration_downtime_limit_ms: AtLeastOne = 300
    """How long a guest may stand still at the end of a live migration, as QEMU aims at."""
    migration_progress_timeout_seconds: MoreThanNone = 30.0
    """A live migration that has copied nothing new for so long is aborted."""
    migration_timeout_seconds_per_gib: MoreThanNone = 120.0
    """How long a live migration may take, for each GiB of memory and disk."""
    migration_timeout_action: Literal["abort", "force_complete"] = "abort"
    """What becomes of a live migration that has not ended by then; forced, it has as long again before it is aborted.
    As Nova's `live_migration_timeout_action`."""
    guest_uids: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{4,9}-[0-9]{4,9}\Z")] = "70000-73999"
    """Users of real guests, ``FIRST-LAST``: one each, where the cloud is started as root."""
    simulated_speed: MoreThanNone = 100.0
    """Virtual seconds per second for simulated hosts' work."""
    simulated_vcpus: AtLeastOne = 64
    """Processors of each simulated host."""
    simulated_memory_mib: AtLeastOne = 262_144
    """Memory of each simulated host."""
    simulated_disk_gib: AtLeastOne = 4096
    """Disk of each simulated host."""
    cpu_allocation_ratio: MoreThanNone = 4.0
    """Virtual processors for each processor of a host, as Nova's setting of this name."""
    ram_allocation_ratio: MoreThanNone = 1.0
    """Guests' memory for a host's memory."""
    disk_allocation_ratio: MoreThanNone = 1.0
    """Guests' disks for a host's disk."""
    free_space_floor_mib: NoneOrMore = 1024
    """What images, caches and guests' disks leave free on their file systems, for the cloud's own records; at most a
    tenth of the file system. Where but a quarter of it is left, members may only delete."""
    image_cache_gib: NoneOrMore = 64
    """What the images that a host keeps may take there; those not used for longest go first. Of a machine that joined,
    its agent's `--set`; so the next three."""
    image_cache_days: AtLeastOne = 30
    """An image that no guest of a host was made from for so long leaves that host."""
    disk_mib_per_second: AtLeastOne = 512
    """What one real guest may read and write of its disks together. Of guests that start or move there from now on."""
    disk_requests_per_second: AtLeastOne = 20_000
    """How many requests it may make of them. Copies of a move are slowed by neither."""
    history_days: AtLeastOne = 90
    """How long is kept what has ended: operations, migrations, actions of servers; records of what was deleted."""
    history_rows: AtLeastOne = 100_000
    """Of each of these kinds, so many are kept, the newest."""
    history_rows_per_server: AtLeastOne = 1000
    """Actions of one server that are kept, the newest."""
    largest_page: AtLeastOne = 1000
    """Rows of a list in one answer, of every service at every version. As Nova's `max_limit`."""
    image_size_limit_gib: AtLeastOne = 64
    """Largest upload."""
    image_virtual_size_limit_gib: AtLeastOne = 1024
    """Largest disk an image may unfold to."""
    image_project_quota_gib: AtLeastOne = 512
    """What one project's images may take up in the store, uploads under way included."""
    images_per_project: AtLeastOne = 200
    """With data or without."""
    web_download_hosts: Annotated[str, msgspec.Meta(pattern=WEB_HOSTS)] = ""
    """`HOST`, `*.DOMAIN` or `*`, several with commas between: hosts of the Internet that images may be imported from
    (`web-download`). `*` is every one with a public address, other machines of this cloud among them. Empty: none."""
