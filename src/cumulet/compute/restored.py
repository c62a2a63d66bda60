"""Guests that came after the records: those are of a backup, and hosts have gone on.

A host never knows a newer generation of a server than the records do, because that is committed before anybody is told.
Where one does, the records are older than its guest. It may be the only copy, so it is not removed as one left over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cumulet.compute.drift import Correction, Finding
from cumulet.conductor import findings
from cumulet.db.engine import Row, Tx
from cumulet.host.driver import GuestReport

FINDING = "guest-newer-than-records"
LEFT_ALONE = "left alone: the records are older than it (docs/operating.md, Backup and restore)"


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
    left = []
    for correction in corrections:
        row = rows.get(correction.server_id)
        if row is None:
            newer = keep_unknown and correction.finding is Finding.GUEST_WITHOUT_RECORD
        else:
            elsewhere = correction.finding is Finding.GUEST_OF_ANOTHER_HOST
            newer = elsewhere and is_newer(generations.get(correction.server_id, 0), row.generation)
        if newer:
            subject = correction.server_id
            findings.note(tx, reconciler, FINDING, LEFT_ALONE, now_us=now_us, host=host, subject=subject)
        else:
            left.append(correction)
    return left


def is_newer(reported: int, recorded: int) -> bool:
    """By the generations of a server: the host's, and the records'."""
    return reported > recorded
