"""Status 2 is for what is malformed: systemd does not try it again. What a machine lacks now is 1, and is tried again.

After a reboot interfaces, addresses, namespaces and mounts may come later than the service. With 2 it would stay down.
"""

from __future__ import annotations

import ast
import shutil
from collections import Counter
from pathlib import Path

import pytest

import cumulet.cli
from cumulet.cli import driver_choice, host_network_option
from cumulet.cli.program import run
from cumulet.fleet.public_network import NotPublic
from cumulet.processes import all as processes

LACKING, MALFORMED = 1, 2
FOLDER = Path(cumulet.cli.__file__).parent
PARTS = ["--bus", "nats://127.0.0.1:1"]
CONDUCTOR = ["conductor", "--state", "/nowhere/state", *PARTS]


def set_to(text: str) -> list[str]:
    return ["up", "--set", text]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["agent", "--public-device", "nowhere9"], LACKING, "no interface nowhere9"),
        (["agent", "--public-device", "bond0.7 "], MALFORMED, "is no name of an interface"),
        (["agent", "--public-device", "sixteen-letters-"], MALFORMED, "is no name of an interface"),
        (["agent", "--public-device", ".."], MALFORMED, "is no name of an interface"),
        (["agent", "--migration-address", "192.0.2.1"], LACKING, "no address 192.0.2.1"),
        (["agent", "--migration-address", "2001:db8::1"], LACKING, "no address 2001:db8::1"),
        (["agent", "--migration-address", "rack1"], MALFORMED, "'rack1' is no IP address"),
        (["up", "--driver", "simulated", "--public-interface", "a/b"], MALFORMED, "is no name of an interface"),
        (["up", "--driver", "simulated", "--public-interface", "eth9"], MALFORMED, "simulated hosts have no network"),
        (set_to("public_interface=a/b"), MALFORMED, "is no name of an interface"),
        (["up", "--clouds-file", "/nowhere/clouds.yaml"], LACKING, "--clouds-file: there is no folder /nowhere"),
        (["up", "--ready-file", "/nowhere/ready"], LACKING, "--ready-file: there is no folder /nowhere"),
        (["up", "--log-file", "/nowhere/log"], LACKING, "--log-file: there is no folder /nowhere"),
        (["up", "--log-file", "/"], MALFORMED, "is a directory"),
        (["up", "--policy-file", "/nowhere/rules"], LACKING, "--policy-file: cannot read /nowhere/rules: No such"),
        (["up", "--policy-file", "/"], MALFORMED, "Is a directory"),
        (["up", "--config", "/nowhere/c.toml"], LACKING, "--config: cannot read /nowhere/c.toml: No such file"),
        (["up", "--config", "/"], MALFORMED, "Is a directory"),
        (["settings", "--config", "/nowhere/c.toml"], LACKING, "cannot read /nowhere/c.toml"),
        (["up", "--database", "sqlite:////nowhere/c.db"], LACKING, "--database: there is no folder /nowhere"),
        (["up", "--database", "sqlite:////tmp"], MALFORMED, "/tmp is a folder"),
        (set_to("database_url=sqlite:////nowhere/c.db"), LACKING, "there is no folder /nowhere"),
        (set_to("clouds_file=/nowhere/c"), LACKING, "--set clouds_file=/nowhere/c: there is no folder /nowhere"),
        (set_to("log_file=/"), MALFORMED, "/ is a folder"),
        (set_to("tls_key_file=/nowhere/key"), LACKING, "cannot read /nowhere/key: No such file"),
        (set_to("tls_key_file=/"), MALFORMED, "Is a directory"),
        ([*CONDUCTOR, "--database", "postgresql:///x"], LACKING, "there is no cloud in /nowhere/state"),
        ([*CONDUCTOR, "--config", "/nowhere/c.toml"], LACKING, "cannot read /nowhere/c.toml"),
        ([*CONDUCTOR, "--set", "policy_file=/nowhere/rules"], LACKING, "cannot read /nowhere/rules"),
        ([*CONDUCTOR, "--database", "sqlite:////nowhere/c.db"], LACKING, "there is no folder /nowhere"),
        ([*CONDUCTOR, "--database", "mysql://x"], MALFORMED, "there is no database"),
        (["backup", "/nowhere/b.tar"], LACKING, "FILE: there is no folder /nowhere"),
        (["backup", "b.tar", "--database", "mysql://x"], MALFORMED, "there is no database"),
        (["restore", "/nowhere/b.tar"], LACKING, "FILE: there is no file /nowhere/b.tar"),
        (["image", "build", "debian", "--output", "/nowhere/d"], LACKING, "--output: there is no folder /nowhere"),
    ],
)
def test_each_refusal_has_its_status(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUMULET_DATABASE", raising=False)
    assert run(arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err


@pytest.mark.parametrize(
    ("place", "root", "nsenter", "status", "words"),
    [
        ("192.0.2.1@late", True, True, LACKING, "there is no network namespace 'late'"),
        ("192.0.2.1@there", True, False, LACKING, "takes `nsenter`"),
        ("192.0.2.1@there", False, True, MALFORMED, "takes root"),
        ("192.0.2.1@", True, True, MALFORMED, "'' is no name of a network namespace"),
        ("192.0.2.1@..", True, True, MALFORMED, "'..' is no name of a network namespace"),
        ("192.0.2.1@../there", True, True, MALFORMED, "'../there' is no name of a network namespace"),
        ("rack1@there", True, True, MALFORMED, "HOST=ADDRESS"),
    ],
)
def test_a_host_s_namespace_may_come_later(
    place: str,
    root: bool,
    nsenter: bool,
    status: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "there").touch()
    monkeypatch.setattr(host_network_option, "NAMESPACES", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}" if nsenter else None)
    assert run(["up", "--host-network", f"host1={place}"]) == status
    assert words in capsys.readouterr().err
    file = tmp_path / "cumulet.toml"
    file.write_text(f'# one host\nhost_networks = {{ host1 = "{place}" }}')
    assert run(["up", "--config", str(file)]) == status
    told = capsys.readouterr().err
    assert f"{file} line 2: host_networks: " in told
    assert words in told


@pytest.mark.parametrize("option", [["--public-interface", "eth9"], ["--host-network", "host1=192.0.2.1"]])
def test_hosts_that_are_simulated_only_for_want_of_qemu_are_tried_again(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_choice, "qemu_problem", lambda: "there is no QEMU today")
    assert run(["up", "--state", str(tmp_path / "state"), *option]) == LACKING
    assert (
        f"{option[0]}: simulated hosts have no network, and for real ones there is no QEMU" in capsys.readouterr().err
    )


def test_an_interface_that_leads_to_public_may_come_later_and_nothing_is_started_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_choice, "qemu_problem", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    state = tmp_path / "state"
    assert run(["up", "--state", str(state), "--public-interface", "nowhere9"]) == LACKING
    assert "--public-interface: this machine has no interface nowhere9" in capsys.readouterr().err
    assert not state.exists()


def test_an_interface_that_the_kernel_does_not_lead_to_public_now_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> str:
        raise NotPublic("eth9 cannot lead to `public`: busy")

    monkeypatch.setattr(processes, "join_public", refused)
    where = ["--state", str(tmp_path / "state"), "--listen", "127.0.0.1:0"]
    assert run(["up", "--driver", "simulated", *where]) == LACKING
    assert capsys.readouterr().err.endswith("error: --public-interface: eth9 cannot lead to `public`: busy\n")


def test_a_policy_file_that_goes_between_two_looks_at_it_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cumulet.cli.configuration._check_path", lambda _name, _path: None)
    where = ["--driver", "simulated", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "state")]
    assert run(["up", *where, "--policy-file", "/nowhere/rules"]) == LACKING
    assert capsys.readouterr().err == "cumulet: error: /nowhere/rules: No such file or directory\n"


STATUS_OF = {"NotHere": LACKING, "at": LACKING, "ClickException": LACKING, "NoHost": LACKING}
STATUS_OF |= dict.fromkeys(("BadParameter", "UsageError", "NotThus", "fail"), MALFORMED)
DECIDED = {
    "agent.py _limits": {MALFORMED: 1},
    "agent.py _refuse_half": {MALFORMED: 1},
    "agent.py _refuse_other_than_https": {MALFORMED: 1},
    "agent.py _run_joined": {LACKING: 2},
    "configuration.py _check_address": {MALFORMED: 1},
    "configuration.py _check_database": {MALFORMED: 2},
    "configuration.py _check_interface": {MALFORMED: 1},
    "configuration.py _check_path": {LACKING: 1, MALFORMED: 1},
    "configuration.py _check_pattern": {MALFORMED: 1},
    "configuration.py _check_written": {MALFORMED: 1},
    "configuration.py _host_networks": {MALFORMED: 2},
    "configuration.py checked": {MALFORMED: 2},
    "configuration.py checked_option": {LACKING: 1, MALFORMED: 1},
    "configuration.py convert": {LACKING: 1, MALFORMED: 2},
    "configuration.py from_file": {LACKING: 2, MALFORMED: 6},
    "configuration.py require_ports_apart": {MALFORMED: 1},
    "driver_choice.py choose": {LACKING: 2},
    "fleet.py _require_bus": {MALFORMED: 1},
    "fleet.py _run": {LACKING: 2, MALFORMED: 1},
    "fleet.py _settings": {LACKING: 1, MALFORMED: 1},
    "fleet.py bus": {MALFORMED: 2},
    "host_network_option.py convert": {LACKING: 2, MALFORMED: 3},
    "namespaces.py _go_in": {LACKING: 3},
    "namespaces.py _keeper": {LACKING: 1},
    "namespaces.py enter": {MALFORMED: 2},
    "namespaces.py image_trouble_told": {LACKING: 1},
    "namespaces.py in_namespaces": {MALFORMED: 1},
    "not_here.py at": {LACKING: 1},
    "not_here.py existing_file": {LACKING: 1},
    "not_here.py in_existing_folder": {LACKING: 1},
    "not_here.py require_address": {LACKING: 1, MALFORMED: 1},
    "not_here.py require_folder_of": {LACKING: 1},
    "not_here.py require_interface": {LACKING: 1},
    "state_folder.py held": {LACKING: 4},
    "state_folder.py room_told": {LACKING: 1},
    "up.py _chosen": {LACKING: 1, MALFORMED: 3},
    "up.py _start": {LACKING: 5, MALFORMED: 1},
    "up.py convert": {MALFORMED: 3},
    "up.py database_trouble_told": {LACKING: 1},
    "up.py without_password": {MALFORMED: 1},
}
"""Of each function that units of systemd run: how many of its refusals have which status. Whoever adds one decides."""


def refusals(file: Path) -> dict[str, Counter[int]]:
    found: dict[str, Counter[int]] = {}
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name | ast.Attribute):
                    name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
                    if name in STATUS_OF:
                        found.setdefault(f"{file.name} {function.name}", Counter())[STATUS_OF[name]] += 1
    return found


def test_every_refusal_of_what_systemd_starts_is_decided() -> None:
    found: dict[str, Counter[int]] = {}
    for file in sorted({FOLDER / key.split()[0] for key in DECIDED}):
        found |= refusals(file)
    assert found == DECIDED
