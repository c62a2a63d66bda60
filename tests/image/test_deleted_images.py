"""Whoever makes and deletes images without end makes nothing slower that is about living ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from cumulet.db.engine import Database, Tx
from cumulet.image import store
from cumulet.image.store import images
from cumulet.web.operation import Caller

from .conftest import World

MANY = 500
ANOTHER = Caller(user_id="u", user_name="u", user_domain_id="d", roles=frozenset(("member",)), project_id="p2")

READS: dict[str, Callable[[Tx], object]] = {
    "the quota of number": lambda tx: store.count_of(tx, "p1"),
    "the quota of bytes": lambda tx: store.stored_bytes(tx, "p1"),
    "what others see": lambda tx: store.load(tx, store.visible_to(ANOTHER)),
    "what has a name": lambda tx: store.load(tx, images.c.name == "image"),
    "what has data": store.data_of_all,
}


def _steps(database: Database, read: Callable[[Tx], object]) -> int:
    """How many of its instructions SQLite runs for this."""
    counted = [0]

    def count() -> None:
        counted[0] += 1

    def measured(tx: Tx) -> None:
        driver = tx.connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(count, 1)
        try:
            read(tx)
        finally:
            driver.set_progress_handler(None, 0)

    database.read(measured)
    return counted[0]


@pytest.mark.parametrize("what", READS)
def test_deleted_images_are_not_gone_through(world: World, database: Database, what: str) -> None:
    world.create(visibility="community")
    before = _steps(database, READS[what])
    image = world.create(visibility="community", tags=["tag"])
    assert world.ask("member", "DELETE", f"/images/{image['id']}").status_code == 204
    columns = [column for column in images.c if column.name != "id"]
    number = sa.select(sa.literal(1).label("n")).cte("numbers", recursive=True)
    number = number.union_all(sa.select(number.c.n + 1).where(number.c.n < MANY))
    more = sa.select(sa.literal("gone-").concat(number.c.n), *columns).select_from(images.join(number, sa.true()))
    copies = sa.insert(images).from_select(["id", *columns], more.where(images.c.id == image["id"]))
    database.write(lambda tx: tx.execute(copies))
    assert database.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(images))) == MANY + 2
    assert before > 0
    assert _steps(database, READS[what]) < before + 100
