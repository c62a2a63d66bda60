"""Guests that came after the records: those are of a backup, and hosts have gone on.

A host never knows a newer generation of a server than the records do, because that is committed before anybody is told.
Where one does, the records are older than its guest. It may be the only copy, so it is not removed as one left over.

Such a host refuses whatever it is told of the server as out of date. So the records are brought past what it has
accepted: where it reports the guest of a server that the records have there (`catch_up`), and, for the operation that
is refused, by whoever holds that (`compute.stale`). Both only raise a generation, in a transaction. What was sent
before is refused from then on, as if another operation had begun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cumulet.compute.drift import Correction, Finding, Records
from cumulet.compute.store import get_server, update_server
from cumulet.conductor import findings
from cumulet.db.engine import Row, Tx
from cumulet.host.driver import GuestReport

FINDING = "guest-newer-than-records"
LEFT_ALONE = "left alone: the records are older than it (docs/operating.md, Backup and restore)"

BEHIND = "records-older-than-host"
CAUGHT_UP = "the records go on from what the host has accepted"
MOST_NOTED = 10
"""Guests of a host that are left alone, each with a finding of its own; of more there is one finding for all."""
MOST_AHEAD = 1_000_000
"""Generations. A host that claims to be further ahead is not believed."""


def without_newer_guests(
    tx: Tx,
    host: str,
    corrections: Sequence[Correction],
    reports: Sequence[GuestReport],
    rows: Mapping[str, Row],
    *,
    reconciler: str,
    keep_unknown: bool,
    now_us: int,
) -> list[Correction]:
    """The corrections but those that would remove a newer guest of `host`, which is noted.

    `rows`: records by server id. `keep_unknown`: the setting `keep_unknown_guests`.
    """
    generations = {report.server_id: report.generation for report in reports}
    left, alone = [], []
    for correction in corrections:
        row = rows.get(correction.server_id)
        if row is None:
            newer = keep_unknown and correction.finding is Finding.GUEST_WITHOUT_RECORD
        else:
            elsewhere = correction.finding is Finding.GUEST_OF_ANOTHER_HOST
            newer = elsewhere and is_newer(generations.get(correction.server_id, 0), row.generation)
        if newer:
            alone.append(correction.server_id)
        else:
            left.append(correction)
    if len(alone) > MOST_NOTED:
        alone = [""]
    for subject in alone:
        findings.note(tx, reconciler, FINDING, LEFT_ALONE, now_us=now_us, host=host, subject=subject)
    return left


def is_newer(reported: int, recorded: int) -> bool:
    """By the generations of a server: the host's, and the records'."""
    return reported > recorded


def is_believed(accepted: int, recorded: int) -> bool:
    return accepted - recorded <= MOST_AHEAD


def catch_up(
    tx: Tx, reported: Mapping[str, Sequence[GuestReport]], recorded: Records, *, reconciler: str, now_us: int
) -> bool:
    """Raise servers to the generations that their hosts report; whether any was. `reported`: by host, what it says.

    Servers with an operation are left to that.
    """
    raised = False
    for host, reports in reported.items():
        rows = recorded.of(host, [report.server_id for report in reports])
        for report in reports:
            row, accepted = rows.get(report.server_id), report.generation
            if row is None or row.host != host or row.deleted_at_us is not None or row.id in recorded.busy:
                continue
            if is_newer(accepted, row.generation) and is_believed(accepted, row.generation):
                update_server(tx, get_server(tx, row.id), now_us=now_us, generation=accepted)
                findings.note(tx, reconciler, BEHIND, CAUGHT_UP, now_us=now_us, host=host, subject=row.id)
                raised = True
    return raised
