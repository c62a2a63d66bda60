"""The edges of a qcow2 file: tables and headers one byte short, moved by one, doubled; and just within bounds."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.image import qcow2
from cumulet.image.inspection import OpaqueContent
from cumulet.image.qcow2 import Refused
from tests.image.whole_file import inspect_file

from .attack_images import GOOD, MIB, Qcow2

CLUSTER = 1 << GOOD.cluster_bits
L1, REFCOUNTS = 3 * CLUSTER, CLUSTER
COVERED = CLUSTER // 8 * CLUSTER
"""What one entry of GOOD's L1 table covers, in bytes."""
LIMIT = 1 << 40


def accepted(image: Qcow2 | bytes, *, limit: int = LIMIT) -> bool:
    data = image if isinstance(image, bytes) else image.build()
    try:
        inspect_file(io.BytesIO(data), "qcow2", virtual_size_limit=limit)
    except Refused:
        return False
    return True


def laid(image: Qcow2) -> bytes:
    """The image of four clusters with its L1 table where it says, and zeroes everywhere else behind the header."""
    data = bytearray(image.build()[:CLUSTER].ljust(4 * CLUSTER, b"\0"))
    assert image.l1_offset is not None
    struct.pack_into(">Q", data, image.l1_offset, image.l1_entry)
    return bytes(data)


def header_accepted(image: Qcow2, *, limit: int = LIMIT) -> bool:
    """For tables so large that no file is made with them."""
    data = replace(image, l1_entries=1).build()[:CLUSTER]
    entries = image.l1_entries
    try:
        patched = data if entries is None else data[:36] + struct.pack(">I", entries) + data[40:]
        qcow2.read_header(patched, virtual_size_limit=limit)
    except Refused:
        return False
    return True


# (just inside, just outside)
TABLES: dict[str, tuple[Qcow2 | bytes, Qcow2 | bytes]] = {
    "L1 moved by one byte": (GOOD, replace(GOOD, l1_offset=L1 + 1)),
    "L1 moved back by one byte": (GOOD, replace(GOOD, l1_offset=L1 - 1)),
    "refcounts moved by one byte": (GOOD, replace(GOOD, refcount_offset=REFCOUNTS + 1)),
    "refcounts moved back by one byte": (GOOD, replace(GOOD, refcount_offset=REFCOUNTS - 1)),
    "L1 in the second cluster, in the first": (
        replace(GOOD, l1_offset=CLUSTER, refcount_offset=2 * CLUSTER),
        replace(GOOD, l1_offset=0, refcount_offset=2 * CLUSTER),
    ),
    "refcounts in the second cluster, in the first": (GOOD, replace(GOOD, refcount_offset=0)),
    "L1 behind the refcounts, in them": (
        laid(replace(GOOD, l1_offset=2 * CLUSTER)),
        laid(replace(GOOD, l1_offset=CLUSTER)),
    ),
    "refcounts doubled up to L1, into it": (
        replace(GOOD, refcount_clusters=2),
        replace(GOOD, refcount_clusters=3),
    ),
    "L1 doubled up to the refcounts, into them": (
        replace(GOOD, l1_offset=CLUSTER, refcount_offset=2 * CLUSTER, l1_entries=CLUSTER // 8),
        replace(GOOD, l1_offset=CLUSTER, refcount_offset=2 * CLUSTER, l1_entries=CLUSTER // 8 + 1),
    ),
    "L1 doubled up to the end, beyond it": (
        replace(GOOD, l1_entries=CLUSTER // 8),
        replace(GOOD, l1_entries=CLUSTER // 8 + 1).build()[: L1 + CLUSTER],
    ),
    "a disk that L1 covers, and a byte more": (
        replace(GOOD, l1_entries=1, virtual_size=COVERED),
        replace(GOOD, l1_entries=1, virtual_size=COVERED + 1),
    ),
    "L1 of one entry, of none": (replace(GOOD, l1_entries=1), replace(GOOD, l1_entries=0)),
    "refcounts of one cluster, of none": (GOOD, replace(GOOD, refcount_clusters=0)),
    "L2 in the second cluster, in the first": (
        replace(GOOD, l1_entry=CLUSTER),
        replace(GOOD, l1_entry=CLUSTER - 512),
    ),
    "L2 moved by half a kilobyte": (replace(GOOD, l1_entry=CLUSTER), replace(GOOD, l1_entry=CLUSTER + 512)),
    "L2 in the last cluster, behind it": (
        replace(GOOD, l1_entry=3 * CLUSTER),
        replace(GOOD, l1_entry=4 * CLUSTER),
    ),
    "the shortest header, one shorter": (replace(GOOD, header_length=104), replace(GOOD, header_length=96)),
    "a header of whole words, a byte longer": (replace(GOOD, header_length=112), replace(GOOD, header_length=113)),
    "a header of one cluster, longer": (
        replace(GOOD, header_length=CLUSTER),
        replace(GOOD, header_length=CLUSTER + 8),
    ),
    "an extension up to the end of the cluster, beyond it": (
        replace(GOOD, extensions=((qcow2.EXTENSION_BITMAPS, b"\0" * (CLUSTER - 104 - 8 - 8)),)),
        replace(GOOD, extensions=((qcow2.EXTENSION_BITMAPS, b"\0" * (CLUSTER - 104 - 8 + 1)),)),
    ),
    "the widest refcounts, wider": (GOOD, GOOD.build()[:96] + struct.pack(">I", 7) + GOOD.build()[100:]),
}
"""Name -> the last that is accepted and the first that is refused."""


@pytest.mark.parametrize("name", TABLES)
def test_the_last_step_inside_is_accepted_and_the_first_outside_refused(name: str) -> None:
    inside, outside = TABLES[name]
    assert (accepted(inside), accepted(outside)) == (True, False)


CUTS: dict[str, tuple[Qcow2 | bytes, int]] = {
    "L1": (GOOD, L1 + 8),
    "L1 of a whole cluster": (replace(GOOD, l1_entries=CLUSTER // 8), L1 + CLUSTER),
    "refcounts": (replace(GOOD, l1_offset=CLUSTER, refcount_offset=3 * CLUSTER), 4 * CLUSTER),
    "L2": (laid(replace(GOOD, l1_offset=2 * CLUSTER, l1_entry=3 * CLUSTER)), 4 * CLUSTER),
    "version 2, small clusters": (replace(GOOD, version=2, cluster_bits=9, virtual_size=512), 3 * 512 + 8),
}
"""What ends the file -> the image, and where it ends."""


@pytest.mark.parametrize("name", CUTS)
def test_a_file_that_ends_one_byte_before_its_last_table_is_refused(name: str) -> None:
    image, end = CUTS[name]
    data = (image if isinstance(image, bytes) else image.build())[:end]
    assert len(data) == end
    assert (accepted(data), accepted(data[:-1])) == (True, False)


@pytest.mark.parametrize(("version", "shortest"), [(2, 72), (3, 104)])
def test_a_header_one_byte_short_is_refused(version: int, shortest: int) -> None:
    start = replace(GOOD, version=version).build()[: shortest + 8]
    assert qcow2.read_header(start, virtual_size_limit=LIMIT).version == version
    for cut in (shortest + 7, shortest, shortest - 1):
        with pytest.raises(Refused, match="cut short"):
            qcow2.read_header(start[:cut], virtual_size_limit=LIMIT)


def test_a_header_is_not_longer_than_what_there_is() -> None:
    start = replace(GOOD, header_length=4096).build()
    with pytest.raises(Refused, match="cut short"):
        qcow2.read_header(start[:4088], virtual_size_limit=LIMIT)


def test_content_that_is_not_inspected_has_the_same_limit() -> None:
    content = OpaqueContent(size_limit=8)
    content.feed(b"12345678")
    with pytest.raises(Refused, match="larger than this cloud takes"):
        content.feed(b"9")


def test_the_limits_are_the_last_sizes_that_are_accepted() -> None:
    l1, refcounts = qcow2.L1_TABLE_LIMIT // 8, qcow2.REFCOUNT_TABLE_LIMIT // CLUSTER
    assert header_accepted(replace(GOOD, l1_entries=l1))
    assert not header_accepted(replace(GOOD, l1_entries=l1 + 1))
    far = replace(GOOD, l1_offset=qcow2.REFCOUNT_TABLE_LIMIT + CLUSTER)
    assert header_accepted(replace(far, refcount_clusters=refcounts))
    far = replace(far, l1_offset=2 * qcow2.REFCOUNT_TABLE_LIMIT)
    assert not header_accepted(replace(far, refcount_clusters=refcounts + 1))


@pytest.mark.parametrize("size", [1, 512, MIB, 8 * MIB])
def test_the_largest_disk_is_the_limit_and_not_a_byte_more(size: int) -> None:
    assert accepted(replace(GOOD, virtual_size=size), limit=size)
    assert not accepted(replace(GOOD, virtual_size=size + 1), limit=size)


STEPS = st.sampled_from([-513, -512, -8, -1, 0, 0, 0, 0, 1, 8, 512, 513])


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([9, 12, 16]),
    st.integers(0, 5),
    STEPS,
    st.integers(0, 5),
    STEPS,
    st.integers(0, 3),
    st.integers(0, 140),
    st.integers(1, 3 * MIB),
    STEPS,
)
def test_it_is_accepted_exactly_if_its_tables_lie_side_by_side_in_the_file(
    bits: int,
    l1: int,
    l1_step: int,
    refcounts: int,
    refcount_step: int,
    clusters: int,
    entries: int,
    size: int,
    cut: int,
) -> None:
    cluster = 1 << bits
    l1_at, refcounts_at = max(0, l1 * cluster + l1_step), max(0, refcounts * cluster + refcount_step)
    image = Qcow2(
        cluster_bits=bits,
        virtual_size=size,
        l1_offset=l1_at,
        refcount_offset=refcounts_at,
        refcount_clusters=clusters,
        l1_entries=entries,
    )
    end = max(l1_at + 8 * entries, refcounts_at + clusters * cluster, cluster)
    data = image.build().ljust(end, b"\0")[: max(cluster, end + cut)]
    # The file is laid out for tables in their usual places; where they are told to be elsewhere, zeroes are read there.
    header = data[:cluster] + b"\0" * (len(data) - cluster)
    bytes_of_l1 = set(range(l1_at, l1_at + 8 * entries))
    bytes_of_refcounts = set(range(refcounts_at, refcounts_at + clusters * cluster))
    first_cluster = set(range(cluster))
    well_laid = (
        l1_at % cluster == refcounts_at % cluster == 0
        and not bytes_of_l1 & bytes_of_refcounts
        and not (bytes_of_l1 | bytes_of_refcounts) & first_cluster
        and bytes_of_refcounts
        and max(bytes_of_l1 | bytes_of_refcounts) < len(header)
        and entries * (cluster // 8) * cluster >= size
    )
    assert accepted(header) == bool(well_laid)
