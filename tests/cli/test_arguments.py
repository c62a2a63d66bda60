"""Bad arguments end with status 2 and one clear line; what is not built yet says so with status 1.

What a machine lacks now (an interface, an address, a namespace, a folder) is no bad argument, because it may come later
after a reboot: those are in `test_exit_status.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulet.cli.program import COMMANDS, run


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["up", "--listen", "nonsense"], "ADDRESS:PORT"),
        (["up", "--listen", "127.0.0.1:65536"], "ADDRESS:PORT"),
        (["up", "--listen", "127.0.0.1:-1"], "ADDRESS:PORT"),
        (["up", "--listen", "::1:8774"], "brackets"),
        (["up", "--listen", "localhost:8774"], "is no IP address"),
        (["up", "--listen", "256.0.0.1:8774"], "is no IP address"),
        (["up", "--driver", "simulated", "--public-interface", "eth9"], "simulated hosts have no network"),
        (["up", "--hosts", "-1"], "--hosts"),
        (["up", "--hosts", "many"], "--hosts"),
        (["up", "--driver", "vmware"], "--driver"),
        (["up", "--turbo"], "--turbo"),
        (["up", "--set", "lease_second=5"], "lease_seconds"),
        (["up", "--set", "lease_seconds"], "lease_seconds"),
        (["up", "--set", "lease_seconds=soon"], "lease_seconds=soon"),
        (["up", "--set", "lease_seconds=-1"], "lease_seconds=-1"),
        (["up", "--set", "lease_seconds=nan"], "lease_seconds=nan"),
        (["up", "--set", "fence_silent_hosts=perhaps"], "fence_silent_hosts=perhaps"),
        (["up", "--set", "driver=vmware"], "driver=vmware"),
        (["up", "--host-network", "host1"], "HOST=ADDRESS"),
        (["up", "--host-network", "host1=somewhere"], "HOST=ADDRESS"),
        (["up", "--host-network", "host1=192.0.2.1@../../etc/passwd"], "../../etc/passwd"),
        (["up", "--host-network", "host3=192.0.2.1"], "host3"),
        (["up", "--driver", "simulated", "--host-network", "host1=192.0.2.1"], "simulated hosts"),
        (["agent", "--set", "disk_mib_per_second=0"], "disk_mib_per_second=0"),
        (["agent", "--set", "lease_seconds=5"], "not of one of its hosts"),
        (["agent", "--join", "https://cloud.example.org:8775"], "--token and --ca-fingerprint"),
        (["agent", "--token", "t", "--ca-fingerprint", "f"], "--join"),
        (["agent", "--join", "http://127.0.0.1:1", "--token", "t", "--ca-fingerprint", "f"], "only https is spoken"),
        (["agent", "--join", "127.0.0.1:8775", "--token", "t", "--ca-fingerprint", "f"], "only https is spoken"),
        (["agent", "--join", "https://[::1", "--token", "t", "--ca-fingerprint", "f"], "only https is spoken"),
        (["agent", "--join", "https://:8775", "--token", "t", "--ca-fingerprint", "f"], "only https is spoken"),
        (["fly"], "fly"),
        (["demo", "--driver", "vmware"], "--driver"),
    ],
)
def test_a_bad_argument_is_named_in_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert named in captured.err


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('"no:such:rule": "@"', "no:such:rule"),
        ('"os_compute_api:servers:index": "rule:nosuch"', "rule:nosuch"),
        ('"os_compute_api:servers:index": "("', "os_compute_api:servers:index"),
        ("- a", "must map"),
        ("{", "cannot read"),
    ],
)
def test_a_policy_file_that_cannot_be_used_is_a_bad_argument(
    content: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(content)
    where = ["--driver", "simulated", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "state")]
    assert run(["up", *where, "--policy-file", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert named in captured.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--database", "postgresql:///x"], 1, "there is no cloud in"),
        (["--database", "mysql://x"], 2, "there is no database"),
        (["--database", "postgresql://a:b@c/d"], 2, "--database"),
        ([], 2, "--database"),
    ],
)
@pytest.mark.parametrize("role", ["api", "conductor", "bus"])
def test_a_role_without_a_cloud_says_so(
    role: str, arguments: list[str], status: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [] if role == "conductor" else ["--own", str(tmp_path / "own")]
    bus = [] if role == "bus" else ["--bus", "nats://127.0.0.1:1"]
    state = tmp_path / "state"
    if words == "there is no database":
        state.mkdir()
        (state / "driver").write_text("simulated\n")
    assert run([role, "--state", str(state), *own, *bus, *arguments]) == status
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("role", ["api", "conductor", "bus"])
def test_a_role_on_a_database_of_one_process_is_refused(
    role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "driver").write_text("simulated\n")
    own = [] if role == "conductor" else ["--own", str(tmp_path / "own")]
    bus = [] if role == "bus" else ["--bus", "nats://127.0.0.1:1"]
    database = f"sqlite:///{tmp_path / 'cumulet.db'}"
    assert run([role, "--state", str(tmp_path), *own, *bus, "--database", database]) == 1
    assert "needs PostgreSQL" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"Usage: cumulet {command}" in capsys.readouterr().out


def test_status_without_a_cloud_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--clouds-file", str(tmp_path / "clouds.yaml")]) == 1
    assert "cumulet up" in capsys.readouterr().err


def test_host_clean_says_when_there_is_no_such_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "clean", "--network-namespace", "nowhere-at-all"]) == 1
    assert "nowhere-at-all" in capsys.readouterr().err
    assert not Path("/run/netns/nowhere-at-all").exists()
