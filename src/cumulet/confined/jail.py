"""Run by path as a program of its own: gives up everything a guest's QEMU does not need, then becomes the command.

Reads a JSON object from its last argument; uses only the standard library, so that it starts in milliseconds
(`python -I -S jail.py SPEC`). A separate program, for between fork and exec of a threaded process none of this is safe.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys

CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC = 0x00020000, 0x40000000, 0x08000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 1, 38, 24
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, REFUSE, UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
LOAD, IF_EQUAL, IF_AT_LEAST, IF_BITS, ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06  # <linux/bpf_common.h>
MSG_FASTOPEN = 0x20000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
REFUSED = {
    # socket, connect, bind, ptrace, process_vm_readv, process_vm_writev
    "x86_64": (41, 42, 49, 101, 310, 311),
    "aarch64": (198, 203, 200, 117, 270, 271),
}
# io_uring_setup, io_uring_enter, io_uring_register (they connect, too), pidfd_getfd: the same everywhere
REFUSED_EVERYWHERE = (425, 426, 427, 438)
# sendto, sendmsg, sendmmsg, and which of their arguments has the flags
SENDING = {"x86_64": ((44, 3), (46, 2), (307, 3)), "aarch64": ((206, 3), (211, 2), (269, 3))}
# fork, vfork
FORKING = {"x86_64": (57, 58), "aarch64": ()}
CLONE, CLONE3, PRCTL = {"x86_64": 56, "aarch64": 220}, 435, {"x86_64": 157, "aarch64": 167}
CLONE_THREAD = 0x00010000

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if value is None else value.encode() for value in (source, target, kind, data)]
    check(libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def bind(source: str, target: str, flags: int) -> None:
    mount(source, target, None, MS_BIND | (0 if os.path.isfile(source) or source.startswith("/dev/") else MS_REC))
    mount(source, target, None, MS_REMOUNT | MS_BIND | flags)


def enter_own_root(root: str, binds: "list[list[str]]", devices: "list[str]") -> None:
    """A root of its own: programs and libraries read-only, a few devices, and the folders asked for."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0755")
    for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        source = f"/{name}"
        if os.path.islink(source):
            os.symlink(os.readlink(source), root + source)
        elif os.path.isdir(source):
            os.mkdir(root + source)
            bind(source, root + source, MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.mkdir(f"{root}/etc")
    os.mkdir(f"{root}/dev")
    for source in ("/etc/ld.so.cache", *devices):
        if os.path.exists(source):
            open(root + source, "w").close()
            device = source.startswith("/dev/")
            bind(source, root + source, MS_NOSUID | MS_NOEXEC | (0 if device else MS_RDONLY | MS_NODEV))
    for source, target, mode in binds:
        if os.path.isdir(source):
            os.mkdir(root + target)
        else:
            open(root + target, "w").close()
        bind(source, root + target, MS_NOSUID | MS_NODEV | MS_NOEXEC | (MS_RDONLY if mode == "ro" else 0))
    os.mkdir(f"{root}/old")
    encoded = root.encode()
    check(libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], encoded, encoded + b"/old"), "pivot_root")
    os.chdir("/")
    check(libc.umount2(b"/old", MNT_DETACH), "umount /old")
    os.rmdir("/old")
    mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def leave_note(path: str) -> None:
    """Note this process's number, which exec keeps. The process does it itself: no crash of the agent can lose it."""
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot_id = file.read().strip()
    start_time = int(stat[stat.rindex(b")") + 2 :].split()[19])
    with open(path + ".new", "w") as file:
        json.dump({"pid": os.getpid(), "start_time": start_time, "boot_id": boot_id}, file)
    os.replace(path + ".new", path)


def drop_capabilities() -> None:
    """What is not in this set, the command does not have either, whoever it runs as. Others than root have none."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break


def let_go_of_capabilities() -> None:
    """Drop the capabilities of this process itself, which keeps its user and runs no other program."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))  # _LINUX_CAPABILITY_VERSION_3
    check(libc.capset(header, ctypes.create_string_buffer(24)), "capset")


def become_user(uid: int, gid: int, groups: "list[int] | None") -> None:
    if groups is not None:
        os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def end_with(parent: int) -> None:
    """SIGKILL when the process that started this one ends, or has ended. Given up by a change of user before."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    if os.getppid() != parent:
        sys.exit(126)


def refuse_connections() -> None:
    """No system call makes or turns a socket from now on: only those that were handed over, and whom they lead to.

    A namespace without a network is not enough: a connected socket that was handed over could be turned to another
    address in the network that it was made in.
    """
    machine = os.uname().machine
    program = []
    for number in (*REFUSED[machine], *REFUSED_EVERYWHERE):
        program += [(IF_EQUAL, 0, 1, number), (ANSWER, 0, 0, REFUSE)]
    for number, argument in SENDING[machine]:  # With this flag sending connects.
        program += [(IF_EQUAL, 0, 4, number), (LOAD, 0, 0, 16 + 8 * argument)]
        program += [(IF_BITS, 0, 1, MSG_FASTOPEN), (ANSWER, 0, 0, REFUSE), (ANSWER, 0, 0, ALLOW)]
    filter_system_calls(program)


def refuse_processes() -> None:
    """From now on no other process begins, only threads, and this one goes on ending with its parent (`end_with`).

    Else one could live on with the same user, and write to a file after that was looked at.
    """
    machine = os.uname().machine
    program = []
    for number in FORKING[machine]:
        program += [(IF_EQUAL, 0, 1, number), (ANSWER, 0, 0, REFUSE)]
    # What clone3 is asked for is in memory, which cannot be looked at. Without it the C library uses clone.
    program += [(IF_EQUAL, 0, 1, CLONE3), (ANSWER, 0, 0, UNKNOWN)]
    program += [(IF_EQUAL, 0, 4, CLONE[machine]), (LOAD, 0, 0, 16)]
    program += [(IF_BITS, 1, 0, CLONE_THREAD), (ANSWER, 0, 0, REFUSE), (ANSWER, 0, 0, ALLOW)]
    program += [(IF_EQUAL, 0, 4, PRCTL[machine]), (LOAD, 0, 0, 16)]
    program += [(IF_EQUAL, 0, 1, PR_SET_PDEATHSIG), (ANSWER, 0, 0, REFUSE), (ANSWER, 0, 0, ALLOW)]
    filter_system_calls(program)


def filter_system_calls(refused: "list[tuple[int, int, int, int]]") -> None:
    """`refused` begins with the call's number; what it has no answer to is allowed. Other machines' calls are not."""
    program = [(LOAD, 0, 0, 4), (IF_EQUAL, 1, 0, ARCHITECTURES[os.uname().machine]), (ANSWER, 0, 0, REFUSE)]
    program += [(LOAD, 0, 0, 0), (IF_AT_LEAST, 0, 1, 0x40000000), (ANSWER, 0, 0, REFUSE)]  # x32's numbers.
    program += [*refused, (ANSWER, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    described = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0), "seccomp")


def main() -> None:
    spec = json.loads(sys.argv[1])
    if spec["process_file"] is not None:
        leave_note(spec["process_file"])
    for path in spec["cgroups"]:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
    if spec["root"] is not None:
        check(libc.unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET), "unshare")
        os.umask(0o022)  # The guest's user must be able to go through these folders, whatever the agent's mask is.
        enter_own_root(spec["root"], spec["binds"], spec["devices"])
    for name, value in spec["limits"].items():
        _, hard = resource.getrlimit(getattr(resource, name))
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, name), (limit, limit))
    drop_capabilities()
    if spec["uid"] is not None:
        become_user(spec["uid"], spec["uid"], spec["groups"])
    if spec["parent"] is not None:
        end_with(spec["parent"])
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    refuse_connections()
    if spec["parent"] is not None:
        refuse_processes()
    os.umask(0o077)
    if spec["root"] is not None:
        os.chdir("/vm")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/", **spec["environment"]}
    os.execve(spec["command"][0], spec["command"], environment)  # noqa: S606 - to become it is the purpose


if __name__ == "__main__":
    try:
        main()
    except OSError as problem:
        print(f"jail: {problem}", file=sys.stderr)
        sys.exit(126)
