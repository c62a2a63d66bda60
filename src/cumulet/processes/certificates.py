"""The certificates that a process shows: looked at for as long as it runs, renewed in time, and shown from then on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from cumulet.ca import RENEW_DAYS, BadCertificate, CertificateAuthority, Dates, Issued, dates_of
from cumulet.clock import Clock
from cumulet.owned import Exposed
from cumulet.periodic import Periodic
from cumulet.web.context import Certificate

log = logging.getLogger(__name__)

LOOK_SECONDS = 600.0
"""How often the certificates are looked at. Others' files, which change at any time, are read again then."""
SOON_DAYS = RENEW_DAYS - 1
"""Fewer days left are told: there was a day to renew it. For one with a short life, the last third of that is told."""
AUTHORITY_SOON_DAYS = 365
"""For the authority itself: every host and client has to be given the next one."""
_DAY_US = 86_400_000_000
AUTHORITY = "authority"
_UNREADABLE = (BadCertificate, Exposed, OSError, ValueError)
Again = Callable[[], Issued]
Show = Callable[[Issued], None]


class _Kept:
    """`again` gives the certificate to be shown, a new one if it is time for that; `show` puts it to use."""

    def __init__(self, shown: Issued, again: Again, show: Show) -> None:
        self.again = again
        self.show = show
        self.take(shown, _content(shown))

    def take(self, issued: Issued, content: tuple[bytes, bytes]) -> None:
        """What is noted here is what is shown: it stays as it was if `show` fails."""
        self.show(issued)
        self.dates = dates_of(content[0])
        self.content = content


class Certificates(Periodic):
    """Those of one process. `keep` adds one."""

    def __init__(self, authority: CertificateAuthority, clock: Clock) -> None:
        super().__init__(name="certificates", clock=clock, seconds=LOOK_SECONDS)
        self.authority = authority
        self._of_authority = dates_of(authority.certificate_file.read_bytes())
        self._kept: dict[str, _Kept] = {}
        self._told: dict[str, object] = {}

    def keep(self, name: str, shown: Issued, again: Again, show: Show) -> None:
        """Look after one from now on. `show` is called at once too, for it may have been renewed meanwhile."""
        self._kept[name] = _Kept(shown, again, show)

    def watch(self, name: str, file: Path) -> None:
        """Tell of one that others renew and show, if there is one yet."""
        one = Issued(certificate=file, key=file, authority=None)
        if name not in self._kept and file.exists():
            self.keep(name, one, lambda: one, lambda _: None)

    def left(self) -> list[Certificate]:
        """The authority's, and all that are kept: as they are shown now."""
        now_us = self._clock.now_us()
        found = [_state(AUTHORITY, self._of_authority, now_us, AUTHORITY_SOON_DAYS)]
        return found + [_state(name, one.dates, now_us, SOON_DAYS) for name, one in sorted(self._kept.items())]

    async def round(self) -> None:
        for name, one in list(self._kept.items()):
            try:
                issued, content = await asyncio.to_thread(_read, one.again)
                if content != one.content:
                    one.take(issued, content)
                    ends = _state(name, one.dates, self._clock.now_us(), SOON_DAYS)
                    log.info("certificate of %s: a new one is shown, for %d days", name, ends.days_left)
            except _UNREADABLE as problem:
                self._tell(name, problem, f"certificate of {name}: the one before is still shown: {problem}")
        self._warn(self.left())

    def _warn(self, found: Iterable[Certificate]) -> None:
        """Once a day of each that ends soon."""
        for one in found:
            if one.soon:
                words = f"certificate of {one.name}: {one.days_left} days are left"
                self._tell(f"end of {one.name}", None, f"{words} (docs/operating.md, Certificates)")

    def _tell(self, about: str, problem: Exception | None, words: str) -> None:
        told = (str(problem), self._clock.now_us() // _DAY_US)
        if self._told.get(about) != told:
            log.warning("%s", words)
        self._told[about] = told


async def certificates_of(state_dir: Path, clock: Clock, stack: AsyncExitStack) -> Certificates:
    """Those of a process of the cloud with this state folder, which makes the authority; `stack` ends it."""
    found = Certificates(CertificateAuthority.load_or_create(state_dir / "ca", clock), clock)
    stack.push_async_callback(found.stop)
    await found.start()
    return found


def _read(again: Again) -> tuple[Issued, tuple[bytes, bytes]]:
    issued = again()
    return issued, _content(issued)


def _content(issued: Issued) -> tuple[bytes, bytes]:
    return issued.certificate.read_bytes(), issued.key.read_bytes()


def _state(name: str, dates: Dates, now_us: int, soon_days: int) -> Certificate:
    left_us = dates.ends_at_us - now_us
    soon_us = min(soon_days * _DAY_US, (dates.ends_at_us - dates.begins_at_us) // 3)
    return Certificate(name=name, ends_at_us=dates.ends_at_us, days_left=left_us // _DAY_US, soon=left_us < soon_us)
