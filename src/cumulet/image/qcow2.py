"""What a qcow2 header may say before any tool opens the file: QEMU's `docs/interop/qcow2.rst`, with everything refused
that names another file, is encrypted, is unknown to us, or points outside the file or into the header itself.
"""

from __future__ import annotations

import struct

import msgspec

MAGIC = b"QFI\xfb"
SHORTEST_HEADER = 72
LARGEST_CLUSTER = 1 << 21
L1_TABLE_LIMIT = 32 << 20
REFCOUNT_TABLE_LIMIT = 8 << 20

INCOMPATIBLE_CORRUPT = 1 << 1
INCOMPATIBLE_DATA_FILE = 1 << 2
# Dirty and compression-type say nothing about other files; extended L2 entries (bit 4) are refused as upstream does.
INCOMPATIBLE_ALLOWED = (1 << 0) | (1 << 3)
AUTOCLEAR_RAW_EXTERNAL = 1 << 1

EXTENSION_END = 0
EXTENSION_BACKING_FORMAT = 0xE2792ACA
EXTENSION_FEATURE_NAMES = 0x6803F857
EXTENSION_BITMAPS = 0x23852875
EXTENSION_DATA_FILE = 0x44415441
EXTENSION_ENCRYPTION = 0x0537BE77

_OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00


class Refused(Exception):
    """The content may not be stored. The text is shown to the uploader and quotes nothing of the content."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The fields later checks need. Offsets and sizes in bytes."""

    version: int
    cluster_size: int
    virtual_size: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_bytes: int

    def tables(self) -> tuple[tuple[int, int], ...]:
        """(offset, length) of the tables the header points to."""
        return ((self.l1_offset, self.l1_entries * 8), (self.refcount_offset, self.refcount_bytes))


def bytes_needed(start: bytes | bytearray) -> int:
    """How much of the file's start `read_header` wants: its first cluster (bounded), known from the first 24 bytes."""
    if len(start) < 24:
        return 24
    (cluster_bits,) = struct.unpack_from(">I", start, 20)
    return 1 << cluster_bits if 9 <= cluster_bits <= 21 else SHORTEST_HEADER


def read_header(start: bytes, *, virtual_size_limit: int) -> Header:
    """Check the header in `start`, the first cluster of the file (shorter if the file is). Raises `Refused`."""
    if len(start) < SHORTEST_HEADER:
        raise Refused("The qcow2 header is cut short.")
    magic, version, backing_offset, backing_length, cluster_bits = struct.unpack_from(">4sIQII", start)
    virtual_size, encryption, l1_entries, l1_offset = struct.unpack_from(">QIIQ", start, 24)
    refcount_offset, refcount_clusters, snapshots, snapshots_offset = struct.unpack_from(">QIIQ", start, 48)
    if magic != MAGIC:
        raise Refused("The content is not qcow2.")
    if version not in (2, 3):
        raise Refused("Only qcow2 versions 2 and 3 are accepted.")
    if backing_offset or backing_length:
        raise Refused("The qcow2 image has a backing file.")
    if not 9 <= cluster_bits <= 21:
        raise Refused("The qcow2 image has an invalid cluster size.")
    if encryption:
        raise Refused("The qcow2 image is encrypted.")
    if snapshots or snapshots_offset:
        raise Refused("The qcow2 image holds internal snapshots.")
    if not 0 < virtual_size <= virtual_size_limit:
        raise Refused(f"The virtual size of the image is zero or larger than {virtual_size_limit} bytes.")
    cluster_size = 1 << cluster_bits
    header = Header(
        version=version,
        cluster_size=cluster_size,
        virtual_size=virtual_size,
        l1_entries=l1_entries,
        l1_offset=l1_offset,
        refcount_offset=refcount_offset,
        refcount_bytes=refcount_clusters * cluster_size,
    )
    _check_tables(header)
    _check_extensions(start, _header_length(start, header), cluster_size)
    return header


def _check_tables(header: Header) -> None:
    l1_bytes = header.l1_entries * 8
    covered = header.l1_entries * (header.cluster_size // 8) * header.cluster_size
    if l1_bytes > L1_TABLE_LIMIT or covered < header.virtual_size:
        raise Refused("The qcow2 image has an L1 table of an impossible size.")
    if not 0 < header.refcount_bytes <= REFCOUNT_TABLE_LIMIT:
        raise Refused("The qcow2 image has a refcount table of an impossible size.")
    spans = sorted((offset, offset + length) for offset, length in header.tables())
    if any(start % header.cluster_size or start < header.cluster_size for start, _ in spans):
        raise Refused("The qcow2 image has a table that overlaps its header.")
    if spans[0][1] > spans[1][0]:
        raise Refused("The qcow2 image has tables that overlap.")


def _header_length(start: bytes, header: Header) -> int:
    """Where the extensions begin; checks the feature bits of version 3 on the way."""
    if header.version == 2:
        return SHORTEST_HEADER
    if len(start) < 104:
        raise Refused("The qcow2 header is cut short.")
    incompatible, _compatible, autoclear, refcount_order, length = struct.unpack_from(">QQQII", start, 72)
    if incompatible & INCOMPATIBLE_DATA_FILE or autoclear & AUTOCLEAR_RAW_EXTERNAL:
        raise Refused("The qcow2 image has an external data file.")
    if incompatible & INCOMPATIBLE_CORRUPT:
        raise Refused("The qcow2 image is marked corrupt.")
    if incompatible & ~INCOMPATIBLE_ALLOWED:
        raise Refused("The qcow2 image has unknown features.")
    if refcount_order > 6:
        raise Refused("The qcow2 image has an invalid refcount width.")
    if length % 8 or not 104 <= length <= header.cluster_size:
        raise Refused("The qcow2 image has an invalid header length.")
    if length > len(start):
        raise Refused("The qcow2 header is cut short.")
    return int(length)


def _check_extensions(start: bytes, offset: int, cluster_size: int) -> None:
    known = {EXTENSION_FEATURE_NAMES, EXTENSION_BITMAPS}
    refused = {
        EXTENSION_BACKING_FORMAT: "The qcow2 image names the format of a backing file.",
        EXTENSION_DATA_FILE: "The qcow2 image has an external data file.",
        EXTENSION_ENCRYPTION: "The qcow2 image is encrypted.",
    }
    while offset < cluster_size:
        if offset + 8 > len(start):
            raise Refused("The qcow2 header extensions are cut short.")
        kind, length = struct.unpack_from(">II", start, offset)
        if kind == EXTENSION_END:
            return
        if kind not in known:
            raise Refused(refused.get(kind, "The qcow2 image has an unknown header extension."))
        offset += 8 + (length + 7) // 8 * 8
    if offset > cluster_size:
        raise Refused("The qcow2 image has a header extension that is longer than its place.")


def check_l1_table(header: Header, table: bytes, file_size: int) -> None:
    """Check every entry of the L1 table: an L2 table, one cluster, lies in the file, aligned, and not in the header."""
    cluster_size = header.cluster_size
    for (entry,) in struct.iter_unpack(">Q", table):
        offset = entry & _OFFSET_MASK
        if offset and (offset % cluster_size or not cluster_size <= offset <= file_size - cluster_size):
            raise Refused("The qcow2 image points outside its own data.")
