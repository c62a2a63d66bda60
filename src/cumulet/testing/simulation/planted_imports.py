"""Mistakes to plant in imports of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from unittest import mock

from cumulet.conductor.saga import Context, Failure, Step
from cumulet.db.engine import Tx
from cumulet.image import files, importing, left_data, store, tasks
from cumulet.image.importing import IMAGE_IMPORT, Importing
from cumulet.image.left_data import LeftData
from cumulet.image.store import DataOf
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


def ending_an_upload_at_the_first_look() -> AbstractContextManager[object]:
    """It may have its record, and its file a moment later."""

    async def round(self: LeftData) -> None:
        coming = left_data._coming(await self._db.read_async(store.data_of_all))
        self._silent = {one: files.last_change(self._folder, one.upload_id) for one in coming}
        await real(self)

    real = LeftData.round
    return mock.patch.object(LeftData, "round", round)


def removing_what_was_staged() -> AbstractContextManager[object]:
    """Nobody writes to it any more, so it is taken for what a dead process has left."""

    def no_stage(real: Callable[[Iterable[DataOf]], set[str]]) -> Callable[[Iterable[DataOf]], set[str]]:
        return lambda images: {path for path in real(images) if not path.startswith(files.STAGE_FOLDER)}

    return mock.patch.multiple(
        left_data, _files_of=no_stage(left_data._files_of), _places_of=no_stage(left_data._places_of)
    )


def leaving_files_of_deleted_images() -> AbstractContextManager[object]:
    """Those of an image that was deleted while its data came, or whose process died before it removed them."""
    return mock.patch.object(left_data, "_remove")


PLANTS = (
    ending_an_upload_at_the_first_look,
    leaving_an_image_importing,
    leaving_files_of_deleted_images,
    removing_what_was_staged,
    removing_what_was_staged_too_early,
)
