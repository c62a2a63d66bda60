"""Refusals that no test can come through, each with its reason. The list only shrinks."""

from __future__ import annotations

UNSEEN: dict[str, str] = {}
