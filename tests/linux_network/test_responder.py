"""The responder goes on, whatever a guest sends: here each of its sockets is one of a pair, and no root is needed."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
from collections.abc import Iterator

import msgspec
import pytest

from cumulet.drivers.linux_network import dhcp, dns, ipv6, metadata, responder, visitors
from cumulet.drivers.linux_network.names import BRIDGE_MAC
from cumulet.drivers.linux_network.responder import Answers, Documents, Responder
from cumulet.drivers.linux_network.visitors import MOST_VISITORS, MOST_VISITORS_OF_A_PORT, Visitor, Visitors

BRIDGE = "br1"
MAC = "fa:16:3e:00:00:05"
HOSTILE = b"hostile"
ZONE = dns.Zone(domain="example.org", hosts=(("vm", ("10.0.0.5",)),), prefixes=("10.0.0.0/24",))
LEASE = dhcp.Lease(
    mac=MAC,
    address="10.0.0.5",
    prefix_length=24,
    router="10.0.0.1",
    mtu=1450,
    dns_servers=(),
    domain="example.org",
    hostname="vm",
    routes=(),
)
LEASE_6 = ipv6.Lease(mac=MAC, addresses=("2001:db8::5",), dns_servers=("2001:db8::1",), domain="example.org")
ROUTER = ipv6.Advertised(
    mac="fa:16:3e:00:00:01",
    mtu=1450,
    prefixes=(("2001:db8::/64", True),),
    managed=True,
    other=True,
    dns_servers=("2001:db8::1",),
)
QUESTION = struct.pack("!6H", 7, 0, 1, 0, 0, 0) + b"\2vm\0" + struct.pack("!HH", 1, 1)
DISCOVER = (
    b"\xff" * 6
    + bytes.fromhex(MAC.replace(":", ""))
    + b"\x08\0"
    + b"\x45"
    + bytes(8)
    + b"\x11"
    + bytes(10)
    + struct.pack("!4H", 68, 67, 0, 0)
    + b"\1\1\6\0"
    + bytes(24)
    + bytes.fromhex(MAC.replace(":", ""))
    + bytes(202)
    + b"\x63\x82\x53\x63\x35\1\1\xff"
)


class Told:
    """A responder on a thread, the agent's end of its socket, and a guest's end of each of its others."""

    def __init__(self, stack: contextlib.ExitStack, *, with_posts: bool = True) -> None:
        self.agent, theirs = (stack.enter_context(end) for end in socket.socketpair())
        kinds = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.posts, posts = (stack.enter_context(end) for end in socket.socketpair(*kinds))
        self.responder = Responder(theirs, posts if with_posts else None)
        self.frames, frames = (stack.enter_context(end) for end in socket.socketpair(type=socket.SOCK_SEQPACKET))
        callers = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.metadata = callers.getsockname()
        questions = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        questions.bind(("127.0.0.1", 0))
        self.names = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.names.connect(questions.getsockname())
        for end in (self.agent, self.frames, self.names, self.posts):
            end.settimeout(10)
        self._thread = threading.Thread(target=self.responder.run)
        self._thread.start()
        stack.callback(self._end)
        answers = Answers(bridge=BRIDGE, leases=(LEASE,), leases_6=(LEASE_6,), zone=ZONE)
        self.say(answers, [frames, callers, questions])
        self.say(Documents(number=0, files={"meta_data.json": b"{}"}), [])

    def say(self, said: Answers | Documents, sockets: list[socket.socket]) -> None:
        body = msgspec.json.encode(said)
        socket.send_fds(self.agent, [len(body).to_bytes(4, "big")], [one.fileno() for one in sockets])
        self.agent.sendall(body)
        assert self.agent.recv(1) == b"\1"

    def _end(self) -> None:
        self.agent.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    # -- what a guest asks

    def lease(self) -> bytes:
        self.frames.send(DISCOVER)
        return self.frames.recv(2000)

    def name(self) -> bytes:
        self.names.send(QUESTION)
        return self.names.recv(2000)

    def document(self) -> bytes:
        return self.call(b"GET /openstack/latest/meta_data.json HTTP/1.1\r\n\r\n")

    def call(self, said: bytes) -> bytes:
        with socket.create_connection(self.metadata, timeout=10) as visit:
            visit.sendall(said)
            got = b""
            with contextlib.suppress(ConnectionResetError):
                while part := visit.recv(4096):
                    got += part
            return got


@pytest.fixture
def told() -> Iterator[Told]:
    with contextlib.ExitStack() as stack:
        yield Told(stack)


def answered(told: Told) -> None:
    assert bytes((10, 0, 0, 5)) in told.lease()
    assert told.name().endswith(bytes((10, 0, 0, 5)))
    assert told.document().endswith(b"\r\n\r\n{}")


def test_a_question_that_we_cannot_answer_ends_nothing_but_itself(
    told: Told, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As if each protocol had a mistake that a guest has found."""
    answered(told)

    def planted(module: object, name: str, place: int) -> None:
        original = getattr(module, name)

        def answer(*arguments: object) -> object:
            if HOSTILE in arguments[place]:  # type: ignore[operator]
                raise KeyError("said by a guest")
            return original(*arguments)

        monkeypatch.setattr(module, name, answer)

    planted(dhcp, "answer", 0)
    planted(dns, "answer", 0)
    planted(metadata, "answer", 0)
    for _ in range(50):
        told.frames.send(HOSTILE)
        told.names.send(HOSTILE)
    assert told.call(b"GET /hostile HTTP/1.1\r\n\r\n") == b"", "the visit ends, and does not wait for its time"
    answered(told)
    assert told.responder.unanswered.count == 101
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1, "bounded"
    assert "KeyError at test_responder.py" in said[0]
    assert "said by a guest" not in said[0]


def test_it_says_again_after_a_while_how_many_had_no_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    unanswered, now = responder.Unanswered(), 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for later in (0.0, 0.0, 0.0, responder.SECONDS_BETWEEN_WORDS):
        now += later
        try:
            raise ValueError
        except ValueError as error:
            unanswered.failed(error)
    assert [line.split("so far: ")[1].split()[0] for line in capfd.readouterr().err.splitlines()] == ["1", "4"]


def mutated(chance: random.Random, whole: bytes) -> bytes:
    """One of a guest's messages with some bytes changed, cut off, or made longer."""
    made = bytearray(whole[: chance.randint(0, len(whole))] if chance.random() < 0.4 else whole)
    for _ in range(chance.choice((0, 1, 2, 8))):
        if made:
            made[chance.randrange(len(made))] = chance.choice((0, 1, 4, 63, 127, 128, 255, chance.randrange(256)))
    return bytes(made) + chance.randbytes(chance.choice((0, 0, 5, 300)))


def frame_6(protocol: int, body: bytes) -> bytes:
    link = b"\x33\x33\0\1\0\2" + bytes.fromhex(MAC.replace(":", ""))
    return link + b"\x86\xdd\x60\0\0\0\0\x20" + bytes((protocol, 64)) + b"\xfe\x80" + bytes(30) + body


def test_no_message_of_a_guest_s_raises_anything() -> None:
    chance = random.Random(1)
    client, association = b"\0\1\0\4abcd", b"\0\3\0\x0c" + bytes(12)
    solicit = struct.pack("!4H", 546, 547, 0, 0) + b"\1abc" + client + association
    messages = [
        DISCOVER,
        frame_6(58, b"\x85\0\0\0\0\0\0\0"),
        *(frame_6(17, solicit[:8] + bytes((kind,)) + solicit[9:]) for kind in range(1, 12)),
    ]
    tokens = metadata.Tokens(b"secret")
    heads = [
        b"GET /latest/meta-data/hostname HTTP/1.1\r\nX-aws-ec2-metadata-token: "
        + tokens.give(1, 99).encode()
        + b"\n\n",
        b"PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
    ]
    documents = {"meta_data.json": json.dumps({"uuid": "1", "hostname": "vm"}).encode()}
    reverse = struct.pack("!6H", 7, 0, 1, 0, 0, 0) + b"\1" + b"5\1\x30\1\x30\2" + b"10\7in-addr\4arpa\0\0\x0c\0\1"
    answers = 0
    for _ in range(20_000):
        frame = mutated(chance, chance.choice(messages))
        answers += dhcp.answer(frame, {MAC: LEASE}, BRIDGE_MAC) is not None
        answers += len(ipv6.answers(frame, (ROUTER,), {MAC: LEASE_6}))
        answers += dns.answer(mutated(chance, chance.choice((QUESTION, reverse))), dns.Known(ZONE)) is not None
        answers += bool(metadata.answer(mutated(chance, chance.choice(heads)), documents, tokens, 1, 50.0))
    assert answers > 20_000, "most of it is understood"


POST = b"POST /openstack/latest/password HTTP/1.1\r\nContent-Length: 9\r\n\r\nencrypted"


@pytest.mark.parametrize(("done", "status"), [(True, b"200 OK"), (False, b"409 Conflict"), (None, b"503 ")])
def test_the_agent_is_asked_about_a_password_and_others_are_answered_meanwhile(
    told: Told, done: bool | None, status: bytes
) -> None:
    heard: list[bytes] = []
    guest = threading.Thread(target=lambda: heard.append(told.call(POST)))
    guest.start()
    post = msgspec.json.decode(told.posts.recv(responder.LARGEST_POST_BYTES), type=responder.Post)
    assert (post.number, post.content) == (0, "encrypted")
    answered(told)
    told.posts.send(msgspec.json.encode(responder.Taken(visit=post.visit + 1, done=True)))
    answered(told)
    assert heard == [], "that was the answer to another"
    told.posts.send(msgspec.json.encode(responder.Taken(visit=post.visit, done=done)))
    guest.join(10)
    assert heard[0].startswith(b"HTTP/1.1 " + status)
    answered(told)


def test_an_agent_of_the_version_before_takes_no_password_and_all_else_is_answered() -> None:
    """It runs on while Cumulet is upgraded, and starts the new responder when its own has ended."""
    with contextlib.ExitStack() as stack:
        told = Told(stack, with_posts=False)
        assert told.call(POST).startswith(b"HTTP/1.1 503 ")
        answered(told)


def test_a_guest_that_goes_away_while_the_agent_is_asked_ends_nothing(told: Told) -> None:
    with socket.create_connection(told.metadata, timeout=10) as visit:
        visit.sendall(POST)
        post = msgspec.json.decode(told.posts.recv(responder.LARGEST_POST_BYTES), type=responder.Post)
    told.posts.send(msgspec.json.encode(responder.Taken(visit=post.visit, done=True)))
    answered(told)


def silent(told: Told, stack: contextlib.ExitStack) -> socket.socket:
    """A visit in which no whole request is sent."""
    visit = stack.enter_context(socket.create_connection(told.metadata, timeout=10))
    visit.sendall(b"GET / HTTP/1.1\r\n")
    return visit


def test_a_port_s_silent_visits_give_way_to_its_own_next(told: Told) -> None:
    with contextlib.ExitStack() as stack:
        visits = [silent(told, stack) for _ in range(2 * MOST_VISITORS_OF_A_PORT)]
        for _ in range(3):
            answered(told)
        with contextlib.suppress(ConnectionResetError):
            assert visits[0].recv(1) == b""
    assert told.responder.unanswered.count == 0


def test_one_project_s_many_ports_keep_no_other_project_out(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "MOST_VISITORS", 6)
    for number, project in ((1, "hostile"), (2, "hostile"), (3, "honest")):
        told.say(Documents(number=number, files={"meta_data.json": b'{"project_id": "%s"}' % project.encode()}), [])
    numbers = iter([3] + [1, 2] * 3 + [3] + [1, 2] * 20 + [0])
    monkeypatch.setattr(responder, "number_of", lambda _: next(numbers))
    with contextlib.ExitStack() as stack:
        early = silent(told, stack)
        hostile = [silent(told, stack) for _ in range(6)]
        assert told.document().endswith(b'{"project_id": "honest"}')
        hostile += [silent(told, stack) for _ in range(40)]
        assert told.document().endswith(b"{}"), "one of which only its network is known"
        early.sendall(b"\r\n")
        assert early.recv(4096).startswith(b"HTTP/1.1 200 OK"), "it has kept its place"
        with contextlib.suppress(ConnectionResetError):
            assert hostile[0].recv(1) == b""
    assert told.responder.unanswered.count == 0


def test_two_guests_with_all_their_ports_give_way_to_others_and_first_those_of_them_that_have_not_asked() -> None:
    place = Visitors()
    made: list[Visitor] = []

    def visit(number: int, whose: str) -> None:
        assert place.in_the_way(number) is None
        made.append(Visitor(socket.socket(), number, whose))
        place.add(made[-1])

    visit(1000, "honest")
    for number in range(MOST_VISITORS - 1):
        visit(number // MOST_VISITORS_OF_A_PORT, "hostile")
    made[1].reply = made[0].reply = b"is being sent"
    made[2].visit = 7
    assert place.in_the_way(2000) is place.in_the_way(1000) is made[3]
    assert place.in_the_way(0) is made[3], "of the port that has its full share"
    for visitor in made:
        visitor.reply = b"is being sent"
        visitor.connection.close()
    assert place.in_the_way(2000) is made[1]


def test_who_has_left_is_not_read(told: Told) -> None:
    """It may have been seen that it can be read, and another took its place before it was."""
    told.responder._attend(Visitor(socket.socket(), 0, BRIDGE))


@pytest.mark.parametrize(
    ("told_itself", "project"),
    [(b'{"project_id": "p"}', "p"), (b'{"project_id": 1}', None), (b"{}", None), (b"[]", None), (b"{", None)],
)
def test_the_project_of_a_guest_is_what_it_is_told_itself(told_itself: bytes, project: str | None) -> None:
    assert visitors.project_in({"meta_data.json": told_itself}) == project
    assert visitors.project_in({}) is None
