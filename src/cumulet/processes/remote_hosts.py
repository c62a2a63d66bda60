"""Hosts on other machines, for a control plane: the door where they join, the bus to them, the members.

Before the first machine is allowed to join, nothing listens and no NATS server is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from contextlib import AsyncExitStack
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from cumulet.bus.nats import NatsBus
from cumulet.bus.nats_connection import LONGEST_PAUSE_SECONDS, RECONNECT_SECONDS, SERVER_NAME
from cumulet.ca import Issued, read_request, read_signer
from cumulet.compute import joined_hosts as records
from cumulet.compute.hosts import is_heard
from cumulet.conductor.presence import CUT_OFF, NO_DOOR
from cumulet.db.engine import Tx
from cumulet.fleet.addresses import ANY_ADDRESS, THIS_MACHINE, in_url, reached_at
from cumulet.fleet.host_door import HostDoor, key_sha256
from cumulet.fleet.hosts import QUESTION_SECONDS
from cumulet.fleet.nats_server import CONTROL_PLANE, BusUser, NatsServer, NoNatsServer
from cumulet.host import messages as m
from cumulet.host.images import Find, Receive
from cumulet.host.joining import (
    DOOR_NAME,
    Admitted,
    Claim,
    Granted,
    Join,
    KnownKey,
    Refused,
    Renew,
    joins_again,
    require_clock,
    require_protocol,
    same_machine,
)
from cumulet.processes.bus_users import BusUsers, bus_user
from cumulet.processes.certificates import Certificates
from cumulet.processes.ground import Ground
from cumulet.web.context import Door
from cumulet.web.strangers import Strangers

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""On a database with several processes: how often this one looks for new and removed members."""
BUS = "bus"
"""The name of its certificate in `Certificates`."""
AGAIN_SECONDS = 2.0
"""Before another attempt to start what could not be started."""
RETURN_SECONDS = 2 * LONGEST_PAUSE_SECONDS
"""How long a conductor that starts waits for the bus, and for the hosts on it."""
OTHER_MACHINE = (
    "this state folder is that of {host} on another machine: it was copied or moved here, or this machine has another "
    "operating system, mainboard or host name than before; if {host} is still there, leave it as it is, and join here "
    "as a host of its own, with another folder (--state); if its disks are here now, switch the other machine off, run "
    "`cumulet host add {host}` where the cloud runs once {host} is down, and here what that prints: then {host} "
    "joins again, with its guests"
)
TWICE = (
    "{host} runs already, and one of the two seems to be a copy: end one agent, and remove neither state folder before "
    "you know which one the guests of {host} run from"
)


class RemoteHosts:
    """A `fleet.host_door.Membership`. It keeps `hosts` and the bus as the records say."""

    def __init__(self, ground: Ground, certificates: Certificates) -> None:
        self._db = ground.db
        self._clock = ground.clock
        self._settings = ground.settings
        self._hosts = ground.hosts
        self._hosts.lost_bus = self._lost_bus
        self._certificates = certificates
        self._authority = certificates.authority
        self._images: tuple[Find, Receive] | None = None
        self._door: HostDoor | None = None
        self._socket: socket.socket | None = None
        self._server: NatsServer | None = None
        self._bus: NatsBus | None = None
        self._names: set[str] = set()
        self._members = BusUsers()
        self._users: frozenset[BusUser] = frozenset()
        """Those that the bus was told of."""
        self._trouble: str | None = None
        self._troubled_at: float | None = None
        self._changed = asyncio.Event()
        self._looking = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._stack = AsyncExitStack()

    def door(self) -> Door:
        """The door where machines join. If the setting says 0, its port is chosen here."""
        port = self._settings.hosts_port
        if port == 0:
            address = self._settings.listen_address
            self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            self._socket.bind((address, 0))  # Nothing listens yet.
            port = self._socket.getsockname()[1]
        self._port = port
        address = reached_at(self._settings)
        url = f"https://{in_url(address)}:{port}"
        return Door(
            url=url,
            fingerprint=self._authority.fingerprint,
            changed=self._wake,
            is_open=lambda: self._door is not None and self._bus is not None,
            trouble=self.trouble,
        )

    def _wake(self) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def start(self, images: tuple[Find, Receive] | None) -> None:
        """Start. When this returns, members may use the bus, if there is one. Without `images` no door is opened."""
        self._images = images
        await self._look_safely()
        self._following = asyncio.create_task(self._follow(), name="remote-hosts")

    async def reached(self) -> None:
        """Before the hosts are asked: wait until the bus is connected and the hosts that the records call up answer, at
        most `RETURN_SECONDS`. Agents lost the bus if its server was ours, and try again every few seconds."""
        bus = self._bus
        if bus is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETURN_SECONDS):
                await bus.connected()
                names = sorted(self._names)
                missing = await self._db.read_async(lambda tx: [name for name in names if is_heard(tx, name)])
                while missing:
                    answers = await asyncio.gather(*(self._session_of(name) for name in missing))
                    missing = [name for name, session in zip(missing, answers, strict=True) if session is None]
                    if missing:
                        await asyncio.sleep(RECONNECT_SECONDS)

    def bus_state(self) -> str:
        """The state of the bus, for `conductor.presence`."""
        if self._bus is None:
            return "none" if self._trouble is None else CUT_OFF
        if not self._bus.is_connected:
            return CUT_OFF
        return "connected" if self._trouble is None else NO_DOOR

    def _lost_bus(self) -> float | None:
        """Of `fleet.hosts.Hosts`. A bus that could not be opened is lost, too."""
        if self._bus is not None:
            return self._bus.lost_seconds
        return self._clock.monotonic() - self._troubled_at if self._troubled_at is not None else None

    def trouble(self) -> str | None:
        """Why hosts on other machines cannot join, or be reached; it is tried again."""
        return self._trouble

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._stack.aclose()
        if self._socket is not None and self._door is None:
            self._socket.close()

    async def _follow(self) -> None:
        while True:
            wait = LOOK_SECONDS if not self._db.embedded else None
            done = await self._look_safely()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait if done else AGAIN_SECONDS):
                    await self._changed.wait()
            self._changed.clear()

    async def _look_safely(self) -> bool:
        try:
            await self._look()
        except (NoNatsServer, OSError) as problem:
            words = str(getattr(problem, "strerror", None) or problem)
            if words != self._trouble:
                log.error("hosts on other machines cannot be reached, will retry: %s", words)
            self._trouble = words
            self._troubled_at = self._troubled_at or self._clock.monotonic()
            return False
        except Exception:
            log.exception("hosts on other machines could not be looked for, will retry")
            return False
        self._trouble = self._troubled_at = None
        return True

    async def _look(self) -> None:
        """Do as the records say. Raises NoNatsServer and OSError: hosts that have joined need no door for what they are
        asked, so the door does not keep the bus from being opened."""
        async with self._looking:
            known = await self._db.read_async(self._members.read)
            if not known and not self._names and not await self._db.read_async(records.any_invited):
                return
            no_door = await self._open_door()
            await self._open_bus(known)
            assert self._bus is not None
            # A host of this machine has its link already, which no other machine's takes over.
            names = {one.host for one in known}.difference(self._settings.host_names)
            for name in sorted(names - self._names):
                self._hosts.add(name, self._bus.link(name))
            for name in sorted(self._names - names):
                self._hosts.remove(name)
            self._names = names
            if no_door is not None:
                raise no_door

    async def _open_door(self) -> OSError | None:
        """What keeps it from being opened."""
        if self._door is not None or self._images is None:
            return None
        again = partial(self._authority.issue_door, DOOR_NAME)
        door = HostDoor(self, *self._images, issued := again(), Strangers())
        try:
            await door.listen_on(self._settings.listen_address, self._port, self._socket)
        except OSError as problem:
            return problem
        self._certificates.keep("door for hosts", issued, again, door.show)
        self._stack.push_async_callback(door.close)
        self._door = door
        return None

    async def _open_bus(self, users: frozenset[BusUser]) -> None:
        if self._settings.bus is None and self._server is None:
            again = partial(self._authority.issue_bus, SERVER_NAME)
            server = NatsServer(
                self._settings.state_dir / "bus",
                issued := again(),
                address=self._settings.listen_address,
                port=self._settings.bus_port or -1,
            )
            self._certificates.keep(BUS, issued, again, lambda _: server.reload())
            await server.start(users)
            self._stack.push_async_callback(server.stop)
            self._server = server
        elif self._server is not None and users != self._users:
            await asyncio.to_thread(self._server.admit, users)
        self._users = users
        if self._settings.bus is not None:
            self._certificates.watch(BUS, self._authority.bus_certificate)
        if self._bus is None:
            again = partial(self._authority.issue_client, CONTROL_PLANE)
            tls = _tls(issued := again())
            self._certificates.keep(
                "control plane on the bus", issued, again, lambda new: tls.load_cert_chain(new.certificate, new.key)
            )
            bus = NatsBus(self._servers(ours=True), tls, name="control-plane", lost=self._hosts.bus_is_lost)
            await bus.start()
            self._stack.push_async_callback(bus.close)
            self._bus = bus

    def _servers(self, *, ours: bool) -> tuple[str, ...]:
        """The bus's URLs, as this process or as a host reaches it."""
        if self._settings.bus is not None:
            return tuple(self._settings.bus.split(","))
        assert self._server is not None
        address = self._settings.listen_address
        if address in ANY_ADDRESS:
            address = THIS_MACHINE if ours else reached_at(self._settings)
        return (f"nats://{in_url(address)}:{self._server.port}",)

    # -- `fleet.host_door.Membership`

    async def join(self, asked: Join, address: str) -> Admitted:
        require_protocol(asked.protocol)
        require_clock(asked.now_us, self._clock.now_us())
        self._require_driver(asked.driver)
        try:
            key = key_sha256(read_request(asked.request.encode())[0])
            known = None if asked.known is None else key_sha256(_signer(asked, asked.known))
        except ValueError as error:
            raise Refused("NOT_UNDERSTOOD", f"a request for a certificate is not what it must be: {error}") from None
        await self._refuse_running(asked, address)
        now_us = self._clock.now_us()

        def redeemed(tx: Tx) -> records.Member:
            return records.redeem(
                tx,
                asked.token,
                key_sha256=key,
                known_sha256=known,
                machine=asked.machine,
                now_us=now_us,
                not_these=self._settings.host_names,
            )

        host = await self._db.write_async(redeemed)
        self._changed.set()
        await self._look_safely()  # The bus must know the host before it has its certificate.
        log.info("%s has joined", host.name)
        return self._certificate(host.name, host.identity, asked.request)

    async def _refuse_running(self, asked: Join, address: str) -> None:
        """A host that joins again must not run: who shows its token and its key would be a copy of it. On another
        machine it must be down: its agent may only be away for a moment."""
        known = await self._db.read_async(lambda tx: records.joins_again(tx, asked.token))
        if known is None:
            return
        name = known.name
        await self._look_safely()
        if self._bus is None:
            raise Refused("NO_BUS", "the cloud has no bus yet; its log says why", again=True)
        if await self._session_of(name) is not None:
            await self._note_twice(name, address, "another one answers")
            words = f"{name} runs, on this or another machine: it need not join again; a new machine needs another name"
            raise Refused("RUNS_ALREADY", words)
        if _on_another(known, asked.machine) and await self._db.read_async(lambda tx: is_heard(tx, name)):
            await self._note_twice(name, address, "it is on another machine")
            words = f"{name} was heard a moment ago on another machine: switch that off, and join here once it is down"
            raise Refused("HEARD_ELSEWHERE", words)

    async def _note_twice(self, host: str, address: str, why: str) -> None:
        now_us = self._clock.now_us()
        await self._db.write_async(lambda tx: records.note_twice(tx, host, address=address, why=why, now_us=now_us))

    async def member(self, identity: str, key_sha256: str) -> str:
        return (await self._db.read_async(lambda tx: records.member(tx, identity, key_sha256))).name

    async def claim(self, host: str, asked: Claim, address: str) -> Granted:
        require_protocol(asked.protocol)
        require_clock(asked.now_us, self._clock.now_us())
        self._require_driver(asked.driver)
        known = await self._db.read_async(lambda tx: records.member_called(tx, host))
        if self._bus is None or known is None or bus_user(known) not in self._users:
            await self._look_safely()
        if self._bus is None:
            raise Refused("NO_BUS", "the cloud has no bus yet; its log says why", again=True)
        before = None if known is None else known.session
        if known is not None and before != asked.session and _on_another(known, asked.machine):
            await self._note_twice(host, address, "it is on another machine")
            raise Refused("OTHER_MACHINE", OTHER_MACHINE.format(host=host))
        if before != asked.session and await self._session_of(host) == before is not None:
            await self._note_twice(host, address, "another one answers")
            raise Refused("RUNS_ALREADY", TWICE.format(host=host))
        if before != asked.session and not await self._db.write_async(
            lambda tx: records.take_session(tx, host, before=before, session=asked.session, machine=asked.machine)
        ):
            raise Refused("RUNS_ALREADY", f"another agent of {host} has started at the same moment")
        lease = self._settings.host_lease_seconds if self._settings.fence_silent_hosts else None
        return Granted(bus=self._servers(ours=False), lease_seconds=lease)

    async def _session_of(self, host: str) -> str | None:
        """The session of the agent that answers for this host now; None: none answers."""
        assert self._bus is not None
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                return (await self._bus.link(host).send(m.AskFacts())).session
        except (TimeoutError, m.HostError):
            return None

    async def renew(self, host: str, identity: str, asked: Renew) -> Admitted:
        """A new certificate for the key that the host has. Another key is refused: it would be another machine's."""
        try:
            key = key_sha256(read_request(asked.request.encode())[0])
            await self._db.read_async(lambda tx: records.member(tx, identity, key))
            return self._certificate(host, identity, asked.request)
        except ValueError as error:
            raise Refused("NOT_UNDERSTOOD", f"a request for a certificate is not what it must be: {error}") from None

    def _certificate(self, name: str, identity: str, request: str) -> Admitted:
        made = self._authority.sign_joined(name, identity, request.encode())
        return Admitted(name=name, certificate=made.decode())

    def _require_driver(self, driver: str) -> None:
        if driver != self._settings.driver:
            raise Refused("OTHER_DRIVER", f"this cloud's hosts are {self._settings.driver}, and this one is {driver}")


def _on_another(known: records.Member, machine: str) -> bool:
    """Whether a host has joined on another machine than this one."""
    return known.machine is not None and not same_machine(known.machine, machine)


def _signer(asked: Join, known: KnownKey) -> EllipticCurvePublicKey:
    """The key that a machine has had. ValueError: it does not have it."""
    signed = joins_again(asked.token, asked.request)
    return read_signer(known.key.encode(), bytes.fromhex(known.signature), signed)


def _tls(issued: Issued) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(issued.authority))
    context.load_cert_chain(issued.certificate, issued.key)
    return context
