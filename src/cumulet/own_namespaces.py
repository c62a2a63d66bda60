"""Run by path as a program of its own: makes namespaces for a cloud of a user who is not root, and runs it inside.

`python -I -S own_namespaces.py SPEC` reads a JSON object from its last argument; only the standard library, for it is
three processes as long as the cloud runs. The first is who was started: it passes signals on, and ends as the cloud
does. The second is the first process of the new PID namespace: it takes in who has lost its parent, and with its end
everything inside ends, guests too. The third becomes the command. In the user namespace their user is root, and the
kernel lets them do there what root does to networks and mounts, and nothing to the machine.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: "str | None", flags: int) -> None:
    encoded = [None if value is None else value.encode() for value in (source, target, kind)]
    check(libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), None), f"mount {target}")


def map_users(uids: "list[int] | None", gids: "list[int] | None") -> None:
    """Be root, and with `uids` and `gids` (first inside, first outside, how many) have more users: two programs of
    Debian's package uidmap may give those that /etc/subuid and /etc/subgid let this user have. They come from outside.
    """
    user, group, target = os.geteuid(), os.getegid(), str(os.getpid())
    come, let_come = os.pipe()
    helper = os.fork() if uids is not None and gids is not None else None
    if helper == 0:
        os.close(let_come)
        os.read(come, 1)
        for program, own, more in (("newuidmap", user, uids), ("newgidmap", group, gids)):
            line = [program, target, "0", str(own), "1", *map(str, more or [])]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                print(f"{program}: {done.stderr.strip()}", file=sys.stderr)
                os._exit(1)
        os._exit(0)
    check(
        libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET), "namespaces are refused"
    )
    if helper is not None:
        os.write(let_come, b"!")
        if os.waitpid(helper, 0)[1] != 0:
            raise OSError("no further users were given to the namespace")
    else:
        for name, wanted in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(wanted)


def furnish() -> None:
    """The first process inside: its own /proc, a /run where names of networks can be kept, the loopback address."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # What the machine has in /run stays where it was: sockets of databases are there.
    before = os.open("/run", os.O_PATH | os.O_DIRECTORY)
    entries = sorted(os.listdir("/run"))
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV)
    for entry in entries:
        if entry in ("netns", "cumulet"):
            continue
        source, target = f"/proc/self/fd/{before}/{entry}", f"/run/{entry}"
        try:
            if os.path.islink(source):
                os.symlink(os.readlink(source), target)
            elif os.path.isdir(source):
                os.mkdir(target)
                mount(source, target, None, MS_BIND | MS_REC)
            else:
                open(target, "w").close()
                mount(source, target, None, MS_BIND)
        except OSError:  # It is gone, or not for us.
            continue
    os.close(before)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        fcntl.ioctl(anything, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def pass_on(number: int, process: int) -> None:
    """A signal to us is one to them."""
    signal.signal(number, lambda *_: os.kill(process, signal.SIGTERM))


def exit_as(status: int) -> "None":
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def first_inside(spec: "dict[str, object]", parent: int) -> None:
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() not in (0, parent):  # It has ended before it could be waited for.
        os._exit(1)
    furnish()
    command = [str(word) for word in spec["command"]]  # type: ignore[attr-defined]
    environment = {**os.environ, **spec["environment"]}  # type: ignore[dict-item]
    cloud = os.fork()
    if cloud == 0:
        os.execve(command[0], command, environment)  # noqa: S606 - to become it is the purpose
    for number in PASSED_ON:
        pass_on(number, cloud)
    while True:
        try:
            ended, status = os.waitpid(-1, 0)
        except InterruptedError:
            continue
        if ended == cloud:
            exit_as(status)


def leave_note(path: str) -> None:
    """Who can be followed into the namespaces (`cumulet enter`)."""
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    start_time = int(stat[stat.rindex(b")") + 2 :].split()[19])
    with open(f"{path}.new", "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump({"pid": os.getpid(), "start_time": start_time}, file)
    os.replace(f"{path}.new", path)


def main() -> None:
    spec = json.loads(sys.argv[1])
    map_users(spec["uids"], spec["gids"])
    if spec["note"] is not None:
        leave_note(spec["note"])
    parent = os.getpid()
    first = os.fork()
    if first == 0:
        try:
            first_inside(spec, parent)
        except OSError as problem:
            print(f"namespaces: {problem}", file=sys.stderr)
        os._exit(126)
    for number in PASSED_ON:
        pass_on(number, first)
    while True:
        try:
            _, status = os.waitpid(first, 0)
        except InterruptedError:
            continue
        exit_as(status)


if __name__ == "__main__":
    try:
        main()
    except OSError as problem:
        print(f"namespaces: {problem}", file=sys.stderr)
        sys.exit(126)
