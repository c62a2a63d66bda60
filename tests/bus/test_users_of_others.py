"""An operator's own NATS cluster: the cloud keeps the users of each server in a file, and tells it of changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.bus.nats import NatsAgent, NatsBus
from cumulet.bus.nats_connection import SERVER_NAME
from cumulet.ca import CertificateAuthority, Issued
from cumulet.fleet.nats_server import CONTROL_PLANE, UsersFile, users_file_content
from cumulet.host import messages as m
from cumulet.host.driver import HostFacts
from tests.bus.nats_cloud import needs_nats, tls_of, user
from tests.bus.test_contract import gate

pytestmark = needs_nats
PLACES = "/usr/bin:/usr/local/bin:/usr/sbin:/usr/local/sbin"


@contextlib.contextmanager
def server(folder: Path, shown: Issued, *, joins: int | None) -> Iterator[tuple[str, int]]:
    """One server of a cluster, as an operator would configure it. Gives its URL and the port for the other servers."""
    folder.mkdir()
    UsersFile(folder / "users.conf", None).admit([])
    cluster = {"name": "operators", "host": "127.0.0.1", "port": -1}
    settings = {
        "host": "127.0.0.1",
        "port": -1,
        "server_name": folder.name,
        "ports_file_dir": str(folder),
        "pid_file": str(folder / "pid"),
        "cluster": cluster | ({} if joins is None else {"routes": [f"nats://127.0.0.1:{joins}"]}),
        "tls": {
            "cert_file": str(shown.certificate),
            "key_file": str(shown.key),
            "ca_file": str(shown.authority),
            "verify_and_map": True,
        },
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in settings.items()]
    (folder / "nats.conf").write_text("\n".join([*lines, 'include "users.conf"', ""]))
    program = shutil.which("nats-server", path=PLACES)
    assert program is not None
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen([program, "-c", str(folder / "nats.conf")], stdout=log, stderr=log) as running,
    ):
        try:
            ports = folder / f"nats-server_{running.pid}.ports"
            told = None
            while told is None:
                assert running.poll() is None, (folder / "log").read_text()
                with contextlib.suppress(OSError, ValueError):
                    told = json.loads(ports.read_text())
            yield f"nats://{told['nats'][0].rpartition('//')[2]}", int(told["cluster"][0].rpartition(":")[2])
        finally:
            running.terminate()


def test_a_host_at_one_server_of_a_cluster_is_asked_at_another_until_both_are_told_that_it_goes(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path / "ca")
    shown = authority.issue_bus(SERVER_NAME)
    theirs = CertificateAuthority.load_or_create(tmp_path / "ca")
    theirs._folder = tmp_path / "keys"
    host_tls = tls_of(theirs.issue_client(user("host1").identity))

    async def story(here: str, there: str) -> None:
        files = [UsersFile(tmp_path / name / "users.conf", tmp_path / name / "pid") for name in ("one", "two")]
        for file in files:
            file.admit([user("host1")])
            assert file.problem is None
        bus = NatsBus([here], tls_of(authority.issue_client(CONTROL_PLANE)), name="control-plane")
        agent = NatsAgent(
            Agent(name="host1", driver=gate(), fence=MemoryFence()),
            name="host1",
            servers=[there],
            tls=lambda: host_tls,
            incarnation="first",
        )
        await agent.start()
        await bus.start()
        await agent.connected()
        await bus.connected()
        link = bus.link("host1")
        while True:  # What one server is told of subscriptions reaches the other a moment later.
            answers = await asyncio.gather(link.send(m.AskFacts()), return_exceptions=True)
            if not isinstance(answers[0], m.HostUnreachable):
                break
        assert isinstance(answers[0], HostFacts), answers
        for file in files:
            file.admit([])
        while not isinstance(answers[0], m.HostUnreachable):
            answers = await asyncio.gather(link.send(m.AskFacts()), return_exceptions=True)
        assert not agent.is_connected
        await agent.close()
        await bus.close()

    async def told(here: str, there: str) -> None:
        async with asyncio.timeout(60):
            await story(here, there)

    with ExitStack() as stack:
        here, route = stack.enter_context(server(tmp_path / "one", shown, joins=None))
        there, _ = stack.enter_context(server(tmp_path / "two", shown, joins=route))
        asyncio.run(told(here, there))


def test_a_server_that_cannot_be_told_is_a_problem_until_it_can(tmp_path: Path) -> None:
    file = UsersFile(tmp_path / "users.conf", tmp_path / "pid")
    file.admit([user("host1")])
    assert file.problem is not None
    assert "is the server running?" in file.problem
    assert "cumulet://host/host1" in (tmp_path / "users.conf").read_text(), "it is there for the next start"
    with mock.patch.object(os, "kill") as kill:
        for nobody in ("nothing", "", "0", "1", "-1", "-7", "9" * 30, "\xff"):
            (tmp_path / "pid").write_text(nobody)
            file.admit([user("host1")])
            assert file.problem == "it has no process number"
    assert not kill.called, "a number that is not one process is told nothing"
    with subprocess.Popen(["sleep", "60"]) as one:
        (tmp_path / "pid").write_text(f"{one.pid}\n")
        file.admit([user("host1")])
        assert file.problem is None
        assert one.wait(30) != 0, "SIGHUP has reached it"


def test_a_server_of_others_is_told_of_a_new_certificate_as_soon_as_it_can_be(tmp_path: Path) -> None:
    shown = CertificateAuthority.load_or_create(tmp_path / "ca").issue_bus(SERVER_NAME)
    file = UsersFile(tmp_path / "users.conf", tmp_path / "pid")
    with subprocess.Popen(["sleep", "60"]) as one:
        (tmp_path / "pid").write_text(f"{one.pid}\n")
        file._told = users_file_content([user("host1")])
        file.admit([user("host1")])
        assert one.poll() is None, "nothing is new"
        (tmp_path / "pid").unlink()
        file.renewed(shown)
        assert file.problem is not None
        (tmp_path / "pid").write_text(f"{one.pid}\n")
        file.admit([user("host1")])
        assert file.problem is None
        assert one.wait(30) != 0, "SIGHUP has reached it"
    alone = UsersFile(tmp_path / "users.conf", None)
    alone.renewed(shown)
    assert alone.problem is None
