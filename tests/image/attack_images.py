"""Makes image files, honest and hostile, byte by byte. Every way of upload is tested with them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Qcow2:
    """The fields of a qcow2 header; `build` lays out header, L1 and refcount table and an L2-less, empty disk."""

    version: int = 3
    cluster_bits: int = 16
    virtual_size: int = 8 * MIB
    backing: bytes = b""
    encryption: int = 0
    l1_entries: int | None = None
    l1_offset: int | None = None
    l1_entry: int = 0
    refcount_offset: int | None = None
    refcount_clusters: int = 1
    snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    autoclear: int = 0
    header_length: int = 104
    extensions: tuple[tuple[int, bytes], ...] = ()
    backing_offset: int | None = None

    def build(self) -> bytes:
        cluster = 1 << self.cluster_bits
        l1_entries = self.l1_entries
        if l1_entries is None:
            l1_entries = -(-self.virtual_size // (cluster // 8 * cluster))
        l1_offset = cluster * 3 if self.l1_offset is None else self.l1_offset
        refcount_offset = cluster if self.refcount_offset is None else self.refcount_offset
        backing_offset = (512 if self.backing else 0) if self.backing_offset is None else self.backing_offset
        header = struct.pack(
            ">4sIQIIQIIQQIIQ",
            b"QFI\xfb",
            self.version,
            backing_offset,
            len(self.backing),
            self.cluster_bits,
            self.virtual_size,
            self.encryption,
            l1_entries,
            l1_offset,
            refcount_offset,
            self.refcount_clusters,
            self.snapshots,
            self.snapshots_offset,
        )
        if self.version == 3:
            header += struct.pack(">QQQII", self.incompatible, 0, self.autoclear, 4, self.header_length)
        for kind, data in self.extensions:
            header += struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)
        header += struct.pack(">II", 0, 0)
        if self.backing:
            header = header.ljust(512, b"\0") + self.backing
        blocks = header.ljust(cluster, b"\0")
        blocks += struct.pack(">Q", 2 * cluster).ljust(cluster, b"\0")  # refcount table
        blocks += (struct.pack(">H", 1) * 4).ljust(cluster, b"\0")  # refcount block
        blocks += (struct.pack(">Q", self.l1_entry) * min(l1_entries, 1 << 16)).ljust(cluster, b"\0")
        return blocks


GOOD = Qcow2()


def mbr(*, partition_type: int = 0x83, boot: int = 0x80, extra: bytes = b"") -> bytes:
    """A raw disk with a boot sector and one partition."""
    entry = struct.pack("<B3BB3BII", boot, 0, 2, 0, partition_type, 0xFE, 0xFF, 0xFF, 1, 2047)
    sector = b"\xfa\x33\xc0".ljust(446, b"\0") + entry + extra.ljust(48, b"\0") + b"\x55\xaa"
    return sector.ljust(MIB, b"\0")


def gpt() -> bytes:
    disk = bytearray(mbr(partition_type=0xEE, boot=0))
    disk[512:520] = b"EFI PART"
    return bytes(disk)


def _vmdk_sparse(kind: bytes) -> bytes:
    descriptor = b'# Disk DescriptorFile\nversion=1\ncreateType="' + kind + b'"\nRW 2048 FLAT "/etc/shadow" 0\n'
    header = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, 2048, 128, 1, 1)
    return header.ljust(512, b"\0") + descriptor.ljust(512, b"\0") + b"\0" * MIB


def _iso() -> bytes:
    return b"\0" * 0x8000 + b"\x01CD001\x01" + b"\0" * MIB


def _vhd_footer() -> bytes:
    return b"conectix" + struct.pack(">IIQ", 2, 0x10000, 0xFFFFFFFFFFFFFFFF).ljust(504, b"\0")


def honest() -> dict[str, tuple[str, bytes]]:
    """Name to (disk_format, content) of uploads that must be accepted."""
    return {
        "raw zeroes": ("raw", b"\0" * MIB),
        "raw random-looking": ("raw", bytes(range(256)) * 4096),
        "raw of 1 KiB": ("raw", b"\x5a" * 1024),
        "raw of 5 bytes": ("raw", b"hello"),
        "raw with an MBR": ("raw", mbr()),
        "raw with a GPT": ("raw", gpt()),
        "raw that mentions QFI later": ("raw", b"\0" * 600 + b"QFI\xfb" + b"\0" * 4096),
        "raw compressed bomb": ("raw", zlib.compress(b"\0" * (64 * MIB), 9)),
        "qcow2 version 3": ("qcow2", GOOD.build()),
        "qcow2 version 2": ("qcow2", replace(GOOD, version=2).build()),
        "qcow2 512-byte clusters": ("qcow2", replace(GOOD, cluster_bits=9, virtual_size=30_000).build()),
        "qcow2 2 MiB clusters": ("qcow2", replace(GOOD, cluster_bits=21).build()),
        "qcow2 with feature names": ("qcow2", replace(GOOD, extensions=((0x6803F857, b"\0" * 96),)).build()),
        "qcow2 zstd": ("qcow2", replace(GOOD, incompatible=1 << 3, header_length=104).build()),
    }


def hostile() -> dict[str, tuple[str, bytes]]:
    """Name to (disk_format, content) of uploads that must be refused."""
    good = GOOD.build()
    as_qcow2: dict[str, bytes] = {
        "backing file": replace(GOOD, backing=b"/etc/shadow").build(),
        "backing file by json:": replace(GOOD, backing=b'json:{"file.filename": "/etc/shadow"}').build(),
        "backing offset without length": replace(GOOD, backing_offset=512).build(),
        "backing length without offset": replace(GOOD, backing=b"x" * 20, backing_offset=0).build(),
        "backing format extension": replace(GOOD, extensions=((0xE2792ACA, b"raw"),)).build(),
        "data file bit": replace(GOOD, incompatible=1 << 2).build(),
        "data file extension": replace(GOOD, extensions=((0x44415441, b"/etc/shadow"),)).build(),
        "data file extension, version 2": replace(GOOD, version=2, extensions=((0x44415441, b"/etc/passwd"),)).build(),
        "data file named json:": replace(
            GOOD, incompatible=1 << 2, extensions=((0x44415441, b'json:{"driver":"nbd"}'),)
        ).build(),
        "raw external autoclear": replace(GOOD, autoclear=1 << 1).build(),
        "corrupt bit": replace(GOOD, incompatible=1 << 1).build(),
        "unknown feature 5": replace(GOOD, incompatible=1 << 5).build(),
        "unknown feature 63": replace(GOOD, incompatible=1 << 63).build(),
        "extended L2": replace(GOOD, incompatible=1 << 4).build(),
        "unknown extension": replace(GOOD, extensions=((0x12345678, b"boo"),)).build(),
        "extension longer than the cluster": good[:104] + struct.pack(">II", 0x6803F857, 0xFFFFFFF0) + good[112:],
        "extensions cut short": good[:110],
        "encrypted with AES": replace(GOOD, encryption=1).build(),
        "encrypted with LUKS": replace(GOOD, encryption=2).build(),
        "encryption extension": replace(GOOD, extensions=((0x0537BE77, b"\0" * 16),)).build(),
        "huge virtual size": replace(GOOD, virtual_size=1 << 60, l1_entries=1 << 20).build(),
        "largest virtual size": replace(GOOD, virtual_size=(1 << 64) - 1, l1_entries=1).build(),
        "zero virtual size": replace(GOOD, virtual_size=0, l1_entries=1).build(),
        "L1 too small for the size": replace(GOOD, virtual_size=8 << 30, l1_entries=1).build(),
        "L1 of four billion entries": replace(GOOD, l1_entries=0xFFFFFFFF).build(),
        "L1 over the header": replace(GOOD, l1_offset=0).build(),
        "L1 unaligned": replace(GOOD, l1_offset=3 * 65536 + 8).build(),
        "L1 beyond the end": replace(GOOD, l1_offset=1 << 40).build(),
        "L1 over the refcount table": replace(GOOD, l1_offset=65536).build(),
        "L1 entry into the header": replace(GOOD, l1_entry=(1 << 63) | 512).build(),
        "L1 entry beyond the end": replace(GOOD, l1_entry=(1 << 63) | (1 << 40)).build(),
        "refcount table over the header": replace(GOOD, refcount_offset=0).build(),
        "refcount table beyond the end": replace(GOOD, refcount_offset=1 << 50).build(),
        "refcount table of no clusters": replace(GOOD, refcount_clusters=0).build(),
        "refcount table of four billion clusters": replace(GOOD, refcount_clusters=0xFFFFFFFF).build(),
        "internal snapshots": replace(GOOD, snapshots=65535, snapshots_offset=65536).build(),
        "cluster bits 8": replace(GOOD, l1_entries=1).build()[:20] + struct.pack(">I", 8) + good[24:],
        "cluster bits 22": good[:20] + struct.pack(">I", 22) + good[24:],
        "cluster bits 63": good[:20] + struct.pack(">I", 63) + good[24:],
        "version 1": good[:4] + struct.pack(">I", 1) + good[8:],
        "version 4": good[:4] + struct.pack(">I", 4) + good[8:],
        "header length 0": replace(GOOD, header_length=0).build(),
        "header length past the cluster": replace(GOOD, header_length=1 << 30).build(),
        "four bytes": good[:4],
        "cut at 71 bytes": good[:71],
        "cut at 103 bytes": good[:103],
        "cut at 511 bytes": good[:511],
        "cut after the first cluster": good[:65536],
        "raw that says qcow2": b"\0" * MIB,
        "MBR that says qcow2": mbr(),
        "empty": b"",
    }
    as_raw: dict[str, bytes] = {
        "qcow2": good,
        "qcow2, four bytes": b"QFI\xfb",
        "qcow2, 100 bytes": good[:100],
        "qcow2 with backing file": replace(GOOD, backing=b"/etc/shadow").build(),
        "qcow version 1": b"QFI\xfb\0\0\0\x01" + b"\0" * 4096,
        "qed": b"QED\0" + struct.pack("<III", 65536, 4, 1) + b"\0" * MIB,
        "qed cut short": b"QED\0" + b"\0" * 20,
        "vmdk sparse": _vmdk_sparse(b"monolithicSparse"),
        "vmdk flat": _vmdk_sparse(b"monolithicFlat"),
        "vmdk descriptor": b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/shadow"\n',
        "vmdk descriptor in disguise": b'\n# hello\n\nversion=1\nCID=0\nRW 1 FLAT "/etc/shadow" 0\n',
        "vmdk cowd": b"COWD" + b"\0" * 4096,
        "vdi": (b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe").ljust(MIB, b"\0"),
        "vhd dynamic": _vhd_footer() + b"cxsparse" + b"\0" * MIB + _vhd_footer(),
        "vhd fixed": b"\0" * MIB + _vhd_footer(),
        "vhd fixed, short footer": b"\0" * MIB + _vhd_footer()[:511],
        "vhdx": b"vhdxfile" + b"\0" * MIB,
        "iso": _iso(),
        "iso with an MBR": mbr()[:0x8000] + _iso()[0x8000:],
        "luks 1": b"LUKS\xba\xbe\0\x01" + b"aes".ljust(32, b"\0") + b"\0" * MIB,
        "luks 2": b"LUKS\xba\xbe\0\x02" + b"\0" * MIB,
        "luks 2, second header": b"SKUL\xba\xbe\0\x02" + b"\0" * MIB,
        "parallels": b"WithoutFreeSpace" + b"\0" * 4096,
        "bochs": b"Bochs Virtual HD Image" + b"\0" * 4096,
        "dmg": b"\0" * MIB + b"koly" + b"\0" * 508,
        "cloop": b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0" + b"\0" * 4096,
        "text that turns into something else": b"# hello\n" * 100 + b"\xff" * 4096,
        "boot sector without partitions": (b"\0" * 510 + b"\x55\xaa").ljust(4096, b"\0"),
        "MBR with a wild boot flag": mbr(boot=0x42),
        "GPT with a further partition": mbr(partition_type=0xEE, boot=0, extra=b"\0\0\2\0\x83" + b"\xff" * 11),
    }
    return {f"qcow2: {name}": ("qcow2", data) for name, data in as_qcow2.items()} | {
        f"raw: {name}": ("raw", data) for name, data in as_raw.items()
    }


def chunkings(data: bytes) -> dict[str, Callable[[], list[bytes]]]:
    """The same content cut into chunks in ways that have hidden headers from inspectors before."""

    def cut(size: int) -> list[bytes]:
        return [data[i : i + size] for i in range(0, len(data), size)]

    return {
        "whole": lambda: [data],
        "64 KiB": lambda: cut(65536),
        "odd": lambda: cut(4093),
        "slow start": lambda: [data[i : i + 1] for i in range(min(len(data), 700))] + [data[700:]],
    }
