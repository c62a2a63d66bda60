"""Hosts of other machines, for `cumulet host`: our own operations, with the rules of compute services."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from cumulet import rootless
from cumulet.clock import iso_z
from cumulet.compute import hosts as host_records
from cumulet.compute import joined_hosts as records
from cumulet.compute.service import COMPUTE
from cumulet.compute.services import DELETE, LIST, UPDATE
from cumulet.errors import Conflict, Forbidden, NotFound
from cumulet.host.joining import HOST_NAME
from cumulet.web.operation import Call, Rule
from cumulet.web.schema import Body, Json


class AddHost(Body):
    """A host on another machine. One label of a DNS name, in lower case."""

    name: Annotated[str, Json({"pattern": HOST_NAME.replace(r"\A", "^").replace(r"\Z", "$"), "maxLength": 63})]


@COMPUTE.operation("GET", "/cumulet/hosts", rules=(Rule(LIST),))
def list_joined_hosts(call: Call[None, None]) -> dict[str, object]:
    """List hosts on other machines: those that have joined, and those that may. `door`: where they join; null: not at
    this process."""
    door = call.cloud.door
    return {
        "door": None if door is None else {"url": door.url, "open": door.is_open(), "problem": door.trouble()},
        "hosts": [
            {
                "name": row.name,
                "joined_at": None if row.joined_at_us is None else iso_z(row.joined_at_us),
                "token_ends_at": None if row.token_ends_at_us is None else iso_z(row.token_ends_at_us),
                "joins_again": records.may_join_again(row),
            }
            for row in records.rows(call.tx)
        ],
    }


@COMPUTE.operation("POST", "/cumulet/hosts", rules=(Rule(UPDATE),), body=AddHost, body_key="host", success=201)
def add_host(call: Call[None, AddHost]) -> dict[str, object]:
    """Let a machine join as a host of this name: answers a token that is good once, for 15 minutes.

    A host that has joined may join again while it is down, with its key and servers: after its certificate has ended,
    or from another machine. One that is up follows the command to this process's door without its token; the door lets
    nobody in with that while the host runs.
    """
    name = call.body.name
    row = records.row_of(call.tx, name)
    joins_again = row is not None and row.joined_at_us is not None
    if not joins_again:
        _require_room(call)
    door = call.cloud.door
    if rootless.inside() is not None:
        raise Conflict("This cloud runs without root, in a network of its own: no other machine reaches it.")
    if door is None:
        raise Conflict("Machines join at another process of this cloud.")
    token = records.invite(call.tx, name, now_us=call.now_us)
    ends_at_us = call.now_us + records.TOKEN_SECONDS * 1_000_000
    call.tx.after_commit(door.changed)
    return {
        "host": {
            "name": name,
            "token": token,
            "token_ends_at": iso_z(ends_at_us),
            "joins_again": joins_again,
            "join": door.url,
            "ca_fingerprint": door.fingerprint,
            "problem": door.trouble(),
        }
    }


def _require_room(call: Call[None, AddHost]) -> None:
    """For a host of this name, which has not joined yet."""
    name, settings = call.body.name, call.cloud.settings
    taken = name in settings.host_names or host_records.is_known(call.tx, name)
    reserved = {"localhost", settings.public_url and urlsplit(settings.public_url).hostname}
    if taken or name in reserved:
        raise Conflict(f"The name {name} is taken: choose another one.")
    if len(records.rows(call.tx)) >= records.MOST_JOINED:
        raise Forbidden(f"Quota exceeded: there are {records.MOST_JOINED} hosts.")


@COMPUTE.operation("DELETE", "/cumulet/hosts/{name}", rules=(Rule(DELETE),), success=204)
def remove_host(call: Call[None, None]) -> None:
    """Remove a host that has no servers: its certificates are worthless from then on."""
    name = call.path["name"]
    if (row := records.row_of(call.tx, name)) is None:
        raise NotFound(f"Host {name} could not be found.")
    if row.joined_at_us is not None and (reason := records.why_not(call.tx, name)) is not None:
        raise Conflict(f"{reason}.")
    records.remove(call.tx, name)
    if call.cloud.door is not None:
        call.tx.after_commit(call.cloud.door.changed)
