"""Of the requests to one host only so many bytes are under way, so that a host that reads nothing holds up nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nats.aio.msg import Msg

from cumulet.bus import nats
from cumulet.bus.nats import NatsBus, subject_of
from cumulet.host import codec
from cumulet.host import messages as m
from tests.bus.nats_cloud import NatsCloud, needs_nats
from tests.bus.test_nats import Raw, flushed, started, tell

pytestmark = needs_nats
REQUESTS, EACH = 12, 3_000_000


def test_the_rest_waits_in_its_order_until_some_have_an_answer_and_other_hosts_are_asked(tmp_path: Path) -> None:
    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agent = await started(cloud, "host1")
        slow = await Raw().connect(cloud, "host2")
        came: asyncio.Queue[Msg] = asyncio.Queue()

        async def hear(message: Msg) -> None:
            if message.data:
                came.put_nowait(message)

        await slow.client.subscribe(subject_of("host2"), cb=hear)
        await flushed(slow.client)
        at_once = nats.MOST_BYTES_UNDER_WAY // EACH
        asked = []
        for number in range(REQUESTS):
            much = m.Welcome(session=f"{number} " + "x" * EACH, generations={})
            asked.append(asyncio.create_task(bus.link("host2").send(much)))
        first = [await came.get() for _ in range(at_once)]
        for _ in range(20):
            assert (await bus.link("host1").send(m.AskFacts())).name
        assert came.empty()
        for number in range(REQUESTS):
            message = first[number] if number < at_once else await came.get()
            request = codec.decode_request(message.data)
            assert isinstance(request.message, m.Welcome)
            assert request.message.session.startswith(f"{number} ")
            answer = codec.Answer(request.number, error="HostError", text="no room here")
            await slow.client.publish(message.reply, codec.encode(answer))
        assert all(isinstance(end, m.HostError) for end in await asyncio.gather(*asked, return_exceptions=True))
        assert not bus._rooms
        await slow.client.close()
        await agent.close()

    tell(tmp_path, story)


def test_one_who_gives_up_takes_no_room_and_what_is_alone_has_room() -> None:
    async def told() -> None:
        room = nats._Room()
        most = nats.MOST_BYTES_UNDER_WAY

        async def inside(size: int) -> None:
            async with room.of(size):
                await asyncio.Event().wait()

        async with room.of(2 * most):
            given_up = asyncio.create_task(inside(1))
            next_one = asyncio.create_task(inside(most))
            for task in (given_up, next_one):
                done, _ = await asyncio.wait([task], timeout=0.05)
                assert not done
            given_up.cancel()
            await asyncio.wait([given_up])
            assert room._used == 2 * most
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert room._used == most
        next_one.cancel()
        await asyncio.wait([next_one])
        assert room._used == 0

    asyncio.run(told())
