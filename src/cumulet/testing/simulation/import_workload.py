"""Images are staged and imported in a run, through the real API and with real files; some are deleted on the way."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from random import Random
from typing import TYPE_CHECKING

from cumulet.db.engine import Tx
from cumulet.image import files, store
from cumulet.testing.simulation.foundation import PROJECTS, Answered

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud

Ask = Callable[[str, str, str, object], Awaitable[Answered]]
NO_QCOW2 = b"QFI\xfb" + b"\xff" * 508
"""It begins as one, and no driver may open it."""
NO_MBR = b"\0\0"
"""The last bytes of data that begins with no boot sector: some random one would be refused."""
IMPORT = {"method": {"name": "glance-direct"}}


class Imports:
    """`staged`: of each image whose data was acknowledged, that data. `asked`, `refused`: images whose import was
    acknowledged, or refused. Of others nobody knows."""

    def __init__(self, cloud: SimulatedCloud, ask: Ask) -> None:
        self._cloud = cloud
        self._ask = ask
        self._folder = files.image_folder(cloud.settings.state_dir)
        self.staged: dict[str, bytes] = {}
        self.asked: set[str] = set()
        self.refused: set[str] = set()
        self.deleted: set[str] = set()
        self._ended: set[str] = set()
        """Images whose data was refused, because the cloud had ended the upload."""
        if cloud.importing:
            shutil.rmtree(self._folder, ignore_errors=True)

    def request(self, random: Random) -> tuple[str, Coroutine[object, None, None]]:
        """An image, its data, and the import; in one of four cases it is deleted after a while."""
        project, good = random.choice(PROJECTS), random.random() < 0.8
        content = random.randbytes(512 - len(NO_MBR)) + NO_MBR if good else NO_QCOW2
        deleted_after = random.uniform(0.0, 0.3) if random.random() < 0.25 else None

        async def ask() -> None:
            new = {"disk_format": "raw" if good else "qcow2", "container_format": "bare", "visibility": "private"}
            status, answer = await self._ask(project, "POST", "/image/v2/images", {"name": "imported", **new})
            if status != 201:
                return
            image_id: str = answer["id"]
            status, _ = await self._ask(project, "PUT", f"/image/v2/images/{image_id}/stage", content)
            if status == 204:
                self.staged[image_id] = content
            elif status == 410:
                self._ended.add(image_id)
            deletion = asyncio.ensure_future(self._delete(project, image_id, deleted_after))
            status, _ = await self._ask(project, "POST", f"/image/v2/images/{image_id}/import", IMPORT)
            if status == 202:
                self.asked.add(image_id)
            elif 400 <= status < 500:
                self.refused.add(image_id)
            await deletion

        return f"{project} imports {'an image' if good else 'what is no image'}", ask()

    async def _delete(self, project: str, image_id: str, after: float | None) -> None:
        if after is None:
            return
        await asyncio.sleep(after)
        self.deleted.add(image_id)
        await self._ask(project, "DELETE", f"/image/v2/images/{image_id}", None)

    def needless(self) -> Iterator[str]:
        """In a quiet run: no process has died, so no upload is taken for one of a dead process."""
        for image_id in sorted(self._ended - self.deleted):
            yield f"the upload of image {image_id[:8]} was ended in a quiet run"

    def wrong(self, tx: Tx) -> Iterator[str]:
        """At rest: an import that was acknowledged has made its image active, with the data that was staged for it, or
        queued if that is no image; without an import what was staged is still there; a file is an image's."""
        if not self._cloud.importing:
            return
        files_left = set(files.stored(self._folder))
        for image_id in self.staged:
            image = store.find(tx, image_id)
            if image is None:
                if image_id not in self.deleted:
                    yield f"image {image_id[:8]} is gone, and nobody deleted it"
            else:
                yield from self._wrong(image, files_left)
        known = [store.find(tx, path.rpartition("/")[2]) for path in sorted(files_left)]
        if None in known:
            gc.collect()  # What a process of the run had open when it was killed is closed, and no longer locked.
            yield f"files of no image: {sorted(files_left)}"

    def _wrong(self, image: store.Image, files_left: set[str]) -> Iterator[str]:
        name, content = f"image {image.id[:8]}", self.staged[image.id]
        if image.status == "active":
            path = self._folder / image.id
            if content == NO_QCOW2 or not path.exists() or path.read_bytes() != content:
                yield f"{name} is active without the data that was staged for it"
            elif image.os_hash_value != hashlib.sha512(content).hexdigest():
                yield f"{name} has another hash than its data"
            elif image.import_task_id is not None or f"{files.STAGE_FOLDER}/{image.id}" in files_left:
                yield f"{name} is active, and its import goes on"
        elif image.status == "uploading":
            if image.id in self.asked:
                yield f"{name} was to be imported, and waits"
            elif f"{files.STAGE_FOLDER}/{image.id}" not in files_left:
                yield f"{name} has lost what was staged for it"
        elif image.status != "queued":
            yield f"{name} is {image.status}"
        elif content != NO_QCOW2 or image.id in self.refused:
            yield f"{name} has lost what was staged for it, and waits for data"
