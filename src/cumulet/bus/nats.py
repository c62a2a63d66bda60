"""Agents on other machines: JSON messages as requests and answers over NATS, with a certificate on both sides.

A host's agent listens on the one subject that is its own (`subject_of`), and may publish nothing but answers. The bus
keeps nothing: what is lost is asked again. A request is given up as soon as no answer can come any more: the bus is
away, no agent listens, or the agent is not at the request on the connection by which it came (the server takes no
answers of a connection that was lost). To find that out, the agent is asked about the request while that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from cumulet.bus.nats_connection import NatsConnection
from cumulet.host import codec
from cumulet.host import messages as m
from cumulet.host.codec import Answer, NotUnderstood, Request
from cumulet.host.link import Answers

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

log = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT")

HOSTS = "cumulet.host"
ANSWERS = "cumulet.answers"
MOST_BYTES = 4 * 1024 * 1024
"""Of one message at our own server. An operator's server may take less; a longer message is refused in words."""
MOST_AT_ONCE = 1000
"""Requests an agent works on; further ones are refused."""
MOST_BYTES_UNDER_WAY = 16 * 1024 * 1024
"""Of requests to one host that have no answer yet; further ones wait. With more than 32 MiB for a client that does not
read, the server holds up whoever sends them until it cuts that client off, and so everybody's requests."""
STILL_THERE_SECONDS = 2.0
"""While a request waits, its agent is asked about it so often."""
FIRST_LOOK_SECONDS = 0.2
"""When it is asked for the first time."""
ABOUT = "About"
"""The header of such a question, which has no content: the subject to which the answer of the request goes."""
NOT_UNDER_WAY = b" not under way"
"""The end of what an agent says of a request that it is not at: it never came, or its answer was sent or is lost."""
CONTROL_PLANE_PING_SECONDS = 1
"""The connection is lost after three pings without an answer. That must be long before a host counts as silent, or as
one whose lease has run out: a control plane that is cut off must not take its hosts for lost."""


def subject_of(host: str) -> str:
    """A host's own subject. A dot would part the subject; a host's name has no underscore."""
    return f"{HOSTS}.{host.replace('.', '_')}"


class NoAnswer(Exception):
    """No answer will come; the message says why."""


class _Lost(NoAnswer):
    """The connection was lost."""


class _Room:
    """`MOST_BYTES_UNDER_WAY` of one host. Whoever comes first is let in first."""

    def __init__(self) -> None:
        self._used = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Waits until so many bytes have room. What is alone has room, whatever its size."""
        async with self._turn:
            while self._used and self._used + size > MOST_BYTES_UNDER_WAY:
                self._freed.clear()
                await self._freed.wait()
            self._used += size
        try:
            yield
        finally:
            self._used -= size
            self._freed.set()


class NatsBus:
    """A control plane's connection: made once a server answers, and made again whenever it is lost."""

    def __init__(
        self, servers: Sequence[str], tls: ssl.SSLContext, *, name: str, lost: Callable[[], None] = lambda: None
    ) -> None:
        """`lost`: called when a connection has ended."""
        self._say_lost = lost
        self._connection = NatsConnection(
            servers,
            lambda: tls,
            name=name,
            subscribe=self._subscribe,
            lost=self._lost,
            ping_seconds=CONTROL_PLANE_PING_SECONDS,
        )
        self._answers = f"{ANSWERS}.{secrets.token_hex(8)}"
        self._number = 0
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._rooms: WeakValueDictionary[str, _Room] = WeakValueDictionary()

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        self._connection.start()

    async def connected(self) -> None:
        """Wait until it is."""
        await self._connection.made()

    @property
    def is_connected(self) -> bool:
        return self._connection.client is not None

    @property
    def lost_seconds(self) -> float | None:
        """For how long there has been no connection; None: there is one."""
        return self._connection.lost_seconds

    def link(self, host: str) -> NatsLink:
        return NatsLink(self, host)

    async def _subscribe(self, client: Client) -> None:
        await client.subscribe(f"{self._answers}.*", cb=self._answered)

    async def _answered(self, message: Msg) -> None:
        number = message.subject.rpartition(".")[2]
        future = self._waiting.get(int(number)) if number.isdecimal() else None
        if future is None or future.done():
            return  # It is late, or a second answer.
        if message.headers is not None and message.headers.get("Status") == "503" and not message.data:
            future.set_exception(NoAnswer("no agent listens"))
        else:
            future.set_result(message.data)

    def _lost(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_Lost("the connection to the bus was lost"))
        self._say_lost()

    def room(self, subject: str) -> _Room:
        """For the requests to this host, as long as there are any."""
        return self._rooms.setdefault(subject, _Room())

    def number(self) -> int:
        """Of the next request."""
        self._number += 1
        return self._number

    def answers_to(self, number: int) -> str:
        """The subject to which the answer of a request goes."""
        return f"{self._answers}.{number}"

    async def ask(self, subject: str, payload: bytes, number: int, *, about: str | None = None) -> bytes:
        """One request and its answer's bytes. `about`: where the answer goes of the request that it is about. NoAnswer;
        MessageTooLong."""
        from nats.errors import Error, MaxPayloadError

        client = self._connection.client
        if client is None:
            raise m.BusLost("the bus is not connected")
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            headers = None if about is None else {ABOUT: about}
            await client.publish(subject, payload, reply=self.answers_to(number), headers=headers)
            return await future
        except MaxPayloadError:
            raise m.MessageTooLong(client.max_payload) from None
        except Error as error:
            kind = _Lost if self._connection.client is None else NoAnswer
            raise kind(f"the bus: {error}") from error
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        await self._connection.close()


class NatsLink:
    """A `host.link.Link` to the agent that listens on a host's subject."""

    def __init__(self, bus: NatsBus, host: str) -> None:
        self._bus = bus
        self._subject = subject_of(host)

    async def send(self, message: m.Message[AnswerT]) -> AnswerT:
        number = self._bus.number()
        request = codec.encode(Request(number, message))
        async with self._bus.room(self._subject).of(len(request)):
            answer = await self._answer_to(number, request)
        return codec.value_of(answer, message)

    async def _answer_to(self, number: int, request: bytes) -> Answer:
        asked = asyncio.create_task(self._bus.ask(self._subject, request, number), name="bus-ask")
        watched = asyncio.create_task(self._as_long_as_it_is_at(number), name="bus-watch")
        try:
            await asyncio.wait((asked, watched), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                watched.result()  # Raises what ended it.
            return codec.decode_answer(asked.result())
        except _Lost as error:
            raise m.BusLost(str(error)) from error
        except NoAnswer as error:
            raise m.HostUnreachable(str(error)) from error
        except NotUnderstood as error:
            raise m.HostUnreachable(f"what answered is no agent of this version: {error}") from error
        finally:
            for task in (asked, watched):
                task.cancel()
            await asyncio.gather(asked, watched, return_exceptions=True)

    async def _as_long_as_it_is_at(self, number: int) -> None:
        """Never returns; raises NoAnswer once no answer to this request can come any more.

        An agent of the last version says only who it is. If that has changed, it was asked by another connection.
        """
        first: bytes | None = None
        while True:
            await asyncio.sleep(FIRST_LOOK_SECONDS if first is None else STILL_THERE_SECONDS)
            try:
                async with asyncio.timeout(STILL_THERE_SECONDS):
                    about = self._bus.answers_to(number)
                    incarnation = await self._bus.ask(self._subject, b"", self._bus.number(), about=about)
            except TimeoutError:
                continue  # Slow is not gone.
            # Messages keep their order: an answer that the agent has sent has come before this.
            if incarnation.endswith(NOT_UNDER_WAY):
                raise NoAnswer("the agent is not at it: the request or its answer was lost")
            if first is not None and incarnation != first:
                raise NoAnswer("the agent has started anew, or lost the connection by which it was asked")
            first = incarnation

    async def close(self) -> None:
        """The bus goes on: others use it."""


class NatsAgent:
    """An agent that answers on its host's subject, until it is closed."""

    def __init__(
        self, agent: Answers, *, name: str, servers: Sequence[str], tls: Callable[[], ssl.SSLContext], incarnation: str
    ) -> None:
        """`incarnation`: differs at each start; connections are counted after it. `tls`: called for each new
        connection, because certificates are renewed."""
        self._agent = agent
        self._subject = subject_of(name)
        self._incarnation = incarnation
        self._connections = 0
        self._asked_at = time.monotonic()
        self._connection = NatsConnection(servers, tls, name=name, subscribe=self._subscribe, lost=lambda: None)
        self._work: set[asyncio.Task[None]] = set()
        self._under_way: dict[str, int] = {}
        """By the subject of its answer, each request under way: the connection by which it came."""

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        self._connection.start()

    async def connected(self) -> None:
        """Wait until it listens."""
        await self._connection.made()

    @property
    def is_connected(self) -> bool:
        return self._connection.client is not None

    @property
    def quiet_seconds(self) -> float:
        """How long nobody has asked it anything: hosts are asked all the time, as long as their cloud knows them."""
        return time.monotonic() - self._asked_at

    async def move_to(self, servers: Sequence[str]) -> None:
        """From now on the bus is at these servers. Those where it is already change nothing."""
        await self._connection.move_to(servers)

    async def _subscribe(self, client: Client) -> None:
        self._connections += 1
        await client.subscribe(self._subject, cb=self._asked)

    async def _asked(self, message: Msg) -> None:
        self._asked_at = time.monotonic()
        if not message.reply:
            return
        if not message.data:
            about = (message.headers or {}).get(ABOUT)
            gone = about is not None and self._under_way.get(about) != self._connections
            said = f"{self._incarnation} {self._connections}".encode()
            await self._say(message.reply, said + NOT_UNDER_WAY if gone else said)
            return
        try:
            request = codec.decode_request(message.data)
        except NotUnderstood as error:
            log.warning("a request was not understood: %s", error)
            await self._say(message.reply, codec.encode(Answer(0, error="HostError", text=f"not understood: {error}")))
            return
        if len(self._work) >= MOST_AT_ONCE:
            full = Answer(request.number, error="HostError", text=f"{MOST_AT_ONCE} requests are under way here")
            await self._say(message.reply, codec.encode(full))
            return
        self._under_way[message.reply] = self._connections
        task = asyncio.create_task(self._answer(message.reply, request), name="bus-answer")
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _answer(self, reply: str, request: Request) -> None:
        try:
            answer = await codec.answer(self._agent, request)
            most = MOST_BYTES if (client := self._connection.client) is None else client.max_payload
            await self._say(reply, codec.encode_answer(answer, most=most))
        finally:
            self._under_way.pop(reply, None)

    async def _say(self, reply: str, payload: bytes) -> None:
        from nats.errors import Error

        client = self._connection.client
        if client is not None:  # Without a connection, the caller already knows that no answer will come.
            with contextlib.suppress(Error):
                await client.publish(reply, payload)

    async def close(self) -> None:
        """Close. Requests under way may or may not be finished, as when the process ends."""
        await self._connection.close()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
