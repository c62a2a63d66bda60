"""nftables: puts the skeleton in place, and changes the content of its sets, maps and chains in one transaction.

A change is one process of `nft` and one transaction: a packet meets all of the change or nothing of it. Everything is
sent as JSON, except the skeleton: that is a text of ours, in which nothing comes from outside.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from cumulet.drivers.linux_network import nfnetlink, skeleton
from cumulet.drivers.linux_network.limits import NamedLimit
from cumulet.drivers.linux_network.names import TABLE
from cumulet.drivers.linux_network.netlink import attribute, attributes
from cumulet.drivers.linux_network.ruleset import MAPS, Element, Ruleset
from cumulet.drivers.linux_network.skeleton import Tracking

SECONDS = 60.0
"""How long one `nft` may take: a host of 10,000 ports is written anew in less."""

Command = dict[str, Any]


class NftFailed(Exception):
    """`nft` refused a command; the message is what it said."""


class Nft:
    """The tables of one network namespace: the one of the thread that calls."""

    def __init__(self, tracking: Tracking) -> None:
        self.tracking = tracking
        self._tables = {
            "spoofing": ("bridge", TABLE),
            "state": (tracking.value, skeleton.state_table(tracking)),
        }
        self._there: Ruleset | None = None
        """The content of the tables; None while it is not known: then all of it is written again."""

    # -- what is there

    def zones(self) -> dict[str, int]:
        """The conntrack zone of each bridge, as an earlier process has left it."""
        family, table = self._tables["state"]
        return _pairs(_listed("map", family, table, "zones"))

    def ports(self) -> dict[str, int]:
        """The number of each tap, as an earlier process has left it."""
        family, table = self._tables["spoofing"]
        return _pairs(_listed("map", family, table, "ports"))

    def counters(self) -> dict[str, int]:
        """Packets dropped, by cause."""
        found: dict[str, int] = {}
        for family, table in self._tables.values():
            found |= counters(family, table)
        return found

    def prepare(self) -> None:
        """Put this version's skeleton in place. Where it is there already, its content stays in force until `apply`."""
        for family, table in self._tables.values():
            if run_json("list", "chain", family, table, skeleton.VERSION) is None:
                run_text(skeleton.text(self.tracking))
                return

    def remove(self) -> None:
        """Remove both tables with all that is in them."""
        for family, table in self._tables.values():
            if run_json("list", "counters", "table", family, table) is not None:
                run_commands([{"delete": {"table": {"family": family, "name": table}}}])
        self._there = None

    # -- changing it

    def apply(self, wanted: Ruleset) -> None:
        """Bring the tables to `wanted`, in one transaction. Raises `NftFailed`, with nothing changed."""
        commands = list(self._difference(wanted))
        if not commands:
            return
        try:
            run_commands(commands)
        except NftFailed:
            self._there = None
            raise
        self._there = wanted

    def forget(self) -> None:
        """Somebody else may have changed the tables: the next `apply` writes all of their content."""
        self._there = None

    def _difference(self, wanted: Ruleset) -> Iterator[Command]:
        family, table = self._tables["state"]
        there = self._there
        if there is None:
            chains, sets = self._dynamic(family, table)
            for group in self._tables:
                for name in getattr(wanted, group):
                    yield self._flush(group, name)
            for name in sets & wanted.members.keys():
                yield {"flush": {"set": {"family": family, "table": table, "name": name}}}
            there = Ruleset(
                chains=dict.fromkeys(chains, ()),
                members=dict.fromkeys(sets, frozenset()),
                limits=limits(*self._tables["spoofing"]),
            )
        for name in wanted.members.keys() - there.members.keys():
            kind = "ipv4_addr" if name.endswith("_4") else "ipv6_addr"
            new = {"family": family, "table": table, "name": name, "type": kind, "flags": ["interval"]}
            yield {"add": {"set": new}}
        yield from _elements(family, table, there.members, wanted.members)
        for name, rules in wanted.chains.items():
            if there.chains.get(name) == rules:
                continue
            command = "flush" if name in there.chains else "add"
            yield {command: {"chain": {"family": family, "table": table, "name": name}}}
            for rule in rules:
                expression = json.loads(rule)
                yield {"add": {"rule": {"family": family, "table": table, "chain": name, "expr": expression}}}
        guests = self._tables["spoofing"]
        for name in wanted.limits.keys() - there.limits.keys():
            yield {"add": {"limit": wanted.limits[name].described(*guests)}}
        for group, (of_family, of_table) in self._tables.items():
            yield from _elements(of_family, of_table, getattr(there, group), getattr(wanted, group))
        for name in there.limits.keys() - wanted.limits.keys():
            yield {"delete": {"limit": {"family": guests[0], "table": guests[1], "name": name}}}
        gone = sorted(there.chains.keys() - wanted.chains.keys())
        for command in ("flush", "delete"):
            for name in gone:
                yield {command: {"chain": {"family": family, "table": table, "name": name}}}
        for name in there.members.keys() - wanted.members.keys():
            yield {"delete": {"set": {"family": family, "table": table, "name": name}}}

    def _flush(self, group: str, name: str) -> Command:
        family, table = self._tables[group]
        kind = "map" if name in MAPS else "set"
        return {"flush": {kind: {"family": family, "table": table, "name": name}}}

    def _dynamic(self, family: str, table: str) -> tuple[set[str], set[str]]:
        """The names of the ports' chains and of the groups' sets in the table."""
        entries = run_json("-t", "list", "table", family, table) or []
        chains = {entry["chain"]["name"] for entry in entries if "chain" in entry}
        sets = {entry["set"]["name"] for entry in entries if "set" in entry}
        return {name for name in chains if name.startswith("p_")}, {n for n in sets if n.startswith("members_")}


def _elements(
    family: str, table: str, before: Mapping[str, frozenset[Element]], after: Mapping[str, frozenset[Element]]
) -> Iterator[Command]:
    for name, content in after.items():
        had = before.get(name, frozenset())
        for command, changed in (("delete", had - content), ("add", content - had)):
            if changed:
                elements = [json.loads(element) for element in sorted(changed)]
                if command == "delete" and name in MAPS:
                    elements = [key for key, _ in elements]
                yield {command: {"element": {"family": family, "table": table, "name": name, "elem": elements}}}


def _pairs(listed: list[Any]) -> dict[str, int]:
    for entry in listed:
        if "map" in entry:
            return {key: int(value) for key, value in entry["map"].get("elem", [])}
    return {}


def counters(family: str, table: str) -> dict[str, int]:
    """The packets that each counter of a table has counted; none where there is no such table."""
    return {name: packets for name, (packets, _) in counted(family, table).items()}


def counted(family: str, table: str) -> dict[str, tuple[int, int]]:
    """The packets and bytes that each counter of a table has counted; none where there is no such table.

    They are asked of the kernel itself: a host with many routers, each in its namespace, is asked for all of them.
    """
    wanted = attribute(_OF_TABLE, table.encode() + b"\0") + attribute(_KIND, _COUNTER)
    found = {}
    with contextlib.suppress(FileNotFoundError), nfnetlink.opened() as asked:
        for _, content in nfnetlink.dumped(asked, _GET_OBJECTS, _FAMILIES[family], wanted):
            described = attributes(content)
            data = attributes(described[_DATA])
            name = described[_NAME].rstrip(b"\0").decode()
            found[name] = (int.from_bytes(data[_PACKETS]), int.from_bytes(data[_BYTES_COUNTED]))
    return found


_FAMILIES = {"inet": 1, "bridge": 7}
_GET_OBJECTS = 0xA13
"""Of the subsystem NFTABLES (10): NFT_MSG_GETOBJ."""
_OF_TABLE, _NAME, _KIND, _DATA = 1, 2, 3, 4
_COUNTER = (1).to_bytes(4)
"""NFT_OBJECT_COUNTER."""
_BYTES_COUNTED, _PACKETS = 1, 2


def limits(family: str, table: str) -> dict[str, NamedLimit]:
    """The limits of a table by their names; none where there is no such table."""
    listed = run_json("list", "limits", "table", family, table) or []
    found = (entry["limit"] for entry in listed if "limit" in entry)
    return {
        one["name"]: NamedLimit(
            name=one["name"],
            bytes_a_second=one["rate"] * _BYTES[one["rate_unit"]],
            burst_bytes=one.get("burst", 0) * _BYTES[one.get("burst_unit", "bytes")],
        )
        for one in found
    }


_BYTES = {"bytes": 1, "kbytes": 1 << 10, "mbytes": 1 << 20}
"""nft lists a limit in the largest of these units that divides it."""


def _listed(kind: str, family: str, table: str, name: str) -> list[Any]:
    return run_json("list", kind, family, table, name) or []


def binary() -> str | None:
    """Where `nft` is; Debian keeps it out of a plain user's PATH."""
    return shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")


def _nft(arguments: list[str], *, send: str | None = None) -> subprocess.CompletedProcess[str]:
    program = binary()
    if program is None:
        raise NftFailed("nft is not installed (Debian package: nftables)")
    try:
        return subprocess.run(
            [program, *arguments], input=send, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise NftFailed(f"nft took more than {SECONDS:g} s") from late


def run_commands(commands: list[Command]) -> None:
    """In one transaction. Raises `NftFailed`."""
    done = _nft(["-j", "-f", "-"], send=json.dumps({"nftables": commands}))
    if done.returncode != 0:
        raise NftFailed(done.stderr.strip()[:2000])


def run_text(text: str) -> None:
    """A text of ours, in one transaction. Raises `NftFailed`."""
    done = _nft(["-f", "-"], send=text)
    if done.returncode != 0:
        raise NftFailed(done.stderr.strip()[:2000])


def run_json(*arguments: str) -> list[Any] | None:
    """What `nft` lists; None where there is no such thing."""
    done = _nft(["-j", *arguments])
    if done.returncode != 0:
        if "No such file or directory" in done.stderr:
            return None
        raise NftFailed(done.stderr.strip()[:2000])
    found: list[Any] = json.loads(done.stdout)["nftables"]
    return found
