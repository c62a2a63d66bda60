"""What a program in the jail can do with sockets: use those that it was handed, and nothing else."""

from __future__ import annotations

import errno
import json
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cumulet.confined import jail

CONNECT = {"x86_64": 42, "aarch64": 203}

PROGRAM = """
import ctypes, os, socket, sys
handed = socket.socket(fileno=int(sys.argv[1]))
host, port, connect = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)

def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def attempt(name, act):
    try:
        act()
        print(name, "done")
    except OSError as refused:
        print(name, refused.errno)

nothing = ctypes.create_string_buffer(16)  # AF_UNSPEC: a socket connected to nobody, free to be connected anew.
attempt("use", lambda: handed.sendall(b"as agreed"))
attempt("turn", lambda: call(connect, handed.fileno(), nothing, 16))
attempt("connect", lambda: handed.connect((host, port)))
attempt("turn-x32", lambda: call(0x40000000 + connect, handed.fileno(), nothing, 16))
attempt("make", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
attempt("make-datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("make-local", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
attempt("bind", lambda: handed.bind((host, 0)))
attempt("io_uring", lambda: call(425, 1, ctypes.create_string_buffer(200)))
attempt("take", lambda: call(438, 0, 0, 0))
attempt("end", lambda: handed.shutdown(socket.SHUT_RDWR))
attempt("sendto", lambda: handed.sendto(b"x", socket.MSG_FASTOPEN, (host, port)))
attempt("sendmsg", lambda: handed.sendmsg([b"x"], [], socket.MSG_FASTOPEN, (host, port)))
"""


def run(filtered: bool) -> tuple[dict[str, str], bytes, bool]:
    """What came of each attempt, what arrived where the socket leads, and whether anybody came elsewhere."""
    script = Path(jail.__file__).read_text()
    if not filtered:
        script = script.replace("    refuse_connections()\n", "")
    spec: dict[str, object] = dict.fromkeys(("process_file", "parent", "root", "uid"))
    spec |= {"binds": [], "devices": [], "cgroups": [], "groups": [], "limits": {}, "environment": {}}
    with (
        socket.create_server(("127.0.0.1", 0)) as agreed,
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
        socket.create_connection(agreed.getsockname()) as handed,
    ):
        port, connect = elsewhere.getsockname()[1], CONNECT[platform.machine()]
        arguments = [str(handed.fileno()), "127.0.0.1", str(port), str(connect)]
        spec["command"] = [sys.executable, "-I", "-S", "-c", PROGRAM, *arguments]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script, json.dumps(spec)],
            pass_fds=[handed.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        accepted, _ = agreed.accept()
        with accepted:
            arrived = accepted.recv(100)
        elsewhere.settimeout(0.0)
        try:
            elsewhere.accept()[0].close()
            came = True
        except BlockingIOError:
            came = False
    return dict(line.split() for line in done.stdout.splitlines()), arrived, came


@pytest.mark.skipif(platform.machine() not in CONNECT, reason="the jail knows the system calls of other machines")
def test_a_socket_that_was_handed_over_leads_where_it_led_and_no_other_is_made() -> None:
    came, arrived, elsewhere = run(filtered=True)
    refused = str(errno.EPERM)
    assert came.pop("use") == came.pop("end") == "done"
    assert arrived == b"as agreed"
    assert set(came.values()) == {refused}, came
    assert not elsewhere


@pytest.mark.skipif(platform.machine() not in CONNECT, reason="the jail knows the system calls of other machines")
def test_without_the_filter_it_could_be_turned() -> None:
    """So the test above tells something."""
    came, _, elsewhere = run(filtered=False)
    assert came["turn"] == came["connect"] == came["make"] == "done"
    assert elsewhere
