"""The files of `deploy/` use commands, options and metrics that exist, and units are hardened."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from cumulet.cli.program import program
from cumulet.fleet.host_door import PORT as DOOR
from cumulet.fleet.nats_server import PORT as BUS
from cumulet.web.metrics import RequestMetrics

ROOT = Path(__file__).parents[2]
DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
WITHOUT_ROOT = ["cumulet-api", "cumulet-conductor", "cumulet-bus"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.stem))
def test_what_a_unit_starts_is_a_command_with_these_options(unit: Path) -> None:
    [line] = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    _, name, *arguments = shlex.split(line)
    assert isinstance(program, click.Group)
    command = program.get_command(click.Context(program), name)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {one for one in arguments if one.startswith("--")} <= known


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.stem))
def test_what_a_machine_lacks_after_a_reboot_ends_no_unit_for_good(unit: Path) -> None:
    """`tests/cli/test_exit_status.py` has what ends with which status."""
    head, _, service = unit.read_text().partition("[Service]")
    assert "\nStartLimitIntervalSec=0\n" in head, "no count of starts after which systemd gives up"
    assert "\nRestart=on-failure\n" in service
    assert "\nRestartPreventExitStatus=2\n" in service
    [pause] = re.findall(r"^RestartSec=(\d+)$", service, re.MULTILINE)
    assert int(pause) >= 2
    needed = re.findall(r"^(Requires\w*|Requisite|BindsTo|AssertPath\w*|ConditionPath\w*)=", head, re.MULTILINE)
    assert needed == [], "if that fails, systemd does not start the unit, and does not try again"


@pytest.mark.parametrize("name", WITHOUT_ROOT)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_what_needs_no_root_is_hardened(name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", str(DEPLOY / f"{name}.service")]
    judged = subprocess.run(command, check=False, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout[-400:] + judged.stderr


def calls_of(group: str) -> set[str]:
    listed = subprocess.run(["systemd-analyze", "syscall-filter", group], check=True, capture_output=True, text=True)
    names = [line.strip() for line in listed.stdout.splitlines()[1:] if not line.strip().startswith("#")]
    return {one for name in names if name for one in (calls_of(name) if name.startswith("@") else {name})}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_an_api_may_do_what_it_does() -> None:
    """Its threads that compare passwords lower their priority, and would end it otherwise."""
    allowed: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", (DEPLOY / "cumulet-api.service").read_text(), re.MULTILINE):
        for group in line.removeprefix("~").split():
            calls = calls_of(group) if group.startswith("@") else {group}
            allowed = allowed - calls if line.startswith("~") else allowed | calls
    assert {"setpriority", "getpriority", "prlimit64", "flock", "fsync"} <= allowed
    assert not {"chown", "mount", "reboot", "setuid"} & allowed


def test_the_dashboard_and_the_scrape_name_what_there_is() -> None:
    metrics = RequestMetrics()
    metrics.count("compute", "GET", 200, 0.01)
    there = set(re.findall(r"^([a-z_]+)(?:\{| )", metrics.text().decode(), re.MULTILINE))
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for one in expressions for name in re.findall(r"\b(?:cumulet|process)_[a-z_]+", one)}
    assert named
    assert named <= there
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert {(job["scheme"], job["metrics_path"]) for job in jobs} == {("https", "/metrics")}
    shown = re.findall(r'job=~"([^"]+)"', " ".join(expressions))
    assert shown
    assert all(re.fullmatch(one, job["job_name"]) for one in shown for job in jobs)
    assert not re.findall(r'job="', " ".join(expressions))


def test_each_api_is_scraped_with_the_token_of_its_own() -> None:
    """`processes.serving` makes one in the folder of each API, and no other API takes it."""
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    tokens = {job["authorization"]["credentials_file"] for job in jobs}
    targets = [target for job in jobs for static in job["static_configs"] for target in static["targets"]]
    assert len(tokens) == len(targets) == len({job["job_name"] for job in jobs}) == len(set(targets)) > 1


def test_the_balancer_passes_on_both_ports() -> None:
    text = (DEPLOY / "haproxy.cfg").read_text()
    assert "mode tcp" in text
    assert re.findall(r"bind :(\d+)", text) == ["8774", str(DOOR)]
    if shutil.which("haproxy") is not None:
        subprocess.run(["haproxy", "-c", "-f", str(DEPLOY / "haproxy.cfg")], check=True)


def instructions() -> list[tuple[str, str]]:
    """Of the container's recipe, each with what it says; lines that go on are one."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]


def said(name: str) -> list[str]:
    return [rest for one, rest in instructions() if one == name]


def test_the_recipe_of_the_container_copies_what_is_there_and_keeps_to_the_rules() -> None:
    known = {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions()} <= known
    for image in said("FROM"):
        name, _, tag = image.split()[0].rpartition(":")
        assert name.startswith("docker.io/library/"), "whose it is, is said"
        assert tag not in ("", "latest")
    for line in said("COPY"):
        *sources, _ = [word for word in line.split() if not word.startswith("--")]
        if "--from=" not in line:
            for source in sources:
                assert (ROOT / source).exists(), source
    let_in = {line[1:] for line in (DEPLOY / "Containerfile.containerignore").read_text().split() if line[0] == "!"}
    copied = {word for line in said("COPY") if "--from=" not in line for word in line.split()[:-1]}
    assert let_in == copied
    for line in said("RUN"):
        assert "sudo" not in line
        if "apt-get install" in line:
            assert "--no-install-recommends" in line
            assert "rm -rf /var/lib/apt/lists/*" in line
        if "pip install" in line:
            assert "--no-cache-dir" in line
            assert all("==" in word for word in line.split("--no-cache-dir")[1].split()), "versions are pinned"
    pinned = re.findall(r"uv==(\S+)", " ".join(said("RUN")))
    assert pinned == re.findall(r"UV_VERSION=(\S+)", (ROOT / "scripts" / "setup.sh").read_text())
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", said("USER")[-1]), "a number, so that `runAsNonRoot` can tell"
    last = [name for name, _ in instructions()]
    assert last.index("USER") > max(n for n, name in enumerate(last) if name == "RUN"), (
        "and nothing is run as it before"
    )


def test_what_the_container_starts_is_a_command_with_these_options() -> None:
    [program_said], [line] = said("ENTRYPOINT"), said("CMD")
    assert json.loads(program_said) == ["/opt/cumulet/bin/cumulet"]
    name, *arguments = json.loads(line)
    assert isinstance(program, click.Group)
    command = program.get_command(click.Context(program), name)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {one for one in arguments if one.startswith("--")} <= known
    assert set(map(int, said("EXPOSE")[0].split())) == {8774, DOOR, BUS, 8776}
    assert "--health 127.0.0.1:8776" in (DEPLOY / "cumulet-conductor.service").read_text()
    volumes = json.loads(said("VOLUME")[0])
    assert all(volume in " ".join(said("RUN")) for volume in volumes), "they are the user's own"
