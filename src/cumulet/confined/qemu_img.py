"""Command lines of qemu-img: formats are always said, and never found out from the data."""

from __future__ import annotations

import json


def convert(qemu_img: str, *, source: str, source_format: str, target: str, target_format: str) -> list[str]:
    """Copy a disk to a new file. A backing file that the source may name is not opened."""
    file = {"driver": "file", "filename": source}
    node: dict[str, object] = {"driver": source_format, "read-only": True, "file": file}
    if source_format == "qcow2":
        node["backing"] = None
    return [qemu_img, "convert", "-q", "-O", target_format, f"json:{json.dumps(node)}", target]
