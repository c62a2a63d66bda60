"""Every command in the README is run, or checked where it would set up this machine; its tree is the tree."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Up, up

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROGRAMS = Path(sys.executable).parent
"""Where `cumulet` and `openstack` are: the environment the tests run in."""


def commands() -> list[str]:
    """The lines of all shell blocks, without comments."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).splitlines()
    return [command for line in lines if (command := line.split("  #")[0].strip())]


MAKE = [command for command in commands() if command.startswith("make ")]
CLIENT = [command for command in commands() if command.startswith("openstack ")]
CUMULET = [command for command in commands() if command.startswith(".venv/bin/cumulet ")]
EXPORT = [command for command in commands() if command.startswith("export ")]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """What `.venv/bin/cumulet up` starts, in a folder and on a port of its own."""
    with up(tmp_path_factory.mktemp("readme") / "state") as running:
        yield running


@pytest.fixture(scope="module")
def environment(cloud: Up) -> dict[str, str]:
    """This shell's variables, with what the README exports, for the test's cloud in place of the user's."""
    (export,) = EXPORT
    variables = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    for word in shlex.split(export)[1:]:
        name, _, value = word.partition("=")
        variables[name] = value.replace("~/.local/state/cumulet/clouds.yaml", str(cloud.clouds_file))
    assert variables["OS_CLIENT_CONFIG_FILE"] == str(cloud.clouds_file)
    return variables


def test_every_command_is_of_a_kind_that_is_tested_here() -> None:
    assert set(commands()) == {*MAKE, *CLIENT, *CUMULET, *EXPORT}
    assert MAKE
    assert CLIENT
    assert CUMULET


@pytest.mark.parametrize("command", MAKE)
def test_a_make_target_exists(command: str) -> None:
    """Not run: these are the ones that run the tests."""
    done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_openstack_client_does_what_is_written_in_its_order(environment: dict[str, str]) -> None:
    outputs = {}
    for command in CLIENT:
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [str(PROGRAMS / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs[" ".join([program, *arguments[:2]])] = done.stdout
    assert outputs["openstack server list"].count("ACTIVE") == 2
    assert "completed" in outputs["openstack server migration"]
    assert "host2" in outputs["openstack hypervisor list"]


@pytest.mark.parametrize("command", CUMULET)
def test_a_command_of_ours_does_what_it_says(command: str, environment: dict[str, str], cloud: Up) -> None:
    arguments = shlex.split(command)[1:]
    if arguments == ["up"]:
        assert cloud.ready_line.startswith("ready https://127.0.0.1:")
        return
    done = subprocess.run(
        [sys.executable, "-m", "cumulet", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "host1" in done.stdout or "cumulet up" in done.stdout


def test_the_python_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_folder_of_the_tree_is_there_and_none_is_missing() -> None:
    (tree,) = re.findall(r"```text\n(src/cumulet/\n.*?)```", README, re.DOTALL)
    named = set(re.findall(r"^  ([\w.]+)/?\s", tree, re.MULTILINE))
    source = ROOT / "src" / "cumulet"
    folders = {path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))}
    assert {name for name in named if not (source / name).exists()} == set()
    assert folders - named == set()
