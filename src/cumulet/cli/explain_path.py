"""`cumulet explain-path`: what becomes of a packet from one port to another, hop by hop, and which rule decides."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import click
import msgspec

from cumulet.cli.entry import cloud_option, clouds_file_option, entry_of, logged_in

if TYPE_CHECKING:
    from cumulet.cli.client import Persona

_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII)


class Packet(msgspec.Struct):
    """A packet, as in the API's answer."""

    source: str
    destination: str
    protocol: str
    destination_port: int | None

    def __str__(self) -> str:
        port = "" if self.destination_port is None else f" port {self.destination_port}"
        return f"{self.protocol} from {self.source or 'nowhere'} to {self.destination or 'nowhere'}{port}"


class Rule(msgspec.Struct):
    id: str
    security_group_id: str
    description: str


class Hop(msgspec.Struct):
    at: str
    id: str
    host: str | None
    passes: bool
    text: str
    rule: Rule | None
    packet: Packet
    leaves: Packet | None


class Told(msgspec.Struct):
    arrives: bool | None
    text: str
    hops: list[Hop]


@click.command("explain-path", short_help="What becomes of a packet, hop by hop, and by which rule.")
@click.argument("sender", metavar="PORT_A")
@click.argument("receiver", metavar="PORT_B")
@click.option("--protocol", type=click.Choice(["icmp", "tcp", "udp"]), default="icmp", show_default=True)
@click.option("--port", type=click.IntRange(1, 65_535), help="The receiver's, of tcp and udp.")
@click.option("--ip-version", type=click.Choice(["4", "6"]), help="Where both ends have both.  [default: 4]")
@click.option("--json", "as_json", is_flag=True, help="The answer of the API.")
@clouds_file_option
@cloud_option()
def explain_path(
    sender: str,
    receiver: str,
    protocol: str,
    port: int | None,
    ip_version: str | None,
    as_json: bool,
    clouds_file: Path | None,
    cloud: str,
) -> int:
    """Follow the first packet of a connection from PORT_A to PORT_B by the rules that hosts enforce. No packet is sent.

    A port is named by its id or name. PORT_B may also be an address, such as a floating IP. PORT_A may be an address
    outside the cloud. The exit status is 1 if the packet does not arrive.
    """
    if protocol != "icmp" and port is None:
        raise click.UsageError(f"{protocol} needs --port")
    asked = {"protocol": protocol, "port": port, "ip_version": ip_version}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    with logged_in(entry_of(clouds_file, cloud)) as person:
        ends = "/".join(quote(_end(person, named), safe="") for named in (sender, receiver))
        answer = person.get(f"/compute/v2.1/cumulet/paths/{ends}?{query}")["path"]
    path = msgspec.convert(answer, Told)
    click.echo(json.dumps(answer, indent=2) if as_json else _told(path))
    return 1 if path.arrives is False else 0


def _end(person: Persona, named: str) -> str:
    """An end of the path for the API: an address, or the id of the port with this id or name."""
    try:
        return str(ip_address(named))
    except ValueError:
        if _UUID.fullmatch(named):
            return named
    found = person.get(f"/network/v2.0/ports?{urlencode({'name': named, 'fields': 'id'})}")["ports"]
    if len(found) != 1:
        raise click.ClickException(f"{'no port is' if not found else f'{len(found)} ports are'} called {named}")
    return str(found[0]["id"])


def _told(path: Told) -> str:
    lines = [str(path.hops[0].packet)]
    for number, hop in enumerate(path.hops, start=1):
        lines += _hop(number, hop)
    verdict = {True: "It arrives", False: "It does not arrive", None: "Whether it arrives is not told"}[path.arrives]
    return "\n".join([*lines, f"{verdict}: {path.text}."])


def _hop(number: int, hop: Hop) -> list[str]:
    kind = {"sender": "port", "receiver": "port", "router": "router", "outside": "address"}[hop.at]
    place = f"{kind} {hop.id}" + (f" on {hop.host}" if hop.host else "")
    lines = [f"  {number}. {place}", f"     {'passes' if hop.passes else 'STOPS'}: {hop.text}"]
    if hop.rule is not None:
        # Another user wrote it, and must not send control characters to this terminal.
        words = "".join(letter if letter.isprintable() else "?" for letter in hop.rule.description)
        lines.append(f"     rule {hop.rule.id}{f' ({words})' if words else ''} of group {hop.rule.security_group_id}")
    if hop.leaves is not None:
        lines.append(f"     it goes on as {hop.leaves}")
    return lines
