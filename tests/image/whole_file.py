"""Inspection of a file that is there as a whole."""

from __future__ import annotations

from typing import IO

from cumulet.image.inspection import Inspection, check_tables


def inspect_file(file: IO[bytes], disk_format: str, *, virtual_size_limit: int) -> int:
    """Inspect it as an upload is inspected. Returns its virtual size in bytes; raises `inspection.Refused`."""
    inspection = Inspection(disk_format, virtual_size_limit=virtual_size_limit)
    file.seek(0)
    while chunk := file.read(1 << 20):
        inspection.feed(chunk)
    virtual_size = inspection.finish()
    check_tables(inspection, file)
    return virtual_size
