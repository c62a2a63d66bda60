"""Uploads are what they claim to be or are refused: every honest and hostile file, in every cutting into chunks."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.image.inspection import Inspection, check_tables
from cumulet.image.qcow2 import Refused
from tests.image.whole_file import inspect_file

from . import attack_images

LIMIT = 1 << 40
HONEST = attack_images.honest()
HOSTILE = attack_images.hostile()


def inspect(disk_format: str, chunks: list[bytes]) -> int:
    inspection = Inspection(disk_format, virtual_size_limit=LIMIT)
    for chunk in chunks:
        inspection.feed(chunk)
    size = inspection.finish()
    check_tables(inspection, io.BytesIO(b"".join(chunks)))
    return size


@pytest.mark.parametrize("cutting", ["whole", "64 KiB", "odd", "slow start"])
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_image_is_accepted_with_its_virtual_size(name: str, cutting: str) -> None:
    disk_format, data = HONEST[name]
    size = inspect(disk_format, attack_images.chunkings(data)[cutting]())
    if disk_format == "raw":
        assert size == len(data)
    else:
        assert size == int.from_bytes(data[24:32], "big")


@pytest.mark.parametrize("cutting", ["whole", "64 KiB", "odd", "slow start"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_refused(name: str, cutting: str) -> None:
    disk_format, data = HOSTILE[name]
    with pytest.raises(Refused):
        inspect(disk_format, attack_images.chunkings(data)[cutting]())


def test_a_refusal_comes_before_the_whole_upload_is_read() -> None:
    inspection = Inspection("raw", virtual_size_limit=LIMIT)
    with pytest.raises(Refused):
        inspection.feed(attack_images.GOOD.build()[:65536])


def test_raw_content_over_the_limit_is_refused_while_it_streams() -> None:
    inspection = Inspection("raw", virtual_size_limit=1000)
    inspection.feed(b"\0" * 1000)
    with pytest.raises(Refused, match="larger than 1000 bytes"):
        inspection.feed(b"\0")


@pytest.mark.parametrize("disk_format", ["vmdk", "iso", "ami", "vhdx", "", "RAW"])
def test_other_formats_are_not_accepted(disk_format: str) -> None:
    with pytest.raises(Refused):
        Inspection(disk_format, virtual_size_limit=LIMIT)


def test_a_refusal_quotes_nothing_of_the_content() -> None:
    for disk_format, data in HOSTILE.values():
        with pytest.raises(Refused) as refusal:
            inspect_file(io.BytesIO(data), disk_format, virtual_size_limit=LIMIT)
        assert "shadow" not in str(refusal.value)
        assert "json:" not in str(refusal.value)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(HONEST)), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6))
def test_damaged_headers_are_accepted_or_refused_and_nothing_else(name: str, changes: list[tuple[int, int]]) -> None:
    disk_format, data = HONEST[name]
    damaged = bytearray(data)
    for offset, value in changes:
        if offset < len(damaged):
            damaged[offset] = value
    try:
        size = inspect_file(io.BytesIO(bytes(damaged)), disk_format, virtual_size_limit=LIMIT)
    except Refused:
        return
    assert 0 < size <= LIMIT
    if disk_format == "qcow2":
        assert damaged[8:20][:8] == b"\0" * 8, "accepted with a backing file"
