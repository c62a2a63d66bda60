"""What others notice while one caller floods: 99th percentiles beside those of a quiet cloud.

The floods come from another process and another address; the measured requests are those of somebody else.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import select
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from typing import Any
from urllib.parse import urlsplit

from benchmarks.connection import Connection
from benchmarks.report import Measure, Result

FLOODER = "127.0.0.2"
SILENT = 1100
AGAIN = 100
"""Connections made in a round, of which there are ten in a second."""
LOGINS = 90
SAMPLES = 300
FEW_SAMPLES = 60
MOST_TIMES = 3.0
SETTLE_SECONDS = 2.0


def _times(name: str, title: str) -> Measure:
    return Measure(name=name, title=f"{title}, p99 against quiet", unit="times", goal=MOST_TIMES)


SILENT_GET = _times("silent_connections_get", f"{SILENT} silent connections: GET")
SILENT_NEW = _times("silent_connections_new_client", f"{SILENT} silent connections: a new client's first GET")
LOGIN_GET = _times("login_flood_get", f"{LOGINS} connections with wrong logins: GET")
LOGIN_LOGIN = _times("login_flood_login", f"{LOGINS} connections with wrong logins: a right login")


def measure(admin: Connection, user: str, password: str, project: str) -> Iterator[Result]:
    """Quiet first, then under each flood."""

    def get() -> None:
        admin.ask("GET", "/compute/v2.1/flavors?limit=1")

    def new() -> None:
        fresh = admin.again()
        fresh.ask("GET", "/compute/v2.1/flavors?limit=1")
        fresh.close()

    def log_in() -> None:
        fresh = Connection(admin.url, admin.authority)
        fresh.log_in(user, password, project)
        fresh.close()

    quiet_get, quiet_new, quiet_login = _p99(get, SAMPLES), _p99(new, SAMPLES), _p99(log_in, FEW_SAMPLES)
    with _flood(_be_silent, admin):
        yield Result(SILENT_GET, _p99(get, SAMPLES) / quiet_get)
        yield Result(SILENT_NEW, _p99(new, SAMPLES) / quiet_new)
    with _flood(_guess, admin):
        yield Result(LOGIN_GET, _p99(get, SAMPLES) / quiet_get)
        yield Result(LOGIN_LOGIN, _p99(log_in, FEW_SAMPLES) / quiet_login)


def _p99(work: Callable[[], None], samples: int) -> float:
    times = []
    for _ in range(samples):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.quantiles(times, n=100)[98]


@contextlib.contextmanager
def _flood(work: Callable[[str, Event], None], admin: Connection) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=work, args=(admin.url, stop), daemon=True)
    process.start()
    time.sleep(SETTLE_SECONDS)
    try:
        yield
    finally:
        stop.set()
        process.join(30)
        if process.is_alive():
            process.kill()


def _open(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 443), timeout=30, source_address=(FLOODER, 0))


def _be_silent(url: str, stop: Event) -> None:
    """Connections that never send anything; of those that are dropped, some come back in each round."""
    held: list[socket.socket] = []
    while not stop.is_set():
        with contextlib.suppress(OSError):
            for _ in range(min(AGAIN, SILENT - len(held))):
                held.append(_open(url))
        poll = select.poll()
        for one in held:
            poll.register(one, select.POLLIN | select.POLLHUP)
        over = {number for number, _ in poll.poll(100)}
        for one in [one for one in held if one.fileno() in over]:
            one.close()
            held.remove(one)
        stop.wait(0.1)


def _guess(url: str, stop: Event) -> None:
    """Every connection always waits for an answer to a login of somebody who does not exist."""
    import threading

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # A flooder does not care.

    def guess(number: int) -> None:
        connection: Any = context.wrap_socket(_open(url))
        for attempt in range(1_000_000):
            if stop.is_set():
                return
            user = {"name": f"nobody-{number}-{attempt}", "domain": {"id": "default"}, "password": "guess"}
            identity = {"methods": ["password"], "password": {"user": user}}
            body = json.dumps({"auth": {"identity": identity}}).encode()
            head = f"POST /identity/v3/auth/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            connection.recv(65_536)

    threads = [threading.Thread(target=guess, args=(number,), daemon=True) for number in range(LOGINS)]
    for thread in threads:
        thread.start()
    stop.wait()
