"""`cumulet doctor`: what this machine can do, and what to do about what it can't. Changes nothing."""

from __future__ import annotations

import asyncio
import functools
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from cumulet.cli import state_folder
from cumulet.cli.up import DEFAULT_HOSTS, DEFAULT_LISTEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line. `good`: None is neither good nor bad, but worth knowing. `remedy`: what to do."""

    subject: str
    good: bool | None
    found: str
    remedy: str = ""


@click.command(short_help="What this machine can do, and what to do about what it can't.")
def doctor() -> None:
    """Find out, by trying, what this machine can do for a cloud, and say what to do about what it can't.

    Nothing is changed. A cloud on simulated hosts needs nothing but Python, so the exit status is always 0.
    """
    findings = [*_findings()]
    for finding in findings:
        mark = {True: "ok", False: "no", None: "--"}[finding.good]
        click.echo(f"{mark}  {finding.subject + ':':<18} {finding.found}")
        if finding.remedy:
            click.echo(f"{'':<23}{finding.remedy}")
    real = all(finding.good is not False for finding in findings if finding.subject in ("QEMU", "tiny image"))
    click.echo()
    click.echo(f"`cumulet up` will run {'real QEMU guests' if real else 'simulated hosts'} here.")


def _findings() -> Iterator[Finding]:
    yield Finding(subject="Python", good=True, found=platform.python_version())
    yield from asyncio.run(_hypervisor())
    yield _machine()
    yield _network()
    yield from _kernel_tables()
    yield _tiny_image()
    yield _database()
    yield _state()
    yield _port()


async def _hypervisor() -> list[Finding]:
    from cumulet.drivers.qemu.facts import QemuMissing, post_copy_problem, probe
    from cumulet.drivers.qemu.sandbox import Sandbox
    from cumulet.host.driver import DriverError

    try:
        facts = await probe()
    except QemuMissing as problem:
        return [
            Finding(subject="QEMU", good=False, found=str(problem), remedy=_install("qemu-system-x86", "qemu-utils"))
        ]
    version = ".".join(map(str, facts.version))
    found = [Finding(subject="QEMU", good=True, found=f"{version} at {facts.binary}, machine {facts.machine_type}")]
    if facts.kvm_problem is None:
        found.append(Finding(subject="KVM", good=True, found="boots a guest; servers run at full speed"))
    else:
        found.append(
            Finding(subject="KVM", good=None, found=facts.kvm_problem, remedy="guests are emulated, and slower")
        )
    no_post_copy = post_copy_problem(facts)
    found.append(
        Finding(subject="post-copy", good=True, found="moves completed by force need not pause their guest")
        if no_post_copy is None
        else Finding(
            subject="post-copy",
            good=None,
            found=no_post_copy,
            remedy="moves completed by force pause their guest instead",
        )
    )
    sandbox = Sandbox("doctor")
    try:
        await sandbox.probe()
    except DriverError as refused:
        found.append(Finding(subject="confinement", good=False, found=str(refused)))
    else:
        found.append(_confinement(sandbox.as_root, sandbox.own_root))
    return found


def _confinement(as_root: bool, own_root: bool) -> Finding:
    if not as_root:
        return _confinement_without_root()
    if not own_root:
        return Finding(
            subject="confinement",
            good=None,
            found="each guest has its own user; mount namespaces do not work here",
            remedy="in a container: allow mounting (CAP_SYS_ADMIN), so that guests get a root folder of their own",
        )
    cgroups = ", cgroup" if _writable_cgroup() else ""
    return Finding(subject="confinement", good=True, found=f"each guest gets its own user{cgroups} and root folder")


def _confinement_without_root() -> Finding:
    from cumulet import rootless

    found = "guests run as your user, with QEMU's seccomp sandbox"
    if _rootless_problem() is None:
        users = "a user and a root folder" if rootless.more_users() is not None else "a root folder"
        found = f"each guest gets {users} of its own, inside namespaces of yours; none has a cgroup"
    remedy = "started as root, each guest gets a user, a root folder and a cgroup of its own"
    return Finding(subject="confinement", good=None, found=found, remedy=remedy)


@functools.cache
def _rootless_problem() -> str | None:
    from cumulet import rootless

    return rootless.problem()


def _writable_cgroup() -> bool:
    return any(
        os.access(place, os.W_OK) for place in ("/sys/fs/cgroup/cgroup.subtree_control", "/sys/fs/cgroup/memory")
    )


def _network() -> Finding:
    from cumulet import rootless
    from cumulet.drivers.linux_network.probe import probe
    from cumulet.drivers.linux_network.skeleton import Tracking

    if os.geteuid() != 0:
        return _own_network(_rootless_problem(), rootless.more_users() is not None)
    answer = probe()
    if answer.tracking is None:
        remedy = _install("nftables") if "nftables" in answer.problem else "servers boot with `networks: none`"
        return Finding(subject="networks", good=None, found=answer.problem, remedy=remedy)
    ways = {
        Tracking.BR_NETFILTER: "connections tracked through br_netfilter",
        Tracking.BRIDGE: "connections tracked in bridges",
    }
    trunks = "trunks too" if answer.no_subports is None else f"no trunks: {answer.no_subports}"
    found = f"packets can be wired and filtered; {ways[answer.tracking]}; {trunks}"
    return Finding(subject="networks", good=True, found=found)


KERNEL_TABLES = {
    "net/netfilter/nf_conntrack_max": (1_048_576, "tracked connections"),
    "net/ipv4/neigh/default/gc_thresh3": (16_384, "IPv4 neighbours"),
    "net/ipv6/neigh/default/gc_thresh3": (16_384, "IPv6 neighbours"),
}
"""Tables of the kernel that the guests of all hosts on a machine share: how many entries are enough for a host with
many networks, and of what."""
SYSCTLS = Path("/proc/sys")


def _kernel_tables() -> Iterator[Finding]:
    """How many entries these tables may have here. One of a module that is not loaded is left out."""
    there = {name: int(path.read_text()) for name in KERNEL_TABLES if (path := SYSCTLS / name).is_file()}
    if not there:
        return
    less = {name: most for name, (most, _) in KERNEL_TABLES.items() if there.get(name, most) < most}
    settings = " ".join(f"{name.replace('/', '.')}={most}" for name, most in less.items())
    yield Finding(
        subject="kernel tables",
        good=None if less else True,
        found=", ".join(f"{number} {KERNEL_TABLES[name][1]}" for name, number in there.items()) + ", for all guests",
        remedy=f"for many networks or guests you do not trust: sysctl -w {settings}" if less else "",
    )


def _own_network(problem: str | None, users: bool) -> Finding:
    if problem is not None:
        remedy = (
            _install("nftables") if "nftables" in problem else "servers boot with `networks: none`, or start as root"
        )
        return Finding(subject="networks", good=None, found=f"not without root here: {problem}", remedy=remedy)
    found = "in namespaces of your own, which end with the cloud, and guests with them"
    return Finding(
        subject="networks",
        good=True,
        found=f"{found}; each guest has its own user" if users else found,
        remedy=""
        if users
        else f"guests share your user: {_install('uidmap')}, and a line in /etc/subuid and /etc/subgid",
    )


def _tiny_image() -> Finding:
    from cumulet.image.tiny import DEBIAN_PACKAGES, available

    problem = available()
    if problem is None:
        return Finding(subject="tiny image", good=True, found="built already, or can be built from Debian's packages")
    return Finding(
        subject="tiny image",
        good=False,
        found=problem,
        remedy=f"{_install(*DEBIAN_PACKAGES)}; or upload an image of your own: openstack image create --file",
    )


def _machine() -> Finding:
    """The capacity of this machine, in the numbers that Placement will have."""
    from cumulet.host.machine import capacity, part

    whole = capacity(_place())
    each = part(whole, DEFAULT_HOSTS)
    return Finding(
        subject="machine",
        good=None,
        found=f"{whole.vcpus} cores, {whole.memory_mib} MiB of memory, {whole.disk_gib} GiB of disk; each of "
        f"{DEFAULT_HOSTS} hosts offers {each.vcpus}, {each.memory_mib} MiB, {each.disk_gib} GiB",
    )


def _place() -> Path:
    """The state folder, or the nearest folder above it that exists."""
    folder = state_folder.default()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _database() -> Finding:
    return Finding(subject="database", good=True, found="SQLite inside; PostgreSQL with `cumulet up --database URL`")


def _state() -> Finding:
    folder, place = state_folder.default(), _place()
    if not os.access(place, os.W_OK):
        return Finding(subject="state folder", good=False, found=f"{place} is not writable", remedy="use --state DIR")
    free_gib = shutil.disk_usage(place).free / 2**30
    return Finding(subject="state folder", good=True, found=f"{folder}, {free_gib:.0f} GiB free")


def _port() -> Finding:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address, _, port = DEFAULT_LISTEN.rpartition(":")
        try:
            attempt.bind((address, int(port)))
        except OSError as error:
            remedy = "choose another with --listen, or stop what listens there"
            return Finding(subject="port", good=False, found=f"{DEFAULT_LISTEN}: {error.strerror}", remedy=remedy)
    return Finding(subject="port", good=True, found=f"{DEFAULT_LISTEN} is free")


def _install(*packages: str) -> str:
    names = " ".join(packages)
    if Path("/usr/bin/apt-get").exists():
        return f"apt-get install {names}" + ("" if os.geteuid() == 0 else " (as root)")
    return f"install what your distribution calls {names}"
