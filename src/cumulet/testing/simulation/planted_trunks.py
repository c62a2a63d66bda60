"""Planted mistakes about trunks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest import mock

from cumulet.network import port_life, port_status, trunk_ports


def leaving_subports_active() -> AbstractContextManager[object]:
    """A server leaves its port, and the subports of that port stay ACTIVE."""
    return mock.patch.object(port_life, "_leave_subports", return_value=None)


def plugging_in_a_subport() -> AbstractContextManager[object]:
    """A port that another guest carries may be a server's own."""
    return mock.patch.object(trunk_ports, "is_subport", return_value=False)


def hearing_of_nics_only() -> AbstractContextManager[object]:
    """What a host says of subports is not recorded."""
    return mock.patch.object(port_status, "_BOUND_TO_HOST", port_status._BOUND_TO_HOST[:1])


PLANTS = (leaving_subports_active, plugging_in_a_subport, hearing_of_nics_only)
