"""Guests that were made by half, of servers in ERROR: nobody knows how their hosts have frozen them, or their disks.

A host went down while it made one. So what is found there later is removed, and never let run (`compute.drift`). Its
server keeps the fault that says so until it is made anew, shelved again, or deleted: nothing else may overwrite it.
"""

from __future__ import annotations

from cumulet.compute.model import Server, VmState

REBUILT_BY_HALF = "The server could not be rebuilt, and its old disk is gone."
"""Its guest is removed, once its host is back. It can be rebuilt again."""
NOT_UNSHELVED = "The server could not be unshelved."
"""The same, and then it is shelved again."""


def is_half_made(server: Server) -> bool:
    """Whether all that there may be of its guest is half of one."""
    return server.vm_state is VmState.ERROR and server.fault_message in (REBUILT_BY_HALF, NOT_UNSHELVED)
