"""Where machines cannot join, whoever asks is told so and why: `host add`, `status`, `/readyz`."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.cli.program import run
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import HOSTS, JoinableCloud, join, membership, tell

STATUS = "/compute/v2.1/cumulet/control-plane"


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """Somebody else's listening socket."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


async def until_ready(cloud: JoinableCloud, status: int, words: str) -> None:
    while (answer := await cloud.ask("GET", "/readyz")).status != status or words not in answer.text:
        pass


async def commanded(cloud: JoinableCloud, *arguments: str) -> int:
    file = cloud.cloud.settings.state_dir / "clouds.yaml"
    return await asyncio.to_thread(run, [*arguments, "--clouds-file", str(file)])


def told(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


@needs_nats
def test_a_door_whose_port_is_taken_is_told_until_it_opens(
    taken: socket.socket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(cloud: JoinableCloud) -> None:
        assert await commanded(cloud, "status") == 0
        capsys.readouterr()
        assert await commanded(cloud, "host", "add", "rack1") == 1
        said = told(capsys)
        assert "no machine can join this cloud" in said
        assert "address already in use" in said
        assert "--token" not in said
        await until_ready(cloud, 503, "the door for hosts on other machines is closed")
        assert (await cloud.ask("GET", "/healthz")).status == 200
        assert await commanded(cloud, "status") == 1
        said = told(capsys)
        assert "address already in use" in said
        assert "no door" in said
        assert (
            "address already in use"
            in (await cloud.ask("POST", HOSTS, {"host": {"name": "r2"}})).json["host"]["problem"]
        )
        taken.close()
        await until_ready(cloud, 200, "ok")
        assert await commanded(cloud, "host", "add", "rack1") == 0
        assert "--token" in told(capsys)
        assert await commanded(cloud, "status") == 0
        assert (await cloud.ask("GET", STATUS)).json["processes"][0]["problem"] is None

    tell(tmp_path, story, hosts_port=taken.getsockname()[1])


@needs_nats
def test_hosts_that_have_joined_are_reached_though_the_door_does_not_open(tmp_path: Path) -> None:
    machine = membership(tmp_path / "rack1")

    async def first(cloud: JoinableCloud) -> None:
        await join(machine, await cloud.invite("rack1"))

    async def second(cloud: JoinableCloud) -> None:
        assert "rack1" in cloud.cloud.hosts.names

    tell(tmp_path, first)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        tell(tmp_path, second, hosts_port=listening.getsockname()[1])


def test_a_machine_without_nats_server_is_told_by_whoever_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)

    async def story(cloud: JoinableCloud) -> None:
        assert await commanded(cloud, "host", "add", "rack1") == 1
        assert "install Debian's package nats-server" in told(capsys)
        await until_ready(cloud, 503, "the bus is not connected")
        assert await commanded(cloud, "status") == 1
        assert "install Debian's package nats-server" in told(capsys)

    tell(tmp_path, story)
