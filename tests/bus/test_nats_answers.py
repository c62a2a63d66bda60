"""How the control plane treats a bus that fails, and agents with wrong answers. No NATS server is needed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from nats.errors import ConnectionClosedError

from cumulet.bus import nats, nats_connection
from cumulet.bus.nats import NatsBus, NatsLink, NoAnswer
from cumulet.ca import CertificateAuthority
from cumulet.fleet import nats_server
from cumulet.fleet.nats_server import NatsServer, NoNatsServer
from cumulet.host import messages as m


class Bus:
    """Answers what it is told to; asked only whether somebody is there, with these incarnations in turn."""

    def __init__(self, answer: bytes | None, *incarnations: bytes) -> None:
        self._answer = answer
        self._incarnations = iter(incarnations)

    def number(self) -> int:
        return 1

    def answers_to(self, number: int) -> str:
        return "answers.1"

    def room(self, subject: str) -> nats._Room:
        return nats._Room()

    async def ask(self, subject: str, payload: bytes, number: int, *, about: str | None = None) -> bytes:
        if payload == b"":
            return next(self._incarnations)
        if self._answer is None:
            await asyncio.Event().wait()
        assert self._answer is not None
        return self._answer


def told(bus: Bus) -> Any:
    async def tell() -> Any:
        async with asyncio.timeout(10):
            return await NatsLink(cast("NatsBus", bus), "host1").send(m.AskFacts())

    return asyncio.run(tell())


@pytest.mark.parametrize("hostile", [b"{", b'{"number":1,"text":"\xff"}', b'{"number":1,"value":' + b"[" * 100_000])
def test_an_answer_that_is_not_understood_is_none(hostile: bytes) -> None:
    with pytest.raises(m.HostUnreachable, match="no agent of this version"):
        told(Bus(hostile))


def test_an_agent_that_started_anew_will_not_answer_what_the_one_before_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats, "STILL_THERE_SECONDS", 0.01)
    with pytest.raises(m.HostUnreachable, match="has started anew"):
        told(Bus(None, b"first", b"first", b"second"))


def test_an_agent_that_is_not_at_a_request_will_not_answer_it() -> None:
    with pytest.raises(m.HostUnreachable, match="not at it"):
        told(Bus(None, b"first" + nats.NOT_UNDER_WAY))


def test_a_connection_that_is_closed_meanwhile_is_no_answer() -> None:
    class Closed:
        async def publish(self, *_: object, **__: object) -> None:
            raise ConnectionClosedError

    class Connection:
        client = Closed()

    bus = NatsBus.__new__(NatsBus)
    bus.__dict__.update(_connection=Connection(), _number=0, _waiting={}, _answers="answers")
    with pytest.raises(NoAnswer, match="the bus:"):
        asyncio.run(bus.ask("subject", b"", 1))
    assert bus._waiting == {}


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("echo no such option >&2; exit 1", "ended at once: no such option"),
        ("echo still starting >&2; exec sleep 60", "does not answer: still starting"),
    ],
)
def test_a_server_that_does_not_come_up_is_told_with_its_last_words(
    program: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_server, "START_SECONDS", 1.0)
    script = tmp_path / "nats-server"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o700)
    monkeypatch.setattr("shutil.which", lambda *_given, **_named: str(script))
    authority = CertificateAuthority.load_or_create(tmp_path / "ca")
    server = NatsServer(
        tmp_path / "bus", authority.issue_bus(nats_connection.SERVER_NAME), address="127.0.0.1", port=-1
    )
    with pytest.raises(NoNatsServer, match=words):
        asyncio.run(server.start([]))
