"""Is an upload what it claims to be? Decided while it streams, by our own header checks and by oslo.utils' inspectors.

Servers are made from raw and qcow2 images only, and only these are inspected. All else is stored as it comes: its
content is opaque, is handed out again, and is never opened here or booted. Raw content may be anything but another
image format; a boot sector (MBR, GPT) is what a raw disk begins with and is allowed where its partition table is sane.
Nothing is ever decompressed.
"""

from __future__ import annotations

import re
from typing import IO, cast

from cumulet.image import qcow2
from cumulet.image.qcow2 import Refused

BOOTABLE_DISK_FORMATS, BOOTABLE_CONTAINER = ("raw", "qcow2"), "bare"
OPAQUE_DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "vdi", "iso", "ploop")
OPAQUE_CONTAINERS = ("ami", "ari", "aki", "ovf", "ova", "docker", "compressed")


def is_bootable(disk_format: str | None, container_format: str | None) -> bool:
    """Whether a server can be made from such an image: whether its content was inspected."""
    return disk_format in BOOTABLE_DISK_FORMATS and container_format == BOOTABLE_CONTAINER


# Signatures of formats that QEMU or a later tool would open as something other than raw: (offset, bytes, name).
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, qcow2.MAGIC, "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0, b"cxsparse", "vhd"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"SKUL\xba\xbe", "luks"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0x8001, b"CD001", "iso"),
    (0x8801, b"CD001", "iso"),
    (0x9001, b"CD001", "iso"),
)
_START_BYTES = 0x9001 + 5
FIRST_PUSH_BYTES = 1 << 20
# Signatures that a file ends with: a fixed VHD and a DMG look raw to whoever reads only the start.
_TRAILERS: tuple[tuple[int, bytes, str], ...] = (
    (512, b"conectix", "vhd"),
    (511, b"conectix", "vhd"),
    (512, b"koly", "dmg"),
)
_TRAILER_BYTES = 512
# As QEMU probes for a text descriptor: comment and blank lines, then the version. Linear: no two alternatives overlap.
_VMDK_DESCRIPTOR = re.compile(rb"(?:#[^\n]*\n|[ \r]*\n)*+version=[123]\r?\n")


class _Pushed:
    """Turns pushed chunks into the file-like object oslo.utils' wrapper reads from."""

    def __init__(self) -> None:
        self.chunk: bytes | memoryview = b""

    def read(self, _size: int = -1) -> bytes | memoryview:
        chunk, self.chunk = self.chunk, b""
        return chunk


class Inspection:
    """Fed with an upload's chunks in order; `finish` gives the virtual size in bytes. Both raise `Refused`.

    Holds at most the first cluster (2 MiB), the first MiB, the last 512 bytes and what oslo.utils captures.
    """

    def __init__(self, disk_format: str, *, virtual_size_limit: int) -> None:
        if disk_format not in BOOTABLE_DISK_FORMATS:
            raise Refused(f"Images of disk_format {disk_format} are not inspected.")
        self._claims_qcow2 = disk_format == "qcow2"
        self._limit = virtual_size_limit
        self._start = bytearray()
        self._start_limit = qcow2.LARGEST_CLUSTER if self._claims_qcow2 else _START_BYTES
        self._end = b""
        self._size = 0
        self._judged = False
        self.qcow2: qcow2.Header | None = None
        # oslo.utils' verdict can depend on how the start was cut into chunks, so it gets the start in one.
        self._first: bytearray | None = bytearray()
        self._pushed = _Pushed()
        # Imported with the first upload: it takes as long as all of Compute.
        from oslo_utils.imageutils import format_inspector

        # The wrapper types its source as a whole IO; it only ever calls read().
        self._oslo = format_inspector.InspectWrapper(cast("IO[bytes]", self._pushed))

    def feed(self, chunk: bytes | memoryview) -> None:
        """Look at the next bytes of the upload. Refuses as early as it can."""
        if not chunk:
            return
        self._size += len(chunk)
        if not self._claims_qcow2 and self._size > self._limit:
            raise Refused(f"The image is larger than {self._limit} bytes.")
        if not self._judged:
            self._start += chunk[: self._start_limit - len(self._start)]
            needed = qcow2.bytes_needed(self._start) if self._claims_qcow2 else 0
            if len(self._start) >= max(_START_BYTES, needed):
                self._judge_start()
        self._end = (self._end + bytes(chunk[-_TRAILER_BYTES:]))[-_TRAILER_BYTES:]
        if self._first is None:
            self._push(chunk)
        else:
            self._first += chunk
            if len(self._first) >= FIRST_PUSH_BYTES:
                self._push_first()

    def _push_first(self) -> None:
        first, self._first = self._first, None
        if first:
            self._push(bytes(first))

    def _push(self, chunk: bytes | memoryview) -> None:
        self._pushed.chunk = chunk
        self._oslo.read(len(chunk))

    def finish(self) -> int:
        """The upload is complete: judge it whole. Returns the virtual size."""
        if self._size == 0 and not self._claims_qcow2:
            return 0  # An empty raw disk is valid.
        if not self._judged:
            self._judge_start()
        self._push_first()
        self._oslo.close()
        for from_end, signature, name in _TRAILERS:
            if self._end[-from_end:].startswith(signature) and self._size >= from_end:
                raise Refused(f"The content is a {name} image.")
        self._judge_by_oslo()
        if self.qcow2 is None:
            return self._size
        for offset, length in self.qcow2.tables():
            if offset + length > self._size:
                raise Refused("The qcow2 image is cut short: a table lies beyond its end.")
        return self.qcow2.virtual_size

    def _judge_start(self) -> None:
        self._judged = True
        start = bytes(self._start)
        self._start.clear()
        for offset, signature, name in _SIGNATURES:
            if start.startswith(signature, offset) and not (self._claims_qcow2 and name == "qcow2"):
                raise Refused(f"The content is a {name} image.")
        if _VMDK_DESCRIPTOR.match(start):
            raise Refused("The content is a vmdk image.")
        if self._claims_qcow2:
            self.qcow2 = qcow2.read_header(start, virtual_size_limit=self._limit)

    def _judge_by_oslo(self) -> None:
        from oslo_utils.imageutils import format_inspector

        try:
            found = self._oslo.format
            if found is None:
                raise Refused("The format of the content cannot be determined.")
            name = str(found)
            expected = {"qcow2"} if self._claims_qcow2 else {"raw", "gpt"}
            if name not in expected:
                raise Refused(f"The content is {name}, which is not what the image's disk_format says.")
            found.safety_check()
        except format_inspector.SafetyCheckFailed as error:
            raise Refused("The image fails the safety checks: " + ", ".join(sorted(error.failures)) + ".") from error
        except format_inspector.ImageFormatError as error:
            raise Refused("The content matches several image formats or none.") from error
        except Refused:
            raise
        except Exception as error:
            # The inspectors trip over some content (10.2: text that turns into something else). What they cannot judge
            # is not stored.
            raise Refused("The content cannot be inspected.") from error


class OpaqueContent:
    """For content that is not inspected: only its size is checked."""

    qcow2 = None

    def __init__(self, *, size_limit: int) -> None:
        self._left = size_limit

    def feed(self, chunk: bytes | memoryview) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            raise Refused("The image is larger than this cloud takes.")

    def finish(self) -> None:
        """Returns no virtual size: it is unknown."""


def inspection_of(disk_format: str, container_format: str, *, virtual_size_limit: int) -> Inspection | OpaqueContent:
    if is_bootable(disk_format, container_format):
        return Inspection(disk_format, virtual_size_limit=virtual_size_limit)
    return OpaqueContent(size_limit=virtual_size_limit)


def check_tables(inspection: Inspection | OpaqueContent, file: IO[bytes]) -> None:
    """Check a finished qcow2 upload's L1 table in the file itself; nothing to do for raw. Raises `Refused`."""
    header = inspection.qcow2
    if header is None:
        return
    file_size = file.seek(0, 2)
    file.seek(header.l1_offset)
    qcow2.check_l1_table(header, file.read(header.l1_entries * 8), file_size)
