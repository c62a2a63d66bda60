"""Uploading an image, compared with its unavoidable work: hashing the data and writing it to the disk."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.connection import Connection, UnexpectedAnswer
from benchmarks.report import Measure, Result

SIZE = 512 << 20
BLOCK = 4 << 20
RUNS = 3

UPLOAD = Measure(
    name="image_upload_against_hash_and_disk",
    title="uploading an image, against the slower of its hashes and the disk",
    unit="of it",
    goal=0.8,
    better="higher",
)
SPEED = Measure(name="image_upload", title="uploading an image", unit="MiB/s", goal=None, better="higher")


def measure(admin: Connection, folder: Path) -> Iterator[Result]:
    """The best of some runs each: the machine is shared."""
    block = os.urandom(BLOCK)
    upload = min(_upload(admin, block) for _ in range(RUNS))
    needed = max(min(_hashes(block) for _ in range(RUNS)), min(_disk(folder / "written", block) for _ in range(RUNS)))
    yield Result(UPLOAD, needed / upload)
    yield Result(SPEED, (SIZE >> 20) / upload)


def _hashes(block: bytes) -> float:
    """MD5 and SHA-512 of the data, one after the other, in seconds."""
    begun = time.perf_counter()
    for hasher in (hashlib.md5(usedforsecurity=False), hashlib.sha512()):
        for _ in range(SIZE // BLOCK):
            hasher.update(block)
        hasher.digest()
    return time.perf_counter() - begun


def _disk(path: Path, block: bytes) -> float:
    """Written and durable, in seconds."""
    begun = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(SIZE // BLOCK):
            file.write(block)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begun
    path.unlink()
    return seconds


def _upload(admin: Connection, block: bytes) -> float:
    """From the first byte of the request to its answer, in seconds; the image is deleted afterwards."""
    image = {"name": "bench", "disk_format": "raw", "container_format": "bare"}
    image_id = admin.ask("POST", "/image/v2/images", image)["id"]
    path = f"/image/v2/images/{image_id}"
    begun = time.perf_counter()
    status = admin.send_octets("PUT", f"{path}/file", block, SIZE // BLOCK)
    seconds = time.perf_counter() - begun
    if status != 204:
        raise UnexpectedAnswer(f"uploading an image: {status}")
    admin.ask("DELETE", path)
    return seconds
