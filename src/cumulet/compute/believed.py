"""What is believed of what hosts say: an agent may be hostile."""

from __future__ import annotations

from collections.abc import Container

from cumulet.host.driver import GuestReport

MOST_STRANGE = 1_000
"""Guests of servers that are not on the host. More are looked at in a later round, when some are gone."""
LONGEST_ID = 36
"""Characters of a server's id."""


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
