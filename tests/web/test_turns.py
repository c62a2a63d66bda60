"""Turns on the event loop: the tests count what comes before a caller's turn, and measure no time."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from cumulet.web.app import App
from cumulet.web.asgi import Message, Scope
from cumulet.web.bodies import LONG_BODY
from cumulet.web.connections import CONNECTION, Connections, Link
from cumulet.web.context import Cloud
from cumulet.web.operation import Caller
from cumulet.web.server import Server
from cumulet.web.turns import ALONE_PASSES, MOST_IN_A_PASS, MOST_OF_ONE_ALONE, Turns
from cumulet.web.unsent import AT_ONCE
from tests.web.conftest import OTHER_PROJECT
from tests.web.test_server import certificate, serving
from tests.web.widgets import SERVICES

__all__ = ["certificate"]

FLOOD = 50


def order_of(turns: Turns, lanes: list[str]) -> list[str]:
    """The order of turns, if each lane asks once, in this order, all in one pass."""
    had: list[str] = []

    async def ask(lane: str) -> None:
        await turns.take(lane)
        had.append(lane)

    async def run() -> None:
        await asyncio.gather(*map(ask, lanes))

    asyncio.run(run())
    return had


def test_who_comes_last_waits_for_one_turn_of_each_other_caller() -> None:
    had = order_of(Turns(), ["flooder"] * FLOOD + ["somebody"])
    assert had.index("somebody") == 1
    assert had.count("flooder") == FLOOD


def test_callers_have_their_turns_round_robin_where_they_are_more_than_a_pass_serves() -> None:
    names = [f"flooder {n}" for n in range(3 * MOST_IN_A_PASS)]
    had = order_of(Turns(), [name for name in names for _ in range(5)] + ["somebody"])
    most = len(names) + MOST_IN_A_PASS  # Those of the first pass did not wait, and are the first who do.
    assert max(had.index(name) for name in [*names, "somebody"]) <= most
    assert len(had) == 5 * len(names) + 1


def test_in_one_pass_a_caller_has_one_turn() -> None:
    """Other work of the event loop is done in every pass."""
    turns = Turns()
    passes: list[int] = []

    async def ask() -> None:
        passes.append(await turns.take("flooder"))

    async def run() -> None:
        await asyncio.gather(*(ask() for _ in range(FLOOD)))

    asyncio.run(run())
    assert len(set(passes)) == FLOOD


def test_who_does_not_wait_any_more_takes_no_turn_from_the_next() -> None:
    turns = Turns()

    async def story() -> list[int]:
        await turns.take("somebody")
        first, gone, *others = [asyncio.create_task(turns.take("somebody")) for _ in range(4)]
        await asyncio.sleep(0)  # The first has its turn, and the others wait.
        gone.cancel()
        return [await one - await first for one in others]

    assert asyncio.run(story()) == [1, 2]


def test_it_is_known_whether_turns_last() -> None:
    turns = Turns()

    async def story() -> list[bool]:
        known = [turns.busy()]
        await turns.take("somebody")
        known.append(turns.busy())
        await asyncio.sleep(0)
        return [*known, turns.busy()]

    assert asyncio.run(story()) == [False, True, False]


async def be_alone(turns: Turns) -> None:
    for _ in range(ALONE_PASSES + 2):
        await turns.take("flooder")
        await asyncio.sleep(0)


def test_who_has_been_alone_for_long_has_several_turns_in_a_pass() -> None:
    """The first of them without waiting, and then as many in each pass: not all that they ask for."""

    async def run() -> list[int]:
        turns = Turns()
        await be_alone(turns)
        return await asyncio.gather(*(turns.take("flooder") for _ in range(3 * MOST_OF_ONE_ALONE)))

    passes = asyncio.run(run())
    assert [passes.count(one) for one in sorted({*passes})] == [MOST_OF_ONE_ALONE] * 3


def test_who_was_alone_has_one_turn_in_a_pass_as_soon_as_somebody_else_asks() -> None:
    had: list[tuple[str, int]] = []

    async def ask(turns: Turns, lane: str) -> None:
        had.append((lane, await turns.take(lane)))

    async def run() -> None:
        turns = Turns()
        await be_alone(turns)
        first = [ask(turns, "flooder") for _ in range(3 * MOST_OF_ONE_ALONE)]
        await asyncio.gather(*first, ask(turns, "somebody"))

    asyncio.run(run())
    lanes = [lane for lane, _ in had]
    assert lanes.index("somebody") == MOST_OF_ONE_ALONE, "behind the turns of one pass"
    later = [turn for lane, turn in had[MOST_OF_ONE_ALONE:] if lane == "flooder"]
    assert len(later) == len({*later}) == 2 * MOST_OF_ONE_ALONE


def test_who_asks_alone_waits_for_nobody() -> None:
    async def run() -> None:
        turns = Turns()
        for _ in range(3):
            asking = turns.take("somebody")
            try:
                asking.send(None)
            except StopIteration:
                pass
            else:
                raise AssertionError("it waited")
            await asyncio.sleep(0)

    asyncio.run(run())


def test_a_turn_of_somebody_who_went_away_is_the_next_ones() -> None:
    async def run() -> None:
        turns = Turns()
        await turns.take("flooder")
        gone = [asyncio.create_task(turns.take(f"{n}")) for n in range(2 * MOST_IN_A_PASS)]
        left = asyncio.create_task(turns.take("flooder"))
        await asyncio.sleep(0)
        for one in gone:
            one.cancel()
        await asyncio.wait_for(left, 10)

    asyncio.run(run())


class Asked:
    """Requests straight into the application, begun in one pass of the event loop, and their order when answered."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.answered: list[str] = []
        self.passes: dict[str, list[int]] = {}
        """The passes in which something was sent, by client."""
        self.together: asyncio.Barrier | None = None
        """What bodies wait for."""

    async def ask(
        self,
        name: str,
        token: str,
        *,
        link: Link | None = None,
        path: str = "/widgets/w1",
        body: bytes = b"",
        address: str = "192.0.2.1",
    ) -> None:
        """Send a request: POST with a body, else GET."""

        async def receive() -> Message:
            if self.together is not None:
                await self.together.wait()
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            self.passes.setdefault(name, []).append(self.app.registry.turns.now)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.answered.append(name)

        headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"x-auth-token", token.encode())]
        scope: Scope = {
            "type": "http",
            "method": "POST" if body else "GET",
            "path": f"/compute/v2.1{path}",
            "raw_path": f"/compute/v2.1{path}".encode(),
            "query_string": b"",
            "scheme": "https",
            "server": ("127.0.0.1", 1),
            "client": (address, 1),
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
        }
        if link is not None:
            scope[CONNECTION] = link
        await self.app(scope, receive, send)


def asked(cloud: Cloud, requests: Callable[[Asked], list[Awaitable[None]]]) -> Asked:
    found = Asked(App(cloud, SERVICES))

    async def run() -> None:
        await asyncio.gather(*requests(found))

    asyncio.run(run())
    return found


def test_a_request_does_not_wait_behind_those_of_another_address(cloud: Cloud) -> None:
    def requests(to: Asked) -> list[Awaitable[None]]:
        flood = [to.ask("flooder", "nobody's") for _ in range(FLOOD)]
        return [*flood, to.ask("somebody", "other", address="192.0.2.2")]

    found = asked(cloud, requests)
    assert found.answered.index("somebody") <= 2
    assert found.answered.count("flooder") == FLOOD


def test_a_connection_that_showed_a_token_does_not_wait_behind_others_of_its_address(cloud: Cloud) -> None:
    def requests(to: Asked) -> list[Awaitable[None]]:
        flood = [to.ask("flooder", "member") for _ in range(FLOOD)]
        connection = Connections(most=9, most_of_one=9).admit("192.0.2.1", list)
        assert connection is not None
        link = Link(Connections(most=9, most_of_one=9), connection)
        link.known(f"project {OTHER_PROJECT}")
        return [*flood, to.ask("somebody", "other", link=link)]

    assert asked(cloud, requests).answered.index("somebody") <= 2


def test_who_shows_another_token_than_before_waits_among_the_requests_of_that_one(cloud: Cloud) -> None:
    """A flooder with a second project has two lanes, not one for each connection."""

    def requests(to: Asked) -> list[Awaitable[None]]:
        links = []
        for n in range(FLOOD):
            connection = Connections(most=9, most_of_one=9).admit("192.0.2.1", list)
            assert connection is not None
            links.append(link := Link(Connections(most=9, most_of_one=9), connection))
            link.known(f"project {n}")
        flood = [to.ask("flooder", "member", link=link) for link in links]
        return [*flood, to.ask("somebody", "other", address="192.0.2.2")]

    found = asked(cloud, requests)
    passes = found.passes["flooder"]
    assert len({*passes}) == FLOOD, "in each pass one of them is worked on"


def test_bodies_that_come_at_once_are_read_in_a_pass_each(cloud: Cloud) -> None:
    body = json.dumps({"widget": {"name": "x"}}).encode()

    def requests(to: Asked) -> list[Awaitable[None]]:
        to.together = asyncio.Barrier(FLOOD)
        return [to.ask(f"{n}", "member", path="/widgets", body=body) for n in range(FLOOD)]

    found = asked(cloud, requests)
    assert len({turn for passes in found.passes.values() for turn in passes}) == FLOOD


def test_a_long_body_is_read_in_one_turn_and_judged_in_another(cloud: Cloud) -> None:
    def answered_in(size: int) -> int:
        body = json.dumps({"widget": {"name": "x" * size}}).encode()
        return asked(cloud, lambda to: [to.ask("it", "member", path="/widgets", body=body)]).passes["it"][0]

    assert answered_in(LONG_BODY) == answered_in(LONG_BODY - 100) + 1


def test_answers_that_are_known_at_once_are_sent_in_a_pass_each(cloud: Cloud) -> None:
    class Slow:
        def __init__(self) -> None:
            self.together = asyncio.Barrier(FLOOD)

        async def authenticate(self, token: str, *, service: str, method: str, path: str) -> Caller | None:
            await self.together.wait()
            return None

    def requests(to: Asked) -> list[Awaitable[None]]:
        return [to.ask(f"{n}", "anybody's") for n in range(FLOOD)]

    found = asked(msgspec.structs.replace(cloud, identity=Slow()), requests)
    assert len({turn for passes in found.passes.values() for turn in passes}) == FLOOD


def test_handshakes_have_turns_of_their_address(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    class Noted(Turns):
        async def take(self, lane: str) -> int:
            lanes.append(lane)
            return await super().take(lane)

    lanes: list[str] = []

    async def test(running: Server, context: ssl.SSLContext) -> None:
        running._inner.turns = Noted()
        _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        writer.close()

    serving(cloud, certificate, test)
    assert lanes == ["address 127.0.0.1"]


def test_a_long_answer_is_sent_in_pieces_each_in_its_turn(cloud: Cloud) -> None:
    def requests(to: Asked) -> list[Awaitable[None]]:
        return [to.ask("long", "member", path="/widgets/w1/large")]

    passes = asked(cloud, requests).passes["long"]
    assert len(passes) > 2
    assert len({*passes}) >= len(passes) - 2, f"at most {AT_ONCE} bytes in one"
