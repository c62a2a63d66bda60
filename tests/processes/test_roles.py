"""Roles of a control plane as processes: their settings, their health, and their rows in `cumulet status`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import cumulet.testing
from cumulet.cli.program import run
from cumulet.testing import TestCloud
from tests.bus.nats_cloud import needs_nats
from tests.cli.conftest import cumulet as cli
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
SECONDS = 60.0


@contextlib.contextmanager
def role(*arguments: str, url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process, and what it says of where it serves."""
    environment = {**os.environ, "CUMULET_DATABASE": url}
    command = [sys.executable, "-m", "cumulet", *arguments]
    with (
        tempfile.TemporaryFile("w+") as words,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, text=True, env=environment) as one,
    ):
        try:
            assert one.stdout is not None
            line = one.stdout.readline().strip()
            words.seek(0)
            assert line.startswith("ready "), words.read()
            yield one, line.removeprefix("ready ")
        finally:
            one.kill()


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answer(port: int, path: str) -> tuple[int, str]:
    found = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=SECONDS)
    return found.status_code, str(found.json()["status"])


def shown(cloud: TestCloud) -> list[tuple[str, str, bool]]:
    """Role, bus and whether it leads, of each process."""
    found = cloud.persona("admin").compute("GET", "/cumulet/control-plane")
    leads = {one["process"] for one in found["leases"]}
    return sorted((one["role"], one["bus"], one["name"] in leads) for one in found["processes"])


@pytest.mark.postgres
@needs_nats
def test_roles_read_the_file_answer_for_their_health_and_are_shown(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "cumulet.toml"
    health, bus_health, bus_port = free_port(), free_port(), free_port()
    with cumulet.testing.cloud(hosts=2, database_url=database_url) as cloud:
        state = cloud.embedded.settings.state_dir
        file.write_text(
            f'database_url = "{database_url}"\nbus = "nats://127.0.0.1:{bus_port}"\nhosts = 7\nlog_format = "json"\n'
        )
        told = ("--state", str(state), "--config", str(file))
        bus = ("bus", *told, "--own", str(tmp_path / "bus"), "--listen", f"127.0.0.1:{bus_port}")
        api = ("api", *told, "--own", str(tmp_path / "api"), "--listen", "127.0.0.1:0")
        assert shown(cloud) == [("up", "none", True)]
        with (
            role(*bus, "--health", f"127.0.0.1:{bus_health}", url=database_url) as (server, url),
            role("conductor", *told, "--health", f"127.0.0.1:{health}", url=database_url) as (conductor, _),
            role(*api, url=database_url),
        ):
            assert url == f"nats://127.0.0.1:{bus_port}"
            assert [answer(health, path) for path in ("/healthz", "/readyz")] == [(200, "ok")] * 2
            assert [answer(bus_health, path) for path in ("/healthz", "/readyz")] == [(200, "ok")] * 2
            assert answer(health, "/")[0] == 404
            assert httpx.post(f"http://127.0.0.1:{health}/healthz").status_code == 405
            assert shown(cloud) == [
                ("api", "none", False),
                ("bus", "serves", False),
                ("conductor", "none", False),
                ("up", "none", True),
            ]
            seen = cli("status", "--clouds-file", str(cloud.clouds_yaml))
            assert seen.status == 0, seen.out + seen.err
            assert "Control plane (on postgresql" in seen.out
            saved = cli("backup", str(tmp_path / "b.tar"), "--state", str(state), "--database", database_url)
            assert saved.status == 0, saved.err
            assert f"Nor are the audit trails of other APIs of this cloud (1, on {os.uname().nodename})" in saved.err
            assert server.poll() is None
            server.send_signal(signal.SIGSTOP)
            cloud.clock.advance(30.0)
            seen = cli("status", "--clouds-file", str(cloud.clouds_yaml))
            assert (seen.status, "(silent)" in seen.out) == (1, True)
            server.send_signal(signal.SIGCONT)
            conductor.terminate()
            assert conductor.wait(SECONDS) == 0
            assert [one for one, _, _ in shown(cloud)] == ["api", "bus", "up"], "it ended as it was told"


def test_a_role_says_what_it_was_not_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "driver").write_text("simulated\n")
    (tmp_path / "empty.toml").write_text("")
    told = ["conductor", "--state", str(tmp_path), "--config", str(tmp_path / "empty.toml")]
    assert run(told) == 2
    assert "which database?" in capsys.readouterr().err
    assert run([*told, "--database", "postgresql://127.0.0.1:1/x"]) == 2
    assert "where is the bus?" in capsys.readouterr().err
    (tmp_path / "wrong.toml").write_text("lease_seconds = 'soon'")
    told[-1] = str(tmp_path / "wrong.toml")
    assert run(told) == 2
    assert "wrong.toml line 1: lease_seconds: Expected" in " ".join(capsys.readouterr().err.split())
