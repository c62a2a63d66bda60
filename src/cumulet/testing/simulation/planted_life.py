"""Mistakes to plant in what a server goes through without moving: images of its disk."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from cumulet.drivers.simulated import snapshots as simulated
from cumulet.image import snapshots


def copying_the_disk_of_another_guest() -> AbstractContextManager[Any]:
    """The image says whose disk it is, and holds another one."""
    real = simulated.empty_disk
    return mock.patch.object(simulated, "empty_disk", lambda size, note: real(size, "another's 0"))


def keeping_an_image_that_was_not_made() -> AbstractContextManager[Any]:
    """The operation has failed, and its image waits on for what never comes."""
    return mock.patch.object(snapshots, "give_up", return_value=None)
