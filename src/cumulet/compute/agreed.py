"""What a host and the records said when nothing had to be corrected: while they say it again, nothing is compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from cumulet.compute.drift import Before
from cumulet.host.driver import GuestReport, GuestState


class Agreed(msgspec.Struct, frozen=True):
    """What a host and the records said when nothing had to be corrected."""

    reports: tuple[GuestReport, ...]
    linked: frozenset[str] | None
    after: Before


def agreed(
    reports: Sequence[GuestReport], linked: Collection[str] | None, asked: Before, after: Before
) -> Agreed | None:
    """After a `compare` without corrections: while the host and the records say the same, the next one finds nothing.

    `after`: what the records say after it. None if the next one may find something: a record has changed since the
    host was asked (`asked`), or the host has guests of servers that are not its own.
    """
    foreign = any(one.state is not GuestState.ABSENT and one.server_id not in after.revisions for one in reports)
    return None if foreign or after.revisions != asked.revisions else Agreed(*_said(reports, linked), after)


def still_agreed(
    known: Agreed | None, reports: Sequence[GuestReport], linked: Collection[str] | None, asked: Before
) -> bool:
    """Whether a `compare` would find nothing; also if neither side has a server."""
    if not reports and not asked.revisions:
        return True
    return known == Agreed(*_said(reports, linked), asked)


def _said(
    reports: Sequence[GuestReport], linked: Collection[str] | None
) -> tuple[tuple[GuestReport, ...], frozenset[str] | None]:
    return tuple(reports), None if linked is None else frozenset(linked)
