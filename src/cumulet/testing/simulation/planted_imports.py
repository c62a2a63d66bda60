"""Mistakes to plant in imports of images."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest import mock

import sqlalchemy as sa

from cumulet.conductor.saga import Context, Failure, Step
from cumulet.db.engine import Tx
from cumulet.image import files, importing, store, tasks
from cumulet.image.importing import IMAGE_IMPORT, Importing
from cumulet.testing.simulation.planted_places import with_saga


def removing_what_was_staged_too_early() -> AbstractContextManager[object]:
    """The data is in the store, so what was staged can go: before it is recorded that the data is there."""

    async def receive(context: Context, state: Importing) -> Importing:
        received = await importing.receive(context, state)
        files.remove_staged(files.image_folder(context.settings.state_dir), state.image_id)
        return received

    steps = tuple(Step(receive, s.undo) if s.name == "receive" else s for s in IMAGE_IMPORT.steps)
    return with_saga(IMAGE_IMPORT, steps=steps)


def leaving_an_image_importing() -> AbstractContextManager[object]:
    """The task says that the import has failed, and so it is over."""

    def unwound(tx: Tx, context: Context, state: Importing, failure: Failure) -> None:
        tasks.change(tx, state.task_id, "failure", context.clock.now_us(), message=failure.public)

    return with_saga(IMAGE_IMPORT, unwound=unwound)


def starting_over_what_others_import() -> AbstractContextManager[object]:
    """A process that starts takes all data that comes for what dead ones have left: imports of others, too."""
    real = store.abandon_uploads

    def abandon(tx: Tx, now_us: int) -> list[sa.Row[str, str, int | None, str | None]]:
        return [image for image in real(tx, now_us) if image.status != "importing"]

    return mock.patch.object(store, "abandon_uploads", abandon)


def starting_over_what_was_staged() -> AbstractContextManager[object]:
    """A process that starts takes what was staged, too, for what dead ones have left: nobody writes to it any more."""
    real = store.abandon_uploads

    def abandon(tx: Tx, now_us: int) -> list[sa.Row[str, str, int | None, str | None]]:
        tx.execute(sa.update(store.images).where(store.images.c.status == "uploading").values(status="queued"))
        return real(tx, now_us)

    return mock.patch.object(store, "abandon_uploads", abandon)


PLANTS = (
    leaving_an_image_importing,
    removing_what_was_staged_too_early,
    starting_over_what_others_import,
    starting_over_what_was_staged,
)
