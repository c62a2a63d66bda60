"""The messages between a cloud and a machine that joins it, over HTTPS: JSON, checked when it is read."""

from __future__ import annotations

from typing import Annotated

import msgspec

PROTOCOL = 2
"""The version of the verbs and of this file's messages. A control plane also speaks to agents of the version before."""
OLDEST_PROTOCOL = 1
HOST_NAME = r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
DOOR_NAME = "door.cumulet"
"""The name in the certificate of the door for joining machines, at any address."""
CLOCKS_APART_SECONDS = 30.0

Text = Annotated[str, msgspec.Meta(max_length=8192)]
Short = Annotated[str, msgspec.Meta(max_length=128)]


class _Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class KnownKey(_Said, frozen=True, kw_only=True):
    """The key by which the cloud knows a machine that joins again, as PEM, and its signature of `joins_again`, in
    hexadecimal."""

    key: Text
    signature: Text


class Join(_Said, frozen=True, kw_only=True, omit_defaults=True):
    """`request` is for a certificate, as PEM (PKCS #10). `known`: of a machine that has joined before."""

    token: Short
    machine: Short
    """The machine's own names (`agent.machine_names.machine_id`)."""
    driver: Short
    protocol: int
    now_us: int
    request: Text
    known: KnownKey | None = None


class Renew(_Said, frozen=True, kw_only=True):
    request: Text


class Admitted(_Said, frozen=True, kw_only=True):
    """The host's name, and its certificate as PEM."""

    name: str
    certificate: str


class Claim(_Said, frozen=True, kw_only=True):
    """An agent has started and asks to be its host's only agent. `session` is new at each start."""

    session: Short
    machine: Short
    driver: Short
    protocol: int
    now_us: int


class Granted(_Said, frozen=True, kw_only=True):
    """The address of the bus; the seconds after which a host that is not heard stops its guests, or None."""

    bus: tuple[str, ...]
    lease_seconds: float | None = None


class Refusal(_Said, frozen=True, kw_only=True):
    """One sentence for the person who started the agent. `again`: the same request may succeed later."""

    code: str
    message: str
    again: bool = False


class Refused(Exception):
    """A `Refusal` as an exception, raised on both sides."""

    def __init__(self, code: str, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.refusal = Refusal(code=code, message=message, again=again)


def same_machine(one: str, other: str) -> bool:
    """Whether two answers of `agent.machine_names.machine_id` are of one machine: they have one of the first two names
    in common, or one side knows its board, and would be the other one without. Agents of before give one name only.
    What follows `@` is the network namespace that an agent makes the network of."""
    ours, theirs = (each.split("@")[0].split(":") for each in (one, other))
    return not set(ours[:2]).isdisjoint(theirs[:2]) or _without_board(ours, theirs) or _without_board(theirs, ours)


def _without_board(known: list[str], other: list[str]) -> bool:
    """Whether `other` has the names of `known` as they are where the board cannot be read."""
    return len(known) == 3 and len(other) == 2 and other[1].startswith(known[2])


def same_network(one: str, other: str) -> bool:
    """Whether two agents would make the same network: of one machine, in one namespace. Others make none."""
    return "@" in one and one.partition("@")[2] == other.partition("@")[2] and same_machine(one, other)


def joins_again(token: str, request: str) -> bytes:
    """What a machine that joins again signs with the key that it had."""
    return f"cumulet joins again\n{token}\n{request}".encode()


def require_clock(theirs_us: int, ours_us: int) -> None:
    """Raise Refused if the clocks differ too much: certificates and leases need clocks that agree."""
    apart = (theirs_us - ours_us) / 1_000_000
    if abs(apart) > CLOCKS_APART_SECONDS:
        direction = "ahead of" if apart > 0 else "behind"
        raise Refused(
            "WRONG_CLOCK",
            f"this machine's clock is {abs(apart):.0f} s {direction} the cloud's: set it (with chrony, or "
            "systemd-timesyncd) and start the agent again",
        )


def require_protocol(theirs: int) -> None:
    """Raises Refused."""
    if not OLDEST_PROTOCOL <= theirs <= PROTOCOL:
        side = "older" if theirs < OLDEST_PROTOCOL else "newer"
        raise Refused(
            "OTHER_VERSION",
            f"this agent's Cumulet is {side} than what the cloud speaks to (protocol {theirs}, the cloud has "
            f"{OLDEST_PROTOCOL} to {PROTOCOL}): install the cloud's version on this machine",
        )
