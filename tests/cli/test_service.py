"""The unit for systemd, and the commands on the page for operators: what they start is there, as they name it."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from cumulet.cli.configuration import described
from cumulet.cli.program import program

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "cumulet.service"
PAGE = (ROOT / "docs" / "operating.md").read_text()
OWN_MOUNTS = {
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "InaccessiblePaths",
    "MountFlags",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RootDirectory",
    "RootImage",
    "TemporaryFileSystem",
}
"""Options of systemd.exec(5) that give a service a mount namespace of its own."""


def options() -> list[tuple[str, str]]:
    lines = UNIT.read_text().splitlines()
    return [(line.partition("=")[0], line.partition("=")[2]) for line in lines if line[:1].isalpha()]


def test_what_it_starts_is_a_command_with_these_options() -> None:
    [line] = [value for name, value in options() if name == "ExecStart"]
    path, name, *arguments = shlex.split(line)
    assert Path(path).is_absolute()
    assert Path(path).name == "cumulet"
    assert isinstance(program, click.Group)
    command = program.get_command(click.Context(program), name)
    assert command is not None
    context = command.make_context(name, arguments)
    assert str(context.params["state"]) == "/var/lib/cumulet"


def test_guests_and_their_networks_outlive_a_restart() -> None:
    set_to = dict(options())
    assert set_to["Type"] == "notify"
    assert set_to["KillMode"] == "process"
    assert set_to["OOMPolicy"] == "continue"
    assert OWN_MOUNTS & set_to.keys() == set()


def test_it_keeps_what_it_does_not_need_from_itself() -> None:
    kept = " ".join(value for name, value in options() if name == "CapabilityBoundingSet").split()
    assert len(kept) == len(set(kept))
    assert {"CAP_SYS_MODULE", "CAP_SYS_BOOT", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_BPF"} & set(kept) == set()
    set_to = dict(options())
    for name in ("NoNewPrivileges", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality"):
        assert set_to[name] == "yes", name


def commands() -> list[str]:
    lines = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    parts = [part.strip() for line in lines for part in re.split(r"&&|>", line)]
    return [part for part in parts if part.startswith("cumulet ")]


@pytest.mark.parametrize("line", commands())
def test_commands_on_the_page_are_there_with_their_options(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = program
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    given, left, _ = command.make_parser(click.Context(command)).parse_args(words)
    assert left == [], "more arguments than it has"
    needed = {one.name for one in command.params if isinstance(one, click.Argument) and one.required}
    assert needed <= {name for name, value in given.items() if value is not None}


def test_settings_on_the_page_are_there() -> None:
    named = [name for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) for name in tomllib.loads(block)]
    assert len(named) >= 4
    assert set(named) <= described().keys()
