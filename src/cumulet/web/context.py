"""The cloud that a request runs against: what handlers may use besides their transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from cumulet.space import Space

if TYPE_CHECKING:
    from pathlib import Path

    from cumulet.clock import Clock
    from cumulet.db.engine import Database, Tx
    from cumulet.fleet.hosts import Hosts
    from cumulet.settings import Settings
    from cumulet.wake import Wake
    from cumulet.web.operation import Caller
    from cumulet.web.policy import Policy


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """The URL where machines join this cloud, and the SHA-256 of its authority's certificate, which they check."""

    url: str
    fingerprint: str
    changed: Callable[[], None]
    """To be called, on any thread, after a change of who may join or who is a member."""
    is_open: Callable[[], bool]
    """It opens only after the first `cumulet host add`."""
    trouble: Callable[[], str | None]
    """Why hosts on other machines cannot join, or be reached."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """One that the cloud shows, or its authority's."""

    name: str
    """Of what it is."""
    ends_at_us: int
    days_left: int
    """Whole days; below 0 once it has ended."""
    soon: bool
    """Whether it should have been renewed, or its end needs preparing."""


class Process(Protocol):
    """One process of a cloud (`conductor.presence.Process`)."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def machine(self) -> str: ...
    @property
    def bus(self) -> str: ...
    @property
    def lag_ms(self) -> int: ...
    @property
    def started_at_us(self) -> int: ...
    @property
    def heard_at_us(self) -> int: ...


class Presence(Protocol):
    """`conductor.presence.Presence`."""

    def now(self) -> Process: ...
    def problem(self) -> str | None:
        """What keeps this process from its work, apart from the database."""
        ...

    @property
    def trouble(self) -> Callable[[], str | None]:
        """Why hosts on other machines cannot be reached, in words for administrators."""
        ...


class Authenticator(Protocol):
    """Gives the caller of a token. None: the token is not valid, or does not allow such a request."""

    async def authenticate(self, token: str, *, service: str, method: str, path: str) -> Caller | None: ...


class Cloud(msgspec.Struct, frozen=True, kw_only=True):
    """One running cloud."""

    settings: Settings
    db: Database
    clock: Clock
    state_dir: Path
    wake: Wake
    hosts: Hosts
    """Questions to host agents (console output, diagnostics)."""
    identity: Authenticator
    """Gives the caller of a token. Only the identity service uses more of it (`identity.service.Identity.of`)."""
    policy: Policy
    """The compiled rules."""
    space: Space = msgspec.field(default_factory=Space)
    """Promises on the state folder's file system."""
    door: Door | None = None
    hosts_offer: Callable[[Tx, str], bool | None] = lambda _tx, _feature: True
    """Whether a host has reported this feature (`HostFacts.features`); None: no host has reported any."""
    hypervisors: Callable[[Tx, str, str], Mapping[str, str]] = lambda _tx, _name, _id: {}
    """Of hosts that have this name, or whose hypervisors have this id: name -> id."""
    presence: Presence | None = None
    """The state of this process."""
    certificates: Callable[[], Sequence[Certificate]] = tuple
    """Those that this process shows or knows of."""
