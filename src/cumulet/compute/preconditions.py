"""What must hold before a server may move, in one list for every verb that moves one.

Each verb must meet all preconditions except those that spare it, with the reason. The server's state and lock are
checked in `compute.states`; the scheduler checks the destination. Preconditions are checked when the verb is asked for,
and again in the transaction that claims, because a host may go down in between. A disabled source stops no move: hosts
are disabled to be emptied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec

from cumulet.compute import hosts as host_records
from cumulet.compute import resized
from cumulet.compute.model import Server
from cumulet.compute.scheduler import Reason
from cumulet.db.engine import Tx
from cumulet.errors import ApiError, BadRequest, Conflict
from cumulet.settings import Settings


class Verb(StrEnum):
    """As the API names them; automatic restart is an evacuation, automatic confirmation a confirmation."""

    LIVE = "os-migrateLive"
    COLD = "migrate"
    RESIZE = "resize"
    EVACUATE = "evacuate"
    CONFIRM = "confirmResize"
    REVERT = "revertResize"


class Precondition(msgspec.Struct, frozen=True, kw_only=True):
    """`refusal`: the error if it does not hold, else None. `spared`: verbs that need not meet it, and why."""

    name: str
    refusal: Callable[[Tx, Server, Verb, Settings], ApiError | None]
    spared: Mapping[Verb, str] = msgspec.field(default_factory=dict)


def _on_a_host(tx: Tx, server: Server, verb: Verb, settings: Settings) -> ApiError | None:
    return Conflict(f"Instance {server.id} is not ready", reason="NOT_READY") if server.host is None else None


def _host_up(tx: Tx, server: Server, verb: Verb, settings: Settings) -> ApiError | None:
    assert server.host is not None
    if host_records.is_up(tx, server.host):
        return None
    if verb is Verb.REVERT and host_records.is_fenced(tx, server.host, settings):
        return None  # What it goes back to is on the other host, and what is lost here would be lost anyway.
    if verb is Verb.LIVE:
        return BadRequest(
            f"Compute service of {server.host} is unavailable at this time.",
            reason=Reason.HOST_DOWN,
            private=f"{server.host}: {Reason.HOST_DOWN}",
        )
    return _unavailable(server.host)


def _unavailable(host: str) -> Conflict:
    return Conflict(
        "Service is unavailable at this time.", reason=Reason.HOST_DOWN, private=f"{host}: {Reason.HOST_DOWN}"
    )


def _host_dead(tx: Tx, server: Server, verb: Verb, settings: Settings) -> ApiError | None:
    """Refuse unless the host's guests certainly cannot run. Silence alone does not prove that."""
    assert server.host is not None
    if host_records.is_fenced(tx, server.host, settings):
        return None
    if host_records.is_heard(tx, server.host):
        return BadRequest(f"Compute service of {server.host} is still in use.", reason="HOST_UP")
    return BadRequest(
        f"Compute service of {server.host} is still in use: it does not answer, but its guests may be running. Make "
        "sure that they are not, then say so with force-down.",
        reason="NOT_FENCED",
    )


def _not_resized(tx: Tx, server: Server, verb: str, settings: Settings | None = None) -> ApiError | None:
    """Refuse a server whose state was reset while its resize waited for an answer."""
    if resized.kept_of(tx, server.id) is None:
        return None
    words = f"Instance {server.id} is in an invalid state for '{verb}': confirm or revert its resize first"
    return Conflict(words, reason="STILL_RESIZED")


def require_not_resized(tx: Tx, server: Server, action: str) -> None:
    """For what leaves the server's host otherwise than by a `Verb`: the place of the old disk would be forgotten."""
    refusal = _not_resized(tx, server, action)
    if refusal is not None:
        raise refusal


def _kept_up(tx: Tx, server: Server, verb: Verb, settings: Settings) -> ApiError | None:
    kept = resized.kept_of(tx, server.id)
    return None if kept is None or host_records.is_up(tx, kept.host) else _unavailable(kept.host)


_KEEPS_NOTHING = "it begins only where nothing is kept elsewhere"
PRECONDITIONS: tuple[Precondition, ...] = (
    Precondition(name="it is on a host", refusal=_on_a_host),
    Precondition(
        name="its host is up",
        refusal=_host_up,
        spared={
            Verb.EVACUATE: "it is for hosts that are dead",
            Verb.CONFIRM: "nothing is done there",
        },
    ),
    Precondition(
        name="its host's guests cannot run",
        refusal=_host_dead,
        spared=dict.fromkeys(
            (Verb.LIVE, Verb.COLD, Verb.RESIZE, Verb.REVERT, Verb.CONFIRM), "its host takes part in it"
        ),
    ),
    Precondition(
        name="it is not resized",
        refusal=_not_resized,
        spared={
            Verb.EVACUATE: "what a dead host had must start somewhere; not where the other disk is kept",
            Verb.CONFIRM: "it is for servers that are",
            Verb.REVERT: "it is for servers that are",
        },
    ),
    Precondition(
        name="the host it came from is up",
        refusal=_kept_up,
        spared={
            Verb.LIVE: _KEEPS_NOTHING,
            Verb.COLD: _KEEPS_NOTHING,
            Verb.RESIZE: _KEEPS_NOTHING,
            Verb.EVACUATE: "it goes elsewhere",
        },
    ),
)


def require(tx: Tx, server: Server, verb: Verb, settings: Settings) -> None:
    """Raise the first refusal."""
    for one in PRECONDITIONS:
        refusal = None if verb in one.spared else one.refusal(tx, server, verb, settings)
        if refusal is not None:
            raise refusal
