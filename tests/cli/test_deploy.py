"""What `deploy/` offers is what the program has: commands, options, metrics; units are hardened."""

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
from cumulet.web.metrics import RequestMetrics

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
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]
    assert (scrape["scheme"], scrape["metrics_path"]) == ("https", "/metrics")


def test_the_balancer_passes_on_both_ports() -> None:
    text = (DEPLOY / "haproxy.cfg").read_text()
    assert "mode tcp" in text
    assert re.findall(r"bind :(\d+)", text) == ["8774", str(DOOR)]
    if shutil.which("haproxy") is not None:
        subprocess.run(["haproxy", "-c", "-f", str(DEPLOY / "haproxy.cfg")], check=True)
