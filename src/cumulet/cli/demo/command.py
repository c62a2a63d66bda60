"""`cumulet demo`: starts a cloud of its own, tells the story, and exits with 0 only if all of it held."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cumulet.cli.driver_choice import Wish

if TYPE_CHECKING:
    from cumulet.cli.demo.cloud_process import RunningCloud
    from cumulet.cli.demo.evidence import Evidence

HOSTS = ["host1", "host2"]
SIMULATED_WORDS = "Hosts are SIMULATED: real API, policy, database and sagas, modelled guests."
SIMULATED_SPEED = "1"
"""Virtual seconds per second: as slow as life, so that there is a progress to watch."""


@click.command(short_help="Show the main job, told step by step.")
@click.option(
    "--driver",
    type=click.Choice(["auto", "simulated", "qemu"]),
    default="auto",
    show_default=True,
    help="What hosts run: real QEMU guests, or simulated ones. auto: QEMU where it is installed.",
)
def demo(driver: Wish) -> int:
    """Show the main job, told step by step: under a minute, nothing left behind.

    Starts a cloud with two hosts in a temporary folder; creates two servers in one request; live-migrates one of them
    to the other host while watching its console from outside; then shows who is refused, and why. The exit status is 0
    only if everything shown really held.
    """
    from cumulet.cli.demo.evidence import Evidence
    from cumulet.cli.driver_choice import choose
    from cumulet.cli.screen import screen

    choice = choose(driver, with_image=True)
    chosen = choice.driver
    console = screen()
    evidence = Evidence(console)
    begun = time.monotonic()
    if chosen == "simulated":
        console.print(f"{SIMULATED_WORDS} ({choice.why})", highlight=False)
    else:
        console.print("Hosts run real QEMU guests.", highlight=False)
    with tempfile.TemporaryDirectory(prefix="cumulet-demo-") as folder:
        complete = _told_completely(evidence, Path(folder) / "state", chosen)
    console.print()
    console.print(evidence.table())
    held = complete and evidence.all_held
    count = len(evidence.claims)
    verdict = f"all {count} claims held" if held else "NOT ALL OF IT HELD"
    last = f"{verdict}, in {time.monotonic() - begun:.1f} s."
    console.print(f"{last} {SIMULATED_WORDS if chosen == 'simulated' else 'Guests were real.'}", highlight=False)
    return 0 if held else 1


def _told_completely(evidence: Evidence, state: Path, driver: Literal["simulated", "qemu"]) -> bool:
    """Tell the story; False if the cloud did not do what the next part of it needs."""
    from cumulet.cli.client import Unexpected
    from cumulet.cli.demo.cloud_process import DidNotStart, running

    options = ("--simulated-speed", SIMULATED_SPEED) if driver == "simulated" else ()
    try:
        evidence.chapter("A cloud with two hosts")
        with running(state, driver=driver, options=options) as cloud:
            _story(evidence, cloud, driver)
    except (Unexpected, DidNotStart) as problem:
        evidence.claim("the story could be told to its end", False, str(problem))
        return False
    return True


def _story(evidence: Evidence, cloud: RunningCloud, driver: Literal["simulated", "qemu"]) -> None:
    from cumulet.cli.client import credentials_of, https, log_in
    from cumulet.cli.demo.leftovers import show_nothing_left
    from cumulet.cli.demo.migration import migrate
    from cumulet.cli.demo.network import floating_ip, make_network
    from cumulet.cli.demo.personas import make_people
    from cumulet.cli.demo.refusals import show_refusals
    from cumulet.cli.demo.servers import create_pair, show_consoles

    credentials, authority = credentials_of(cloud.clouds_file, "cumulet")
    with https(cloud.url, authority) as http:
        admin = log_in(http, "admin", credentials)
        services = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
        up = sorted(one["host"] for one in services if one["state"] == "up")
        evidence.claim(
            "a cloud serves HTTPS with its own CA, both hosts up",
            up == HOSTS,
            f"{cloud.url} in {cloud.started_in_seconds:.2f} s: {', '.join(up)}",
        )
        evidence.chapter("People, made through the Identity API")
        people = make_people(http, admin, credentials.auth_url)
        evidence.tell("reader, member and manager of project observatory; stranger, a member of project neighbours")
        evidence.chapter("Two servers from one request")
        flavor = "m1.small" if driver == "simulated" else "m1.micro"
        pair = create_pair(evidence, people, flavor=flavor, networks=make_network(evidence, people, driver))
        evidence.chapter("Their serial consoles")
        show_consoles(evidence, people, pair)
        evidence.chapter("One of them moves, live, to the other host")
        address = floating_ip(evidence, people, pair.moving, cloud.state) if driver == "qemu" else None
        moved = migrate(evidence, people, pair, HOSTS, pinged=address)
        evidence.chapter("Nothing is left on the source")
        show_nothing_left(evidence, people, moved, cloud.state, qemu=driver == "qemu")
        evidence.chapter("What is refused (each leaves the server exactly as it was)")
        show_refusals(evidence, people, pair, moved)
