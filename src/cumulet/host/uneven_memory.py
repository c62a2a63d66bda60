"""Memory that is no multiple of 256 KiB, so that QEMU before 9.0 misses nothing of it while it moves an emulated guest.

A live migration sends the pages that were written since the last round. QEMU notes them in a bitmap, and an emulated
CPU notes in its own table of pages which of them it need not note again. At a round's begin QEMU clears the bitmap. For
a block of memory that is a whole number of the bitmap's words (64 pages), it forgets to clear the CPU's tables, too:
what is written to those pages from then on is not sent, and the guest goes on with older memory. For a block of another
length it looks at each page by itself, and forgets nothing (`cpu_physical_memory_sync_dirty_bitmap`). QEMU 9.0 mended
it ("physmem: Fix migration dirty bitmap coherency with TCG memory access").
"""

from __future__ import annotations

KIB = 8
"""What a guest has beyond its flavor's memory; QEMU's memory is a multiple of this (hw/core/machine.c)."""

FEATURE = "uneven-memory"
"""Hosts offer it whose agents know of it; older ones would not understand the description of such a guest."""
