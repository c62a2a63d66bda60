"""`cumulet explain-path`: a path told to a person, and to a program."""

from __future__ import annotations

import json

import pytest

from cumulet.cli.client import credentials_of
from cumulet.testing import TestCloud
from tests.testing.test_reachability import made, port_of

from .conftest import Finished, cumulet


@pytest.fixture
def ends(cloud: TestCloud) -> tuple[str, str]:
    """Two ports of project demo, the second called `web` and closed."""
    entry, _ = credentials_of(cloud.clouds_yaml, "demo")
    demo = cloud.login(entry.user, entry.password, project={"name": entry.project, "domain": {"id": "default"}})
    network = made(demo, "network", name="n")
    made(demo, "subnet", network_id=network, cidr="10.8.0.0/24", ip_version=4)
    one, two = port_of(demo, network), port_of(demo, network)
    closed = made(demo, "security_group", name="closed")
    demo.request("PUT", f"/network/v2.0/ports/{two}", {"port": {"name": "web", "security_groups": [closed]}})
    return one, two


def explained(cloud: TestCloud, *arguments: str, entry: str = "demo") -> Finished:
    return cumulet("explain-path", "--clouds-file", str(cloud.clouds_yaml), "--cloud", entry, *arguments)


def test_it_says_at_which_hop_a_packet_is_stopped_and_why(cloud: TestCloud, ends: tuple[str, str]) -> None:
    one, two = ends
    seen = explained(cloud, one, "web", "--protocol", "tcp", "--port", "22")
    assert (seen.status, seen.err) == (1, "")
    first, *hops, last = seen.out.splitlines()
    assert first.startswith("tcp from 10.8.0.")
    assert first.endswith(" port 22")
    assert hops[0] == f"  1. port {one}"
    assert hops[1] == "     passes: a security group's rule lets it pass"
    assert hops[2].startswith("     rule ")
    assert hops[-2:] == [f"  2. port {two}", "     STOPS: no rule of the port's security groups lets it in"]
    assert last == "It does not arrive: no rule of the port's security groups lets it in."
    admins = explained(cloud, one, two, entry="cumulet").out
    assert f"1. port {one} on host" in admins


def test_a_program_gets_the_answer_of_the_api(cloud: TestCloud, ends: tuple[str, str]) -> None:
    seen = explained(cloud, "web", ends[0], "--json")
    path = json.loads(seen.out)
    assert (seen.status, path["reason"], path["hops"][0]["id"]) == (1, "no-rule-ingress", ends[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing", "web"), "no port is called nothing"),
        (("web", "00000000-0000-4000-8000-000000000000"), "404 Port 00000000-0000-4000-8000-000000000000 could not be"),
        (("web", "web", "--protocol", "udp"), "udp needs --port"),
        (("web", "web", "--protocol", "gre"), "'gre' is not one of"),
        (("web", "web", "--port", "0"), "0 is not in the range"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    cloud: TestCloud, ends: tuple[str, str], arguments: tuple[str, ...], words: str
) -> None:
    seen = explained(cloud, *arguments)
    assert seen.status in (1, 2)
    assert words in seen.err
    assert "Traceback" not in seen.err
