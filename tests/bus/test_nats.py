"""A real NATS server: an agent's permissions, who is cut off, and what happens when the server or a client ends or
hangs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from nats.aio.client import Client

from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.bus import nats, nats_connection
from cumulet.bus.nats import NatsAgent, NatsBus, subject_of
from cumulet.fleet.nats_server import NatsServer
from cumulet.host import codec
from cumulet.host import messages as m
from tests.bus.nats_cloud import NatsCloud, nats_cloud, needs_nats, user
from tests.bus.test_contract import SERVER, Gate, gate

pytestmark = needs_nats
HOSTS = ("host1", "host2")


def tell(folder: Path, story: Callable[[NatsCloud, NatsBus], Awaitable[None]]) -> None:
    async def told() -> None:
        async with asyncio.timeout(60), nats_cloud(folder, *HOSTS) as cloud:
            bus = cloud.bus()
            await bus.start()
            await bus.connected()
            try:
                await story(cloud, bus)
            finally:
                await bus.close()

    asyncio.run(told())


async def started(cloud: NatsCloud, host: str, *closed: str) -> NatsAgent:
    agent = cloud.agent(host, Agent(name=host, driver=gate(*closed), fence=MemoryFence()))
    await agent.start()
    await agent.connected()
    return agent


async def at_a_request(cloud: NatsCloud, bus: NatsBus) -> tuple[NatsAgent, Gate, asyncio.Task[object]]:
    """An agent whose driver has begun with a request and goes on when it is let, and who waits for the answer."""
    driver = gate(SERVER)
    agent = cloud.agent("host1", Agent(name="host1", driver=driver, fence=MemoryFence()))
    await agent.start()
    await agent.connected()
    asking: asyncio.Task[object] = asyncio.create_task(bus.link("host1").send(m.Observe(server_id=SERVER)))
    await driver.asked.get()
    return agent, driver, asking


async def connect_anew(agent: NatsAgent) -> None:
    client = agent._connection.client
    assert client is not None
    await client.close()
    await agent.connected()


async def flushed(client: Client) -> None:
    for _ in range(2):  # See `NatsConnection`.
        await client.flush()


async def outcome(bus: NatsBus, host: str) -> object:
    return (await asyncio.gather(bus.link(host).send(m.AskFacts()), return_exceptions=True))[0]


class Raw:
    """An attacker with a host's credentials."""

    def __init__(self) -> None:
        self.client = Client()
        self.said: list[str] = []

    async def connect(self, cloud: NatsCloud, host: str) -> Raw:
        async def said(error: Exception) -> None:
            self.said.append(str(error))

        await self.client.connect(
            [cloud.url],
            tls=cloud.tls_of_host(host),
            tls_hostname=nats_connection.SERVER_NAME,
            allow_reconnect=False,
            error_cb=said,
        )
        return self


def test_a_host_s_credentials_are_good_for_its_own_subject_and_answers_only(tmp_path: Path) -> None:
    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agent = await started(cloud, "host1")
        thief = await Raw().connect(cloud, "host2")
        heard: list[str] = []

        async def hear(message: object) -> None:
            heard.append(repr(message))

        forbidden = (">", "*.>", f"{nats.HOSTS}.*", subject_of("host1"), f"{nats.ANSWERS}.>", "$SYS.>", "_INBOX.>")
        for subject in forbidden:
            await thief.client.subscribe(subject, cb=hear)
        await flushed(thief.client)
        assert len([text for text in thief.said if "permissions violation" in text.lower()]) == len(forbidden)
        thief.said.clear()
        for subject in (subject_of("host1"), f"{nats.ANSWERS}.x.1", subject_of("host2"), "anything"):
            await thief.client.publish(subject, codec.encode(codec.Request(1, m.AskFacts())), reply=subject_of("host2"))
        await flushed(thief.client)
        assert len([text for text in thief.said if "permissions violation" in text.lower()]) == 4
        assert (await bus.link("host1").send(m.AskFacts())).name
        assert heard == []
        await thief.client.close()
        await agent.close()

    tell(tmp_path, story)


def test_a_request_is_answered_once_and_a_repeated_one_is_done_once_more_without_harm(tmp_path: Path) -> None:
    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agent = await started(cloud, "host1")
        client = bus._connection.client
        assert client is not None
        answers: asyncio.Queue[bytes] = asyncio.Queue()

        async def answered(message: object) -> None:
            answers.put_nowait(message.data)  # type: ignore[attr-defined]

        await client.subscribe(f"{nats.ANSWERS}.again.*", cb=answered)
        request = codec.encode(codec.Request(7, m.Destroy(server_id=SERVER, operation_id="one", generation=3, step=0)))
        for number in (1, 2):
            await client.publish(subject_of("host1"), request, reply=f"{nats.ANSWERS}.again.{number}")
        for _ in range(2):
            assert codec.decode_answer(await answers.get()) == codec.Answer(7)
        late = codec.encode(
            codec.Request(8, m.Stop(server_id=SERVER, operation_id="one", generation=2, step=0, grace_seconds=0))
        )
        await client.publish(subject_of("host1"), late, reply=f"{nats.ANSWERS}.again.3")
        assert codec.decode_answer(await answers.get()).error == "StaleGeneration"
        await agent.close()

    tell(tmp_path, story)


def test_what_is_no_request_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agent = await started(cloud, "host1")
        for bad in (b"{", b'{"number":1,"message":{"verb":"format-disk"}}', b"\xff\x00" * 1000, b"[" * 100_000):
            answer = codec.decode_answer(await bus.ask(subject_of("host1"), bad, bus.number()))
            assert answer.error == "HostError"
            assert "not understood" in answer.text
        assert (await bus.link("host1").send(m.AskFacts())).name
        await agent.close()

    tell(tmp_path, story)


def test_a_host_that_is_removed_is_cut_off_at_once_and_does_not_come_back(tmp_path: Path) -> None:
    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agents = [await started(cloud, host) for host in HOSTS]
        cloud.server.admit([user("host1")])
        while not isinstance(await outcome(bus, "host2"), m.HostUnreachable):
            pass
        with pytest.raises(Exception, match=r"(?i)authorization"):
            await Raw().connect(cloud, "host2")
        assert (await bus.link("host1").send(m.AskFacts())).name
        cloud.server.admit([user(host) for host in HOSTS])
        await agents[1].connected()
        assert (await bus.link("host2").send(m.AskFacts())).name
        for agent in agents:
            await agent.close()

    tell(tmp_path, story)


def test_another_authority_s_certificate_connects_nobody(tmp_path: Path) -> None:
    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        async with nats_cloud(tmp_path / "other", *HOSTS) as other:
            tls = other.tls_of_host("host1")
            tls.load_verify_locations(cloud.authority.certificate_file)
            client = Client()
            with contextlib.suppress(Exception):  # A different one each time, as the connection goes sooner or later.
                await client.connect(
                    [cloud.url], tls=tls, tls_hostname=nats_connection.SERVER_NAME, allow_reconnect=False
                )
            assert not client.is_connected

    tell(tmp_path, story)


def test_a_server_that_is_killed_costs_what_was_under_way_and_no_more(tmp_path: Path) -> None:
    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agent, driver, asking = await at_a_request(cloud, bus)
        process = cloud.server._process
        assert process is not None
        process.kill()
        with pytest.raises(m.HostUnreachable):
            await asking
        with pytest.raises(m.HostUnreachable):
            await bus.link("host1").send(m.AskFacts())
        await bus.connected()
        await agent.connected()
        assert (await bus.link("host1").send(m.AskFacts())).name
        driver.let[SERVER].set()  # Nobody waits any more for an answer from before the reconnect.
        assert (await bus.link("host1").send(m.AskFacts())).name
        await agent.close()

    tell(tmp_path, story)


def test_an_agent_that_had_something_left_to_say_connects_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library does not tell that a connection has ended if what was left could not be written."""

    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agent = await started(cloud, "host1")
        client = agent._connection.client
        assert client is not None
        assert client._transport is not None

        async def fails() -> None:
            raise ConnectionResetError("Connection lost")

        process = cloud.server._process
        assert process is not None
        process.kill()
        monkeypatch.setattr(client._transport, "drain", fails)
        client._pending, client._pending_data_size = [b"PING\r\n"], 6
        for _ in range(400):
            if agent._connection.client not in (None, client):
                break
            await asyncio.sleep(0.05)
        await bus.connected()
        assert (await bus.link("host1").send(m.AskFacts())).name
        await agent.close()

    tell(tmp_path, story)


def test_an_agent_that_was_cut_off_and_is_back_has_no_answer_to_what_it_was_asked_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes an answer only on the connection of its question, so the caller learns soon that none comes."""

    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        driver = gate(SERVER)
        agent = cloud.agent("host1", Agent(name="host1", driver=driver, fence=MemoryFence()))
        say, looked_at = agent._say, asyncio.Event()

        async def said(reply: str, answer: bytes) -> None:
            await say(reply, answer)
            looked_at.set()

        monkeypatch.setattr(agent, "_say", said)
        await agent.start()
        await agent.connected()
        asking = asyncio.create_task(bus.link("host1").send(m.Observe(server_id=SERVER)))
        await driver.asked.get()
        await looked_at.wait()
        client = agent._connection.client
        assert client is not None
        await flushed(client)  # It has been seen there.
        await connect_anew(agent)
        driver.let[SERVER].set()
        async with asyncio.timeout(30):
            with pytest.raises(m.HostUnreachable):
                await asking
        assert (await bus.link("host1").send(m.AskFacts())).name
        await agent.close()

    tell(tmp_path, story)


def test_an_agent_that_is_back_before_anybody_looked_has_no_answer_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the caller would take the new connection for the one that it asked by, and wait for as long as it may."""
    monkeypatch.setattr(nats, "FIRST_LOOK_SECONDS", 2.0)

    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agent, driver, asking = await at_a_request(cloud, bus)
        await connect_anew(agent)
        driver.let[SERVER].set()
        async with asyncio.timeout(30):
            with pytest.raises(m.HostUnreachable, match=r"not at it|no agent listens"):
                await asking
        await agent.close()

    tell(tmp_path, story)


def test_what_takes_long_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats, "FIRST_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(nats, "STILL_THERE_SECONDS", 0.1)

    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agent, driver, asking = await at_a_request(cloud, bus)
        done, _ = await asyncio.wait([asking], timeout=1.0)
        assert not done
        driver.let[SERVER].set()
        await asking
        await agent.close()
        assert agent._under_way == {}

    tell(tmp_path, story)


def test_a_client_that_reads_nothing_is_cut_off_and_holds_up_nobody(tmp_path: Path) -> None:
    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        agent = await started(cloud, "host1")
        hung = await Raw().connect(cloud, "host2")
        await hung.client.subscribe(subject_of("host2"))
        await flushed(hung.client)
        hung.client._transport._io_writer.transport.pause_reading()  # type: ignore[union-attr]
        much = m.Welcome(session="x" * 3_000_000, generations={})
        told = [asyncio.create_task(bus.link("host2").send(much)) for _ in range(40)]
        for _ in range(20):
            async with asyncio.timeout(5):
                assert (await bus.link("host1").send(m.AskFacts())).name
        # The server's buffer for it is full, so it is cut off; then nobody listens, which ends what waits.
        assert all(isinstance(end, m.HostUnreachable) for end in await asyncio.gather(*told, return_exceptions=True))
        with contextlib.suppress(Exception):
            await hung.client.close()
        await agent.close()

    tell(tmp_path, story)


def test_an_agent_takes_so_many_requests_at_once_and_refuses_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "MOST_AT_ONCE", 3)

    async def story(cloud: NatsCloud, bus: NatsBus) -> None:
        driver = gate(SERVER)
        agent = cloud.agent("host1", Agent(name="host1", driver=driver, fence=MemoryFence()))
        await agent.start()
        await agent.connected()
        waiting = [asyncio.create_task(bus.link("host1").send(m.Observe(server_id=SERVER))) for _ in range(3)]
        for _ in waiting:
            await driver.asked.get()
        with pytest.raises(m.HostError, match="under way"):
            await bus.link("host1").send(m.AskFacts())
        driver.let[SERVER].set()
        await asyncio.gather(*waiting)
        assert (await bus.link("host1").send(m.AskFacts())).name
        await agent.close()

    tell(tmp_path, story)


def test_where_there_is_no_nats_server_the_error_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cumulet.ca import CertificateAuthority
    from cumulet.fleet import nats_server

    monkeypatch.setattr("shutil.which", lambda *_given, **_named: None)
    authority = CertificateAuthority.load_or_create(tmp_path / "ca")
    server = NatsServer(
        tmp_path / "bus", authority.issue_bus(nats_connection.SERVER_NAME), address="127.0.0.1", port=-1
    )
    with pytest.raises(nats_server.NoNatsServer, match="package nats-server"):
        asyncio.run(server.start([]))
    assert not (tmp_path / "bus").exists()


def test_a_connection_ends_though_the_library_forgets_that_it_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `Client.close` does while it waits for a task of its own."""
    closing = asyncio.Event()

    async def refuse(_client: Client, *_: object, **__: object) -> None:
        raise OSError("refused")

    async def forget(_client: Client) -> None:
        closing.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def story(cloud: NatsCloud, _bus: NatsBus) -> None:
        monkeypatch.setattr(Client, "connect", refuse)
        monkeypatch.setattr(nats_connection, "_let_go", forget)
        agent = cloud.agent("host1", Agent(name="host1", driver=gate(), fence=MemoryFence()))
        await agent.start()
        await closing.wait()
        async with asyncio.timeout(20):
            await agent.close()
        monkeypatch.undo()

    tell(tmp_path, story)
