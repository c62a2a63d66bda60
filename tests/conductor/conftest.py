"""What stories of runners share."""

from __future__ import annotations

from tests.conductor.carrying import play

__all__ = ["play"]
