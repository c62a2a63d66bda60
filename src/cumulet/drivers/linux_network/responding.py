"""The agent's side of the responder: opens its sockets, tells it what to answer, and replaces it when it has ended."""

from __future__ import annotations

import contextlib
import ctypes
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Collection, Mapping

import msgspec
from msgspec.structs import replace

from cumulet.confined import user_ids
from cumulet.drivers.linux_network import dhcp, dns, ipv6, names, taps
from cumulet.drivers.linux_network.responder import LARGEST_MESSAGE_BYTES, POSTS, Answers, Documents
from cumulet.host.telling import META_DATA
from cumulet.host.wiring import METADATA_ADDRESS, METADATA_ADDRESS_6, Network, Port, Wiring

UID = 65_000
"""The responder's user id. Guests have the ids below it."""
ACKNOWLEDGE_SECONDS = 10.0
_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
# tcpdump -dd 'ip and udp dst port 67 and not fragment or ip6 and (udp dst port 547 or icmp6[0] = 133)'. Jumps are
# relative.
_ONLY_QUESTIONS = (
    (0x28, 0, 0, 12),
    (0x15, 0, 7, 0x0800),
    (0x30, 0, 0, 23),
    (0x15, 0, 14, 17),
    (0x28, 0, 0, 20),
    (0x45, 12, 0, 0x1FFF),
    (0xB1, 0, 0, 14),
    (0x48, 0, 0, 16),
    (0x15, 8, 9, 67),
    (0x15, 0, 8, 0x86DD),
    (0x30, 0, 0, 20),
    (0x15, 0, 2, 17),
    (0x28, 0, 0, 56),
    (0x15, 3, 4, 547),
    (0x15, 0, 3, 58),
    (0x30, 0, 0, 54),
    (0x15, 0, 1, 133),
    (0x6, 0, 0, 0x40000),
    (0x6, 0, 0, 0),
)


class Responding:
    """Used by the network's thread only, in its namespace."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._said: dict[str, Answers] = {}
        self._made: dict[str, tuple[Network, list[Port], Answers]] = {}
        """By bridge: the answers that were made last, and of what."""
        self._told: dict[int, dict[str, bytes]] = {}
        self.posts, self._their_posts = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """Where a responder asks about passwords, this one or the next. Read by the agent's own thread."""
        self.posts.setblocking(False)

    def server_on(self, number: int) -> str | None:
        """The server whose guest is on the port of this number, as it was told itself. From any thread."""
        files = self._told.get(number)
        if files is None:
            return None
        server_id: str = json.loads(files[META_DATA])["uuid"]
        return server_id

    def apply(self, wiring: Wiring, *, but: Collection[str] = ()) -> None:
        """When this returns, the responder answers as the wiring says. `but`: networks on which it does not answer.

        OSError where the responder cannot be reached.
        """
        ports: dict[str, list[Port]] = {}
        for port in wiring.ports:
            ports.setdefault(port.network_id, []).append(port)
        served = [network for network in wiring.networks if network.id not in but]
        self._made = {names.bridge(network.id): self._answers(network, ports.get(network.id, [])) for network in served}
        wanted = {bridge: answers for bridge, (_, _, answers) in self._made.items()}
        self.start()
        for bridge in self._said.keys() - wanted.keys():
            self._say(Answers(bridge=bridge, gone=True), [])
            del self._said[bridge]
        for bridge, answers in wanted.items():
            if self._said.get(bridge) != answers:
                with contextlib.ExitStack() as opened:
                    sockets: list[socket.socket] = []
                    if bridge not in self._said:
                        for make in (*_SOCKETS, *(_SOCKETS_6 if taps.kernel_has_ipv6() else ())):
                            sockets.append(opened.enter_context(make(bridge)))
                    self._say(answers, sockets)
                self._said[bridge] = answers

    def _answers(self, network: Network, ports: list[Port]) -> tuple[Network, list[Port], Answers]:
        """What is answered on a network, with what it was made of: it is made again only where that has changed."""
        bridge = names.bridge(network.id)
        network = replace(network, peers=(), remotes=())
        made = self._made.get(bridge)
        if made is not None and made[:2] == (network, ports):
            return made
        answers = Answers(
            bridge=bridge,
            leases=dhcp.leases(ports, network),
            leases_6=ipv6.leases(ports, network),
            routers=ipv6.advertised(network),
            zone=dns.zone(network),
        )
        return network, ports, answers

    def tell(self, documents: Mapping[int, dict[str, bytes] | None]) -> None:
        """What the guests on the ports of these numbers are told about themselves; None: nothing any more.

        OSError where the responder cannot be reached. It is ended then, and the next one is told.
        """
        for number, files in documents.items():
            if files is None:
                self._told.pop(number, None)
            else:
                self._told[number] = files
        if not self.start():
            for number, files in documents.items():
                self._say(Documents(number=number, files=files), [])

    def end(self) -> None:
        """End the responder for good."""
        self.close()
        self.posts.close()
        self._their_posts.close()

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.wait()
            self._process = None
        self._said = {}

    def start(self) -> bool:
        """Have a responder, and return whether it is a new one: that knows all documents, and no network yet."""
        if self._process is not None and self._process.poll() is None:
            return False
        self.close()
        ours, theirs = socket.socketpair()
        ours.settimeout(ACKNOWLEDGE_SECONDS)
        posts = self._their_posts.fileno()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "cumulet.drivers.linux_network.responder", *_user(), f"{POSTS}{posts}"],
                stdin=theirs.fileno(),
                pass_fds=(posts,),
                start_new_session=True,
            )
        self._link = ours
        for number, files in self._told.items():
            self._say(Documents(number=number, files=files), [])
        return True

    def _say(self, said: Answers | Documents, sockets: list[socket.socket]) -> None:
        body = msgspec.json.encode(said)
        if len(body) > LARGEST_MESSAGE_BYTES:
            raise OSError("a network has too many ports for one message to the responder")
        try:
            self._deliver(body, sockets)
        except OSError:
            # It may have read half of the message, or acknowledge it late: what it would tell guests is unknown.
            assert self._process is not None
            self._process.kill()
            self.close()
            raise

    def _deliver(self, body: bytes, sockets: list[socket.socket]) -> None:
        assert self._link is not None
        descriptors = b"".join(struct.pack("i", one.fileno()) for one in sockets)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if sockets else []
        self._link.sendmsg([len(body).to_bytes(4, "big")], rights)
        self._link.sendall(body)
        if self._link.recv(1) != b"\1":
            raise OSError("the responder has ended")


def _user() -> list[str]:
    """Its argument: a user id of its own. Without one, in a user namespace that lacks the id, it keeps ours."""
    return [str(UID)] if user_ids.mapped(range(UID, UID + 1)) else []


def _packets(bridge: str) -> socket.socket:
    """A socket for the frames at the host's end of a bridge in which guests ask by DHCP, or for a router."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        instructions = b"".join(struct.pack("=HBBI", *instruction) for instruction in _ONLY_QUESTIONS)
        kept = ctypes.create_string_buffer(instructions)
        program = struct.pack("HL", len(_ONLY_QUESTIONS), ctypes.addressof(kept))
        packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        packets.bind((bridge, _ETH_P_ALL))
    except BaseException:
        packets.close()
        raise
    return packets


def _callers(bridge: str) -> socket.socket:
    return _listening(bridge, socket.SOCK_STREAM, (METADATA_ADDRESS, 80))


def _questions(bridge: str) -> socket.socket:
    return _listening(bridge, socket.SOCK_DGRAM, (METADATA_ADDRESS, 53))


def _callers_6(bridge: str) -> socket.socket:
    return _listening(bridge, socket.SOCK_STREAM, (METADATA_ADDRESS_6, 80, 0, socket.if_nametoindex(bridge)))


def _questions_6(bridge: str) -> socket.socket:
    return _listening(bridge, socket.SOCK_DGRAM, (METADATA_ADDRESS_6, 53, 0, socket.if_nametoindex(bridge)))


def _listening(bridge: str, kind: int, address: tuple[str, int] | tuple[str, int, int, int]) -> socket.socket:
    """A socket for calls of a service of the host from this bridge: metadata by TCP, DNS by UDP.

    It hears this bridge only, because networks may have the same addresses.
    """
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    callers = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        callers.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        callers.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
        callers.bind(address)
        if kind == socket.SOCK_STREAM:
            callers.listen(64)
    except BaseException:
        callers.close()
        raise
    return callers


_SOCKETS, _SOCKETS_6 = (_packets, _callers, _questions), (_callers_6, _questions_6)
"""The sockets of a network. The responder tells them apart by their types."""
