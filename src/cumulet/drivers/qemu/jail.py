"""Run by path as a program of its own: gives up everything a guest's QEMU does not need, then becomes the command.

Reads a JSON object from its last argument; uses only the standard library, so that it starts in milliseconds
(`python -I -S jail.py SPEC`). A separate program, for between fork and exec of a threaded process none of this is safe.
"""

import ctypes
import json
import os
import resource
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
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 38, 24
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

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
    """Who we are, and stay after exec: written by ourselves, so that no crash of the agent can lose it."""
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot_id = file.read().strip()
    start_time = int(stat[stat.rindex(b")") + 2 :].split()[19])
    with open(path + ".new", "w") as file:
        json.dump({"pid": os.getpid(), "start_time": start_time, "boot_id": boot_id}, file)
    os.replace(path + ".new", path)


def drop_privileges(uid: int, gid: int, groups: "list[int]") -> None:
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def main() -> None:
    spec = json.loads(sys.argv[1])
    if spec["process_file"] is not None:
        leave_note(spec["process_file"])
    for path in spec["cgroups"]:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
    if spec["root"] is not None:
        flags = CLONE_NEWNS | CLONE_NEWIPC | (CLONE_NEWNET if spec["no_network"] else 0)
        check(libc.unshare(flags), "unshare")
        enter_own_root(spec["root"], spec["binds"], spec["devices"])
    for name, value in spec["limits"].items():
        _, hard = resource.getrlimit(getattr(resource, name))
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, name), (limit, limit))
    if spec["uid"] is not None:
        drop_privileges(spec["uid"], spec["uid"], spec["groups"])
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    os.umask(0o077)
    if spec["root"] is not None:
        os.chdir("/vm")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/"}
    os.execve(spec["command"][0], spec["command"], environment)  # noqa: S606 - to become it is the purpose


if __name__ == "__main__":
    try:
        main()
    except OSError as problem:
        print(f"jail: {problem}", file=sys.stderr)
        sys.exit(126)
