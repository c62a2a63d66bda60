"""What is believed of what hosts say: an agent may be hostile."""

from __future__ import annotations

import itertools
from collections.abc import Container

from msgspec.structs import replace

from cumulet.compute import hosts as host_records
from cumulet.host import reach
from cumulet.host.driver import Guest, GuestReport, HostFacts
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.host.messages import HostError
from cumulet.host.nics import MOST_NICS
from cumulet.settings import Settings

MOST_STRANGE = 1_000
"""Guests of servers that are not on the host. More are looked at in a later round, when some are gone."""
LONGEST_ID = 36
"""Characters of a server's id."""
LONGEST_NAME = 128
"""Characters of what a host calls a kind of machine or processor, a feature, its hypervisor, its version, a session."""
MOST_LISTED = 1_000
"""Kinds of processors, kinds of machines, or features, of a host."""


class NotBelieved(HostError):
    """A host's answer is one that no honest agent gives. It counts as none."""

    reason = "HOST_NOT_BELIEVED"


def require_own(host: str, facts: HostFacts, settings: Settings) -> None:
    """NotBelieved unless a host speaks for itself, as one of this cloud, and in bounded words, which are stored."""
    if facts.name != host:
        raise NotBelieved("it speaks for another host")
    if not host_records.would_be_same(facts, settings):
        raise NotBelieved("it has another driver than this cloud's hosts")
    if not reach.is_address(facts.address):
        raise NotBelieved("it names no address at which other hosts reach it")
    lists = facts.cpu_models, facts.machine_types, facts.features
    texts = (facts.hypervisor_type, facts.session, facts.version, *itertools.chain(*lists))
    if any(len(listed) > MOST_LISTED for listed in lists) or any(len(text) > LONGEST_NAME for text in texts):
        raise NotBelieved("it says more of itself than there can be")


def made(told: Guest, answer: Guest) -> Guest:
    """The description of a guest that a host was told to make, with what the host has filled in; NotBelieved.

    Other hosts are told it later. All else in the answer may be another server's.
    """
    names = answer.machine_type, answer.cpu_model
    if any(len(name) > LONGEST_NAME for name in names) or not 0 <= answer.nic_slots <= MOST_NICS:
        raise NotBelieved("it has made a guest that cannot be")
    return replace(
        told,
        machine_type=answer.machine_type,
        cpu_model=answer.cpu_model,
        nic_slots=answer.nic_slots,
        uneven_memory=answer.uneven_memory,
        screen=answer.screen,
    )


def peer(host: str, move: str, answer: Peer) -> Peer:
    """What one end of a move says of itself, for the other; NotBelieved if it is of another host or move."""
    if (answer.host, answer.move) != (host, move):
        raise NotBelieved("it names another host or move")
    return answer


def endpoint(host: str, address: str, move: str, answer: Endpoint) -> Endpoint:
    """Where a host receives a guest, for the source to connect to; NotBelieved if that is not its own `address`."""
    if answer.address != address:
        raise NotBelieved("it receives guests at an address that is not its own")
    peer(host, move, answer.peer)
    return answer


def reported(reports: list[GuestReport] | None, own: Container[str]) -> tuple[list[GuestReport] | None, bool]:
    """The guests of a host that are looked at, and whether there are more. `own`: the ids of the host's servers."""
    if reports is None:
        return None, False
    strange = 0
    found: dict[str, GuestReport] = {}
    for report in reports:
        if len(report.server_id) > LONGEST_ID:
            continue
        if report.server_id not in own and report.server_id not in found:
            strange += 1
            if strange > MOST_STRANGE:
                continue
        found[report.server_id] = report
    return list(found.values()), strange > MOST_STRANGE
