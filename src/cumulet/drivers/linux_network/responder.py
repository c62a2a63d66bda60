"""The process that answers the guests of a host: DHCP, DNS, router advertisements, metadata. It can do nothing else.

The agent starts it as root, and it gives up all privileges before it reads anything that guests send. The agent hands
it open sockets for each network, and what to answer there. It ends when the agent does. Its command line is
`python -m ...responder UID posts=SOCKET`; its standard input is the agent's socket, and by the socket `SOCKET`, a
number, it asks the agent whether a guest's password is taken. An agent of an earlier version, which may start it after
Cumulet was upgraded, has no such socket: then none is taken.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import selectors
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from cumulet.confined import jail
from cumulet.drivers.linux_network import dhcp, dns, ipv6, metadata
from cumulet.drivers.linux_network.names import BRIDGE_MAC
from cumulet.drivers.linux_network.visitors import VISIT_SECONDS, Visitor, Visitors, number_of, project_in
from cumulet.host.record import Record

LARGEST_MESSAGE_BYTES = 64 << 20
"""Of one message of the agent's. 10,000 ports on a network are 4 MB."""
POSTS = "posts="
"""Before the number of a socket, on the command line."""
LARGEST_POST_BYTES = 16_384
"""Of a message about a password: its 1020 bytes may each be written as six."""
SECONDS_BETWEEN_WORDS = 60.0
"""How often at most it says that questions had no answer."""
_LENGTH_BYTES = 4
_MOST_SOCKETS = 5
"""For each network: one for guests' frames, and by IPv4 and by IPv6 one for calls of the metadata service and one for
DNS."""


class Answers(Record, frozen=True, tag="network"):
    """What to answer on a network from now on. For a new network its sockets come along. `gone`: the network ends."""

    bridge: str
    leases: tuple[dhcp.Lease, ...] = ()
    leases_6: tuple[ipv6.Lease, ...] = ()
    routers: tuple[ipv6.Advertised, ...] = ()
    zone: dns.Zone | None = None
    gone: bool = False


class Documents(Record, frozen=True, tag="port"):
    """What the guest on the port of this number is told about itself; `files` None: nothing."""

    number: int
    files: dict[str, bytes] | None


class Post(Record, frozen=True):
    """To the agent: the guest on the port of this number posts a password. `visit` names the connection."""

    visit: int
    number: int
    content: str


class Taken(Record, frozen=True):
    """The agent's answer to a `Post`. `done` False: there is a password already. None: it could not be kept."""

    visit: int
    done: bool | None


class Asked:
    """How many questions for names have come in this second, of each network and of each address there."""

    def __init__(self) -> None:
        self._second = 0
        self._counts: dict[tuple[str, str], int] = {}

    def may(self, bridge: str, address: str, now_s: float) -> bool:
        """Count a question; whether it is to be answered."""
        if int(now_s) != self._second:
            self._second, self._counts = int(now_s), {}
        for who, most in ((address, dns.QUESTIONS_A_SECOND), ("", dns.QUESTIONS_A_SECOND_OF_A_NETWORK)):
            count = self._counts.get((bridge, who), 0)
            if count >= most:
                return False
            self._counts[bridge, who] = count + 1
        return True


class Unanswered:
    """Questions whose answering failed because of a mistake of ours. Nothing that guests say is logged."""

    def __init__(self) -> None:
        self.count = 0
        self._say_at = 0.0

    def failed(self, error: Exception) -> None:
        """Count a question; say so on the standard error, at most once in `SECONDS_BETWEEN_WORDS`."""
        self.count += 1
        now = time.monotonic()
        if now < self._say_at:
            return
        self._say_at = now + SECONDS_BETWEEN_WORDS
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"
        with contextlib.suppress(OSError):
            sys.stderr.write(
                f"a guest's question has no answer because of {type(error).__name__} at {where}; "
                f"so far: {self.count} of this kind\n"
            )
            sys.stderr.flush()


class Responder:
    """Sockets and answers by bridge, documents by port."""

    def __init__(self, agent: socket.socket, posts: socket.socket | None) -> None:
        self._agent = agent
        self._posts = posts
        self._selector = selectors.DefaultSelector()
        self._selector.register(agent, selectors.EVENT_READ)
        if posts is not None:
            posts.setblocking(False)
            self._selector.register(posts, selectors.EVENT_READ, lambda: self._hear_taken(posts))
        self._visits = itertools.count(int.from_bytes(os.urandom(6), "big"))
        """Not those of an earlier responder, whose answers may be on their way."""
        self._sockets: dict[str, list[socket.socket]] = {}
        self._leases: dict[str, dict[str, dhcp.Lease]] = {}
        self._leases_6: dict[str, dict[str, ipv6.Lease]] = {}
        self._routers: dict[str, tuple[ipv6.Advertised, ...]] = {}
        self._known: dict[str, dns.Known] = {}
        self._asked = Asked()
        self._advertise_at = time.monotonic() + ipv6.ADVERTISE_SECONDS
        self._documents: dict[int, dict[str, bytes]] = {}
        self._projects: dict[int, str | None] = {}
        """By port, of those that have documents."""
        self._visitors = Visitors()
        self._tokens = metadata.Tokens(os.urandom(32))
        self.unanswered = Unanswered()

    def run(self) -> None:
        """Until the agent has ended."""
        while True:
            until = max(0.0, self._advertise_at - time.monotonic())
            for key, _ in self._selector.select(min(VISIT_SECONDS, until) if self._visitors else until):
                if key.data is None:
                    if not self._listen():
                        return
                else:
                    self._one(key.data)
            if self._advertise_at <= time.monotonic():
                self._advertise_at = time.monotonic() + ipv6.ADVERTISE_SECONDS
                for bridge, routers in self._routers.items():
                    self._advertise(bridge, routers)
            for visitor in [one for one in self._visitors if one.until < time.monotonic()]:
                self._leave(visitor)

    def _one(self, answer: Callable[[], None]) -> None:
        """Answer one packet of a guest's. Whatever is in it, the next one is answered."""
        try:
            answer()
        except OSError:  # The bridge is gone, or busy: the guest asks again.
            pass
        except Exception as error:
            self.unanswered.failed(error)

    # -- the agent

    def _listen(self) -> bool:
        """Take one message of the agent's, act on it, and acknowledge it. False where the agent has ended."""
        head, ancillary, _, _ = self._agent.recvmsg(_LENGTH_BYTES, socket.CMSG_SPACE(4 * _MOST_SOCKETS))
        if len(head) < _LENGTH_BYTES:
            return False
        body = b""
        while len(body) < int.from_bytes(head, "big"):
            part = self._agent.recv(int.from_bytes(head, "big") - len(body))
            if not part:
                return False
            body += part
        said = msgspec.json.decode(body, type=Answers | Documents)
        if isinstance(said, Answers):
            self._take(said, _descriptors(ancillary))
        elif said.files is None:
            self._documents.pop(said.number, None)
            self._projects.pop(said.number, None)
        else:
            self._documents[said.number] = said.files
            self._projects[said.number] = project_in(said.files)
        self._agent.send(b"\1")
        return True

    def _take(self, answers: Answers, opened: list[int]) -> None:
        bridge = answers.bridge
        former_routers = self._routers.pop(bridge, ())
        if bridge in self._sockets and not answers.gone:
            gone = [router for router in former_routers if router.mac not in {one.mac for one in answers.routers}]
            self._advertise(bridge, gone, gone=True)
        for former in self._sockets.pop(bridge, []) if opened or answers.gone else []:
            self._selector.unregister(former)
            former.close()
        if answers.gone:
            self._leases.pop(bridge, None)
            self._leases_6.pop(bridge, None)
            self._known.pop(bridge, None)
            return
        self._leases[bridge] = {lease.mac: lease for lease in answers.leases}
        self._leases_6[bridge] = {lease.mac: lease for lease in answers.leases_6}
        self._known.pop(bridge, None)
        if answers.zone is not None:
            self._known[bridge] = dns.Known(answers.zone)
        if opened:
            packets, *callers = self._sockets[bridge] = [socket.socket(fileno=descriptor) for descriptor in opened]
            for place in (packets, *callers):
                place.setblocking(False)
            self._selector.register(packets, selectors.EVENT_READ, lambda: self._answer(bridge, packets))
            for place in callers:
                serve = self._welcome if place.type == socket.SOCK_STREAM else self._name
                self._selector.register(place, selectors.EVENT_READ, partial(serve, bridge, place))
        if answers.routers:
            self._routers[bridge] = answers.routers
            self._advertise(bridge, [router for router in answers.routers if router not in former_routers])

    # -- guests

    def _advertise(self, bridge: str, routers: Iterable[ipv6.Advertised], *, gone: bool = False) -> None:
        """Advertise routers to all guests on a bridge. A guest that misses it asks for it, or hears the next one."""
        for router in routers:
            with contextlib.suppress(OSError):
                self._sockets[bridge][0].send(ipv6.advertisement(router, gone=gone))

    def _answer(self, bridge: str, packets: socket.socket) -> None:
        frame = packets.recv(dhcp.LARGEST_FRAME_BYTES)
        reply = dhcp.answer(frame, self._leases[bridge], BRIDGE_MAC)
        if reply is not None:
            packets.send(reply)
        for frame_6 in ipv6.answers(frame, self._routers.get(bridge, ()), self._leases_6[bridge]):
            packets.send(frame_6)

    def _name(self, bridge: str, questions: socket.socket) -> None:
        """Answer a question for a name on a bridge: it has come from there, and only that network's names are known."""
        question, caller = questions.recvfrom(dns.LARGEST_QUESTION_BYTES)
        known = self._known.get(bridge)
        if known is not None and self._asked.may(bridge, str(caller[0]), time.monotonic()):
            reply = dns.answer(question, known)
            if reply is not None:
                questions.sendto(reply, caller)

    def _welcome(self, bridge: str, callers: socket.socket) -> None:
        """Accept a connection. Where there are too many, another one ends for it."""
        connection, _ = callers.accept()
        number = number_of(connection)
        if (other := self._visitors.in_the_way(number)) is not None:
            self._leave(other)
        connection.setblocking(False)
        visitor = Visitor(connection, number, self._projects.get(number) or bridge)
        self._visitors.add(visitor)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._attend(visitor))

    def _attend(self, visitor: Visitor) -> None:
        """Read until the request is complete, then write until the answer is sent."""
        if visitor not in self._visitors:
            return  # It left since it was seen that it had something to read or to write.
        try:
            if not visitor.reply:
                part = visitor.connection.recv(metadata.MOST_REQUEST_BYTES)
                visitor.received += part
                if not part or len(visitor.received) > metadata.MOST_REQUEST_BYTES:
                    self._leave(visitor)
                    return
                if not metadata.complete(visitor.received):
                    return
                documents = self._documents.get(visitor.number)
                asked = (visitor.received, documents, self._tokens, visitor.number, time.time())
                said = metadata.posted(*asked)
                if isinstance(said, str):
                    self._post(visitor, said)
                    return
                visitor.reply = said or metadata.answer(*asked)
                self._selector.modify(visitor.connection, selectors.EVENT_WRITE, lambda: self._attend(visitor))
            sent = visitor.connection.send(visitor.reply)
            visitor.reply = visitor.reply[sent:]
            if not visitor.reply:
                self._leave(visitor)
        except BlockingIOError:
            return
        except Exception:
            self._leave(visitor)
            raise

    def _post(self, visitor: Visitor, content: str) -> None:
        """Ask the agent. Until it has answered, or the visit's time is over, nothing is read or written."""
        visitor.visit = next(self._visits)
        self._selector.unregister(visitor.connection)
        if self._posts is None:
            self._answer_post(visitor, None)
            return
        try:
            said = Post(visit=visitor.visit, number=visitor.number, content=content)
            self._posts.send(msgspec.json.encode(said))
        except OSError:  # It has not heard the last ones yet.
            self._answer_post(visitor, None)

    def _hear_taken(self, posts: socket.socket) -> None:
        taken = msgspec.json.decode(posts.recv(LARGEST_POST_BYTES), type=Taken)
        for visitor in [one for one in self._visitors if one.visit == taken.visit]:
            self._answer_post(visitor, taken.done)

    def _answer_post(self, visitor: Visitor, done: bool | None) -> None:
        visitor.visit, visitor.reply = None, metadata.taken(done)
        self._selector.register(visitor.connection, selectors.EVENT_WRITE, lambda: self._attend(visitor))

    def _leave(self, visitor: Visitor) -> None:
        self._visitors.remove(visitor)
        if visitor.visit is None:
            self._selector.unregister(visitor.connection)
        visitor.connection.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content)
    return list(found)


def main() -> None:
    agent, posts = socket.socket(fileno=0), None
    jail.drop_capabilities()
    for argument in sys.argv[1:]:
        if argument.startswith(POSTS):
            posts = socket.socket(fileno=int(argument.removeprefix(POSTS)))
        else:
            jail.become_user(int(argument), int(argument), [])
    jail.let_go_of_capabilities()
    jail.check(jail.libc.prctl(jail.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    Responder(agent, posts).run()


if __name__ == "__main__":
    main()
