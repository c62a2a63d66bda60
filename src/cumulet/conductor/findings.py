"""What reconcilers found and did. The database keeps the newest findings, for `cumulet status`."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.db.engine import Database, Row, Tx, metadata

log = logging.getLogger(__name__)

KEPT = 200
MOST_OF_HOST = 50
"""Of one host, which may have made them up: so they push out no others."""
FAILED = "round-failed"
MOST_FAILED = 20
"""Hosts and servers of which it is told that rounds with them fail."""

findings = sa.Table(
    "findings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("reconciler", sa.String(32), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("subject", sa.String(36), nullable=False),
    sa.Column("finding", sa.String(64), nullable=False),
    sa.Column("done", sa.Text, nullable=False),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("first_at_us", sa.BigInteger, nullable=False),
    sa.Column("last_at_us", sa.BigInteger, nullable=False),
)

_SAME = sa.and_(
    *(
        findings.c[name] == sa.bindparam(f"of_{name}", type_=findings.c[name].type)
        for name in ("reconciler", "host", "subject", "finding", "done")
    )
)
_AGAIN = sa.update(findings).where(_SAME).values(times=findings.c.times + 1)
_INSERT = sa.insert(findings)
_NEWEST = sa.select(findings).order_by(findings.c.last_at_us.desc(), findings.c.id.desc()).limit(KEPT)
_NUMBERS = (
    sa.select(findings.c.id).order_by(findings.c.last_at_us.desc(), findings.c.id.desc()).offset(KEPT).limit(KEPT)
)
_NUMBERS_OF_HOST = (
    sa.select(findings.c.id)
    .where(findings.c.host == sa.bindparam("of_host"))
    .order_by(findings.c.last_at_us.desc(), findings.c.id.desc())
    .offset(MOST_OF_HOST)
    .limit(KEPT)
)
_FAILED = sa.select(sa.func.count()).where(
    findings.c.finding == FAILED,
    sa.or_(findings.c.host != sa.bindparam("of_host"), findings.c.subject != sa.bindparam("of_subject")),
)
_DROP = sa.delete(findings).where(findings.c.id == sa.bindparam("of_id"))


def note(tx: Tx, reconciler: str, finding: str, done: str, *, now_us: int, host: str = "", subject: str = "") -> None:
    """A finding that repeats is counted in its row; only the newest `KEPT` rows stay, of one host `MOST_OF_HOST`.

    `subject`: the id of what it was found about; for most findings, a server's.
    """
    what = {"reconciler": reconciler, "host": host, "subject": subject, "finding": finding, "done": done}
    if tx.changed(_AGAIN, {f"of_{name}": value for name, value in what.items()} | {"last_at_us": now_us}):
        return
    tx.run(_INSERT, {**what, "times": 1, "first_at_us": now_us, "last_at_us": now_us})
    too_many = [*tx.all(_NUMBERS, {}), *(tx.all(_NUMBERS_OF_HOST, {"of_host": host}) if host else ())]
    for row in too_many:
        tx.run(_DROP, {"of_id": row.id})


async def note_failure(
    db: Database, reconciler: str, error: BaseException, *, now_us: int, host: str = "", subject: str = ""
) -> None:
    """A round has failed, perhaps each time from now on: tell those who do not read the log.

    If rounds with all hosts fail, some of them are told of, and what else was found stays.
    """
    done = f"failed, will retry: {type(error).__name__}"

    def work(tx: Tx) -> None:
        others = tx.scalar(_FAILED, {"of_host": host, "of_subject": subject})
        if others < MOST_FAILED:
            note(tx, reconciler, FAILED, done, now_us=now_us, host=host, subject=subject)

    try:
        await db.write_async(work)
    except DBAPIError:
        log.warning("%s: the failure cannot be noted", reconciler, exc_info=True)


def newest(tx: Tx) -> list[Row]:
    return tx.all(_NEWEST)
