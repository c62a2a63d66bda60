"""`cumulet env`: a shell that evaluates it can use the cloud with clients that know nothing else of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from cumulet.cli.env import STALE
from tests.test_readme import PROGRAMS

from .conftest import Up, cumulet


def in_a_shell(up: Up, then: str, *, cloud: str = "demo", stale: dict[str, str] | None = None) -> str:
    """What `then` prints in a shell that knows what `cumulet env` says, and nothing of the shell of the tests."""
    printed = cumulet("env", "--clouds-file", str(up.clouds_file), "--cloud", cloud)
    assert printed.status == 0, printed.err
    done = subprocess.run(
        ["sh", "-ec", f"{printed.out}\n{then}"],
        env={"PATH": f"{PROGRAMS}:/usr/bin:/bin", "HOME": str(up.clouds_file.parent), **(stale or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_openstack_client_works_with_it_whatever_another_cloud_left_in_the_shell(running: Up) -> None:
    stale = dict.fromkeys(STALE, "of-another-cloud")
    assert "cumulet-tiny" in in_a_shell(running, "openstack image list -f value -c Name", stale=stale)


def test_it_is_whose_entry_was_named(running: Up) -> None:
    assert "host1" in in_a_shell(running, "openstack compute service list -f value -c Host", cloud="cumulet")


def test_curl_and_requests_trust_the_cloud(running: Up) -> None:
    url = '"${OS_AUTH_URL}"'
    assert "v3" in in_a_shell(running, f"curl -sS {url}")
    assert "200" in in_a_shell(running, f"python -c 'import requests, sys; print(requests.get(sys.argv[1]))' {url}")


@pytest.mark.parametrize("form", ["sh", "fish", "dotenv", "json"])
def test_every_form_says_the_same(running: Up, tmp_path: Path, form: str) -> None:
    document = yaml.safe_load(running.clouds_file.read_text())
    document["clouds"]["demo"]["auth"]["password"] = "it's $HOME \\ `x`"
    odd = tmp_path / "clouds.yaml"
    odd.write_text(yaml.safe_dump(document))
    printed = cumulet("env", "--clouds-file", str(odd), "--format", form).out
    expected = json.loads(cumulet("env", "--clouds-file", str(odd), "--format", "json").out)
    assert expected["OS_PASSWORD"] == "it's $HOME \\ `x`"
    match form:
        case "json":
            assert json.loads(printed) == expected
        case "dotenv":
            assert dict(line.split("=", 1) for line in printed.splitlines()) == expected
        case "fish":
            assert "set -gx OS_PASSWORD 'it\\'s $HOME \\\\ `x`'" in printed.splitlines()
            assert {line.split()[2] for line in printed.splitlines() if line.startswith("set -gx")} == set(expected)
        case _:
            shown = subprocess.run(["sh", "-c", f"{printed}\nenv"], env={}, capture_output=True, text=True, check=True)
            assert set(expected.items()) <= {tuple(line.split("=", 1)) for line in shown.stdout.splitlines()}


@pytest.mark.parametrize("content", [b"clouds: [", b"\xff", b"clouds: 7", b""])
def test_a_file_that_is_none_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clouds.yaml").write_bytes(content)
    refused = cumulet("env", "--clouds-file", str(tmp_path / "clouds.yaml"))
    assert (refused.status, refused.out, len(refused.err.splitlines())) == (1, "", 1)
    assert "has no usable entry `demo`" in refused.err


@pytest.mark.parametrize("wrong", [["--cloud", "nobody"], ["--clouds-file", "/nowhere/clouds.yaml"]])
def test_what_is_not_there_is_said_in_one_line(running: Up, wrong: list[str]) -> None:
    given = [] if wrong[0] == "--clouds-file" else ["--clouds-file", str(running.clouds_file)]
    refused = cumulet("env", *given, *wrong)
    assert refused.status == 1
    assert refused.out == ""
    assert len(refused.err.splitlines()) == 1
    assert wrong[1] in refused.err
