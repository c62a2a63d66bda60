"""Whole network stacks for tests: guests, and machines outside, whose kernel answers ARP, pings and TCP. Needs root."""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from cumulet.drivers.linux_network import namespaces, taps
from cumulet.host import wiring as w
from tests.left_over import remove_left_over
from tests.linux_network import frames

T = TypeVar("T")
PUBLIC_DEVICE = "pub0"
"""In a host's namespace, what leads outside."""
SECONDS = 10.0
_numbers = itertools.count(1)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Stack:
    """A network namespace with a stack of its own. One thread does the work in it."""

    def __init__(self, name: str, *, there: bool = False) -> None:
        """`there`: the namespace exists already, and stays."""
        self.namespace = name if there else f"cumulet-test-{os.getpid()}-{next(_numbers)}-{name}"
        self._there = there
        if not there:
            remove_left_over()
            ip("netns", "add", self.namespace)
            ip("-n", self.namespace, "link", "set", "lo", "up")
        self._executor = ThreadPoolExecutor(1)

    def do(self, work: Callable[[], T]) -> T:
        def inside() -> T:
            with namespaces.inside(self.namespace):
                return work()

        return self._executor.submit(inside).result(timeout=3 * SECONDS)

    def run_in(self, work: Callable[[], T], *, seconds: float) -> T:
        """Run work in there, with all the threads that it starts."""

        def inside() -> T:
            with namespaces.inside(self.namespace):
                return work()

        with ThreadPoolExecutor(1) as executor:
            return executor.submit(inside).result(timeout=seconds)

    def ip(self, *words: str) -> None:
        ip("-n", self.namespace, *words)

    def pings(self, address: str, *, data: int = 56, whole: bool = False) -> bool:
        """Whether one of three pings is answered. `whole`: they must not be fragmented."""
        return self.do(lambda: pings(address, data=data, whole=whole))

    def gets_no_answer(self, address: str, *, data: int = 56, whole: bool = False) -> bool:
        """Whether none of three pings is answered. Each waits as long as those of `pings`, but all at once."""

        def ping(_number: int) -> bool:
            with namespaces.inside(self.namespace):
                return _ping(address, data, whole)

        with ThreadPoolExecutor(3) as executor:
            return not any(list(executor.map(ping, range(3))))

    def addresses(self) -> set[str]:
        """The IPv6 addresses of its card that may be used."""
        done = subprocess.run(
            ["ip", "-n", self.namespace, "-6", "-j", "address", "show", "dev", "eth0"], check=True, capture_output=True
        )
        found = [entry for link in json.loads(done.stdout) for entry in link.get("addr_info", ())]
        return {entry["local"] for entry in found if not entry.get("tentative")}

    def way_out(self) -> str | None:
        """The next hop of its default route, IPv6."""
        done = subprocess.run(
            ["ip", "-n", self.namespace, "-6", "-j", "route", "show", "default"], check=True, capture_output=True
        )
        return next((route.get("gateway") for route in json.loads(done.stdout)), None)

    def setting(self, name: str) -> str:
        return self.do(lambda: (Path("/proc/sys/net") / name).read_text().strip())

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, what

    def sends(self, interface: str, frame: bytes) -> None:
        def send() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packets:
                packets.bind((interface, 0))
                packets.send(frame)

        self.do(send)

    def run(self, *command: str) -> int:
        done = subprocess.run(["ip", "netns", "exec", self.namespace, *command], check=False, capture_output=True)
        return done.returncode

    @contextmanager
    def serving(self, address: str, number: int) -> Iterator[Server]:
        server = Server(self.do(lambda: _listen(address, number)))
        try:
            yield server
        finally:
            server.close()

    def connect(self, address: str, number: int, *, seconds: float = SECONDS) -> socket.socket:
        return self.do(lambda: socket.create_connection((address, number), timeout=seconds))

    def asks(self, address: str, number: int, *, seconds: float = 2.0) -> str | None:
        """The address under which a server sees this stack; None if it cannot be reached."""
        try:
            with self.connect(address, number, seconds=seconds) as connection:
                return connection.recv(100).decode()
        except OSError:
            return None

    def remove(self) -> None:
        self._executor.shutdown()
        if not self._there:
            ip("netns", "delete", self.namespace)


def pings(address: str, *, data: int = 56, whole: bool = False) -> bool:
    """From the namespace of the calling thread."""
    return any(_ping(address, data, whole) for _ in range(3))


def _ping(address: str, data: int, whole: bool) -> bool:
    six = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(1.0)
        if whole:
            raw.setsockopt(socket.SOL_IP, 10, 2)  # IP_MTU_DISCOVER: IP_PMTUDISC_DO
        mark = os.urandom(4)
        message = struct.pack("!BBH", 128 if six else 8, 0, 0) + mark + bytes(data)
        if not six:
            message = message[:2] + struct.pack("!H", frames.checksum(message)) + message[4:]
        try:
            raw.sendto(message, (address, 0))
            while True:
                got = raw.recv(70_000)[0 if six else 20 :]
                if got[0] == (129 if six else 0) and got[4:8] == mark:
                    return True
        except OSError:  # Nothing has come, or it is too large.
            return False


def _set(name: str, value: str) -> None:
    (Path("/proc/sys/net") / name).write_text(value)


def _listen(address: str, number: int) -> socket.socket:
    return socket.create_server((address, number), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


class Server:
    """Tells each caller its address, then echoes what it receives."""

    def __init__(self, listening: socket.socket) -> None:
        self.says: bytes | None = None
        """In place of the caller's address."""
        self._listening = listening
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            connection.sendall(self.says or peer[0].encode())
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while said := connection.recv(65_536):
                connection.sendall(said)

    def close(self) -> None:
        for one in (self._listening, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class StackGuest(Stack):
    """A guest with this machine's kernel. A thread carries frames between its card and the tap of its port."""

    def __init__(self, fd: int, port: w.Port, *, mtu: int = 1450, addresses: bool = True, router: str = "") -> None:
        super().__init__("guest")
        self._tap = fd
        self.port = port
        self._card = self.do(lambda: taps.open_tap("eth0"))
        self.ip("link", "set", "eth0", "address", port.mac, "mtu", str(mtu))
        for name in ("disable_ipv6", "accept_dad"):
            self.do(partial(_set, f"ipv6/conf/eth0/{name}", "0"))
        if addresses:
            for address in port.addresses:
                words = [f"{address}/64", "nodad"] if ":" in address else [f"{address}/24"]
                self.ip("address", "add", *words, "dev", "eth0")
        self.ip("link", "set", "eth0", "up")
        if router:
            self.ip("route", "add", "default", "via", router)
        self._ends, self._end = os.pipe()
        self._pump = threading.Thread(target=self._carry, daemon=True)
        self._pump.start()

    def _carry(self) -> None:
        other = {self._tap: self._card, self._card: self._tap}
        while True:
            ready, _, _ = select.select([*other, self._ends], [], [])
            if self._ends in ready:
                return
            for one in ready:
                try:
                    os.write(other[one], os.read(one, 70_000))
                except OSError:
                    continue  # The link is down.

    def ready(self) -> bool:
        """Its link-local address may be used."""
        return w.link_local(self.port.mac) in self.addresses()

    def fetches(self, address: str, path: str) -> bytes:
        """A document by HTTP."""

        def fetch() -> bytes:
            with socket.create_connection((address, 80), timeout=SECONDS) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                got = b""
                while part := connection.recv(65_536):
                    got += part
            return got.partition(b"\r\n\r\n")[2]

        return self.do(fetch)

    def remove(self) -> None:
        os.write(self._end, b"x")
        self._pump.join()
        for fd in (self._tap, self._card, self._ends, self._end):
            os.close(fd)
        super().remove()


class Outside(Stack):
    """The world beyond a router: `public`, on which this is 172.24.4.1."""

    ADDRESS = "172.24.4.1"

    def __init__(self) -> None:
        super().__init__("outside")
        self._joined = 0
        self.ip("link", "add", "public", "type", "bridge")
        self.ip("address", "add", f"{self.ADDRESS}/24", "dev", "public")
        self.ip("link", "set", "public", "up")

    def join(self, namespace: str) -> None:
        self._joined += 1
        name = f"to{self._joined}"
        self.ip("link", "add", name, "type", "veth", "peer", "name", PUBLIC_DEVICE, "netns", namespace)
        self.ip("link", "set", name, "master", "public", "up")
        ip("-n", namespace, "link", "set", PUBLIC_DEVICE, "up")

    def plug(self) -> int:
        """The card of another machine out there, as the open file of a tap."""
        card = self.do(lambda: taps.open_tap("card"))
        self.ip("link", "set", "card", "master", "public", "up")
        return card
