"""Small programs for the kernel (eBPF, RFC 9669), which take IEEE 802.1Q tags from frames and put them on.

They stand in the hooks of tc (`clsact`), and do what VLAN devices would do, which some kernels lack.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Mapping, Sequence

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
"""The number of bpf(2)."""
_PROG_LOAD, _OF_TC = 5, 3
_ATTRIBUTES = "<IIQQIIQI"
"""How `union bpf_attr` begins for a program: type, length, instructions, licence, and where problems are told."""
_ATTRIBUTE_BYTES = 128
_LOG_BYTES = 1 << 16

_R0, _R1, _R2, _R3, _R6, _R7 = 0, 1, 2, 3, 6, 7
"""Registers: the result, arguments of a call, and those that calls keep."""
_LOAD_WORD, _COPY, _SET, _AND = 0x61, 0xBF, 0xB7, 0x57
_IF_EQUAL, _IF_OTHER, _CALL, _EXIT = 0x15, 0x55, 0x85, 0x95
_VLAN_PUSH, _VLAN_POP, _REDIRECT = 18, 19, 23
"""Functions of the kernel."""
_VLAN_PRESENT, _VLAN_TCI, _VLAN_PROTOCOL = 20, 24, 28
"""Places in `struct __sk_buff`."""
_COMES_IN, _IS_SENT = 1, 0
"""How a frame goes on at another device: as if it had come in there (BPF_F_INGRESS), or out by it."""
_NEXT, _DROP = -1, 2
"""TC_ACT_UNSPEC: the frame goes its usual way. TC_ACT_SHOT."""
_TAGGED = int.from_bytes(b"\x81\x00", sys.byteorder)
_TAG_BITS = 0x0FFF

Instruction = tuple[int, int, int, int, int]
"""Operation, destination, source, offset, number."""


class NoProgram(Exception):
    """The kernel does not take a program; the message is why."""


def sorting(devices: Mapping[int, int]) -> list[Instruction]:
    """For what comes from a guest: a frame with a tag of `devices` loses it, and comes in at the device of that index.

    All other frames go their usual way; rules drop those that have a tag.
    """
    compared: list[Instruction] = []
    for tag, index in sorted(devices.items()):
        # From the comparison over the others, which are still to come, and over the end of the usual way.
        over = 2 * (len(devices) - len(compared) // 2 - 1) + 2
        compared += [(_SET, _R7, 0, 0, index), (_IF_EQUAL, _R2, 0, over, tag)]
    return [
        (_COPY, _R6, _R1, 0, 0),
        (_LOAD_WORD, _R2, _R1, _VLAN_PRESENT, 0),
        (_IF_EQUAL, _R2, 0, len(compared) + 4, 0),
        (_LOAD_WORD, _R3, _R1, _VLAN_PROTOCOL, 0),
        (_IF_OTHER, _R3, 0, len(compared) + 2, _TAGGED),
        (_LOAD_WORD, _R2, _R1, _VLAN_TCI, 0),
        (_AND, _R2, 0, 0, _TAG_BITS),
        *compared,
        (_SET, _R0, 0, 0, _NEXT),
        (_EXIT, 0, 0, 0, 0),
        (_COPY, _R1, _R6, 0, 0),
        (_CALL, 0, 0, 0, _VLAN_POP),
        (_COPY, _R1, _R7, 0, 0),
        (_SET, _R2, 0, 0, _COMES_IN),
        (_CALL, 0, 0, 0, _REDIRECT),
        (_EXIT, 0, 0, 0, 0),
    ]


def tagging(tag: int, device: int) -> list[Instruction]:
    """For what leaves by a subport's device: a frame gets the tag, and is sent by the device of this index."""
    return [
        (_SET, _R2, 0, 0, _TAGGED),
        (_SET, _R3, 0, 0, tag),
        (_CALL, 0, 0, 0, _VLAN_PUSH),
        (_IF_EQUAL, _R0, 0, 2, 0),
        (_SET, _R0, 0, 0, _DROP),
        (_EXIT, 0, 0, 0, 0),
        (_SET, _R1, 0, 0, device),
        (_SET, _R2, 0, 0, _IS_SENT),
        (_CALL, 0, 0, 0, _REDIRECT),
        (_EXIT, 0, 0, 0, 0),
    ]


def load(instructions: Sequence[Instruction]) -> int:
    """The program, as an open file: it lasts as long as a filter uses it. Raises `NoProgram`."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise NoProgram(f"it is not known here how to load programs on {platform.machine()}")
    code = b"".join(
        struct.pack("<BBhi", operation, source << 4 | destination, offset, value)
        for operation, destination, source, offset, value in instructions
    )
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"Apache-2.0")
    said = ctypes.create_string_buffer(_LOG_BYTES)
    program = (_OF_TC, len(instructions), ctypes.addressof(text), ctypes.addressof(licence))
    libc = ctypes.CDLL(None, use_errno=True)
    # What the kernel tells of a long program has no room, and that alone would be a refusal (ENOSPC): it is asked for
    # only where the kernel has refused, for another reason.
    for told in ((0, 0, 0), (1, _LOG_BYTES, ctypes.addressof(said))):
        given = ctypes.create_string_buffer(struct.pack(_ATTRIBUTES, *program, *told, 0), _ATTRIBUTE_BYTES)
        loaded: int = libc.syscall(number, _PROG_LOAD, given, _ATTRIBUTE_BYTES)
        if loaded >= 0:
            return loaded
    words = said.value.decode(errors="replace").strip().splitlines()
    raise NoProgram(f"the kernel takes no program: {os.strerror(ctypes.get_errno())} {' '.join(words[-2:])[:200]}")
