"""An upload is written in aligned blocks past the system's cache, whatever the pieces it comes in and its length."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import mmap
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cumulet.image import files
from cumulet.image.files import ALIGNED_BYTES, BLOCK_BYTES, Upload
from cumulet.image.inspection import Inspection
from cumulet.image.uploads import receive_data

from .conftest import World

CONTENT = bytes(range(256)) * (2 * BLOCK_BYTES // 256) + b"the odd end"


@pytest.mark.parametrize("size", [1, ALIGNED_BYTES, BLOCK_BYTES, BLOCK_BYTES + 1, len(CONTENT)])
def test_what_comes_in_odd_pieces_is_stored_as_it_was(world: World, size: int) -> None:
    content = CONTENT[:size]
    image = world.create()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 65_521):
            yield content[start : start + 65_521]

    async def allowed() -> None:
        """Whoever sends may."""

    asyncio.run(receive_data(world.cloud, image["id"], pieces(), None, allowed))
    assert (world.store / image["id"]).read_bytes() == content
    assert world.show(image["id"])["os_hash_value"] == hashlib.sha512(content).hexdigest()


@pytest.fixture
def _threads() -> Iterator[None]:
    with files.threads:
        yield


def begun(folder: Path) -> Upload:
    return Upload(folder, "upload", Inspection("raw", virtual_size_limit=1 << 30))


def block() -> memoryview:
    memory = mmap.mmap(-1, BLOCK_BYTES)
    memory.write(CONTENT[:BLOCK_BYTES])
    return memoryview(memory)


def is_direct(upload: Upload) -> bool:
    return bool(fcntl.fcntl(upload._file, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.mark.usefixtures("_threads")
def test_whole_blocks_go_past_the_cache_and_the_end_does_not(tmp_path: Path) -> None:
    upload = begun(tmp_path)
    if not is_direct(upload):
        pytest.skip("this file system has no O_DIRECT")
    upload.write(block())
    assert is_direct(upload)
    upload.write(b"the odd end")
    assert not is_direct(upload)
    written = upload.place("image")
    assert written.size == BLOCK_BYTES + 11
    assert (tmp_path / "image").read_bytes() == CONTENT[:BLOCK_BYTES] + b"the odd end"


@pytest.mark.usefixtures("_threads")
def test_where_the_file_system_refuses_blocks_they_go_through_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begun(tmp_path)
    upload._direct = True
    write, refused = files._write_some, []

    def refusing(file: object, view: memoryview) -> int:
        if upload._direct:
            refused.append(len(view))
            raise OSError(errno.EINVAL, "not aligned as I like it")
        return write(file, view)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "_write_some", refusing)
    upload.write(block())
    upload.write(block())
    upload.place("image")
    assert refused == [BLOCK_BYTES]
    assert (tmp_path / "image").read_bytes() == 2 * CONTENT[:BLOCK_BYTES]
