"""The agent of a machine that joined a cloud. It connects to the bus and over HTTPS; nothing listens here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from cumulet.agent.agent import Agent
from cumulet.agent.fence import FileFence
from cumulet.agent.images import ImagesOfControlPlane
from cumulet.agent.joining import Joined, Membership, Unreachable
from cumulet.agent.only_one import only_one
from cumulet.agent.staying_joined import granted_to, keep_admitted, keep_renewed
from cumulet.agent.watched_lease import lease_of
from cumulet.bus.nats import NatsAgent
from cumulet.clock import SystemClock
from cumulet.confined import user_ids
from cumulet.drivers.linux_network.alone import alone
from cumulet.drivers.linux_network.opening import network_of
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.fit import require_fit
from cumulet.fleet.addresses import address_towards, another_address
from cumulet.host.driver import DriverError
from cumulet.host.joining import Granted, Refused
from cumulet.host.limits import USUAL_LIMITS, HostLimits
from cumulet.signals import Stopped, unless, when_told_to_stop

log = logging.getLogger(__name__)

UNKNOWN = (
    "this cloud does not know this host: it was removed, or the cloud was restored from a backup made before it joined "
    "(then guests here may be the only copies: save what you need of their disks, {state}/qemu/guests/*/vm/disk.qcow2, "
    "first); end what is left here with `cumulet host clean --state {state}`, and remove {state}; then what `cumulet "
    "host add` prints lets it join anew"
)

OLD_TOKEN = frozenset({"WRONG_TOKEN", "TOKEN_EXPIRED", "TOKEN_USED"})
"""Refusals of a token that was used long ago."""


class JoinedPlace(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent of a joined machine is started with."""

    state: Path
    url: str | None = None
    token: str | None = None
    ca_fingerprint: str | None = None
    migration_address: str | None = None
    """The address that receives guests that move here; None: this machine's address towards the cloud."""
    wire_guests: bool = True
    public_device: str | None = None
    """The interface here that leads to the physical network ``public``."""
    emulated: bool = False
    """Whether a machine without KVM may join."""
    guest_uids: str = "70000-73999"
    limits: HostLimits = USUAL_LIMITS


class NoHost(Exception):
    """This machine is no host, or no longer one. The message is one sentence: why, and what to do."""


async def run_joined_agent(place: JoinedPlace) -> None:
    """Join unless this machine has joined already, then be the agent until SIGINT or SIGTERM. Raises NoHost."""
    stop = asyncio.Event()
    when_told_to_stop(stop.set)
    try:
        with contextlib.suppress(Stopped):
            await _join_and_serve(place, stop)
    except Refused as refused:
        words = UNKNOWN.format(state=place.state) if refused.refusal.code == "NO_MEMBER" else str(refused)
        raise NoHost(words) from refused
    except (Unreachable, DriverError) as problem:
        raise NoHost(str(problem)) from problem


async def _join_and_serve(place: JoinedPlace, stop: asyncio.Event) -> None:
    """Every wait that may be long ends when told to stop. Raises Stopped."""
    membership = Membership(place.state, SystemClock(), driver="qemu", wires=place.wire_guests)
    joined = await _joined(place, membership, stop)
    async with AsyncExitStack() as stack:
        await unless(stop, stack.enter_async_context(only_one(place.state, level=logging.WARNING)))
        stack.enter_context(_network_of(place))  # Not before: the agent before may have it until it has ended.
        while not stop.is_set():
            await _be_agent(place, membership, joined, stop)


async def _be_agent(place: JoinedPlace, membership: Membership, joined: Joined, stop: asyncio.Event) -> None:
    """Until told to stop, or until this machine has another address: then the next one has it. Raises the reason why
    this is no longer a host, and Stopped."""
    session = secrets.token_hex(8)
    granted = await unless(stop, granted_to(membership, session))
    address = place.migration_address or address_towards(joined.url)
    async with AsyncExitStack() as stack:
        bus = await _serve(place, membership, joined, granted, session, address, stack)
        tasks = [
            asyncio.create_task(one, name=name)
            for one, name in (
                (stop.wait(), "stop"),
                (_say_when_ready(joined, bus, stop), "ready"),
                (keep_admitted(membership, bus, session), "admitted"),
                (keep_renewed(membership), "renewal"),
                (stop.wait() if place.migration_address else another_address(joined.url, address), "address"),
            )
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()


async def _joined(place: JoinedPlace, membership: Membership, stop: asyncio.Event) -> Joined:
    """Join, or join again, if that is what it was started for. Raises Refused, Unreachable, DriverError, Stopped."""
    joined, token, url, ca_fingerprint = membership.joined(), place.token, place.url, place.ca_fingerprint
    if joined is None or _elsewhere(place, joined):
        if url is None or token is None or ca_fingerprint is None:
            raise Refused("NOT_JOINED", f"{place.state} belongs to no cloud yet: run what `cumulet host add` printed")
        if joined is not None:
            raise Refused(
                "OTHER_CLOUD",
                f"{place.state} belongs to {joined.name} of the cloud at {joined.url}: name another with --state",
            )
        await require_fit(place.state, emulated=place.emulated)
        with _network_of(place):
            joined = await unless(stop, membership.join(url, token, ca_fingerprint))
        print(f"joined as {joined.name}", flush=True)
    elif url is not None and token is not None and ca_fingerprint is not None:
        joined = await unless(stop, _join_again(place.state, membership, joined, url, token, ca_fingerprint))
    return joined


def _network_of(place: JoinedPlace) -> contextlib.AbstractContextManager[None]:
    """Keeps other agents from this machine's network. Raises NotAlone."""
    who = f"the agent with the state folder {place.state}"
    return alone(who) if place.wire_guests else contextlib.nullcontext()


async def _join_again(
    state: Path, membership: Membership, joined: Joined, url: str, token: str, ca_fingerprint: str
) -> Joined:
    """Only if its certificate has ended, or its folder is from another machine: else a token that was used long ago, in
    a unit of systemd, does no harm. If its cloud answers at the address of a command that it has not followed yet, it
    is asked there from now on; one that it has followed does not lead to where the cloud was before."""
    async with only_one(state, level=logging.WARNING):
        followed = membership.has_followed(url, token)
        if followed and url != joined.url:
            return joined
        if not membership.has_ended() and membership.is_of_this_machine():
            return joined if followed else await _moved(membership, joined, url, token)
        try:
            joined = await membership.join(url, token, ca_fingerprint)
        except Refused as refused:
            if membership.has_ended() or refused.refusal.code not in OLD_TOKEN:
                raise
            log.warning("%s; if the cloud knows this machine, no token is needed", refused)
            return joined
        print(f"joined again as {joined.name}", flush=True)
        return joined


async def _moved(membership: Membership, joined: Joined, url: str, token: str) -> Joined:
    try:
        moved = await membership.moved_to(url, token)
    except (Refused, Unreachable) as problem:
        log.warning("%s; the cloud of %s is asked at %s, as before", problem, joined.name, joined.url)
        return joined
    if url != joined.url:
        print(f"the cloud of {joined.name} is at {url} now", flush=True)
    return moved


async def _say_when_ready(joined: Joined, bus: NatsAgent, stop: asyncio.Event) -> None:
    """The bus may be away for long. The agent serves from then on until it is told to stop."""
    await bus.connected()
    with contextlib.suppress(OSError):  # It may go to a file on a full disk.
        print(f"ready {joined.name}", flush=True)
    await stop.wait()


def _elsewhere(place: JoinedPlace, joined: Joined) -> bool:
    """Whether it is told to join another cloud than its own."""
    return place.ca_fingerprint is not None and place.ca_fingerprint != joined.ca_fingerprint


async def _serve(
    place: JoinedPlace,
    membership: Membership,
    joined: Joined,
    granted: Granted,
    session: str,
    address: str,
    stack: AsyncExitStack,
) -> NatsAgent:
    lease = await lease_of(place.state, granted.lease_seconds)
    driver = await _driver(place, membership, joined, address)
    stack.push_async_callback(driver.close)
    agent = Agent(name=joined.name, driver=driver, fence=FileFence(place.state / "fence"), lease=lease, session=session)
    bus = NatsAgent(agent, name=joined.name, servers=granted.bus, tls=membership.tls, incarnation=session)
    stack.push_async_callback(bus.close)
    await bus.start()
    return bus


async def _driver(place: JoinedPlace, membership: Membership, joined: Joined, address: str) -> QemuDriver:
    images = ImagesOfControlPlane(joined.url, membership.identity)
    return await QemuDriver.open(
        name=joined.name,
        state=place.state / "qemu",
        images=images,
        sink=images,
        address=address,
        network=await network_of(joined.name, address, place.public_device) if place.wire_guests else None,
        guest_uids=user_ids.of(place.guest_uids),
        limits=place.limits,
    )
