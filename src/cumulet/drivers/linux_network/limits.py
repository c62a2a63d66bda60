"""Limits of bandwidth as named limits of nftables: each counts the bytes of one port, or address, in one direction.

What is over it is dropped. Its bucket holds what may pass in a second, or the burst if that is more: nftables has no
smaller one. (A queue on the tap would hold packets back instead, but only in one direction: the other takes a device a
port, or a police action, which kernels may lack.)
"""

from __future__ import annotations

from dataclasses import dataclass

from cumulet.host.wiring import Limit

MOST_BYTES_A_SECOND = 10**10
"""More (80 Gbit/s) is no limit to a tap, and the kernel's arithmetic ends soon after."""
_MOST_BURST_BYTES = 2**32 - 1
_BYTES_OF_KILOBIT = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLimit:
    """`bytes_a_second`, and so many bytes more at once than pass in a second."""

    name: str
    bytes_a_second: int
    burst_bytes: int

    def described(self, family: str, table: str) -> dict[str, object]:
        """As nftables' JSON has it."""
        return {
            "family": family,
            "table": table,
            "name": self.name,
            "rate": self.bytes_a_second,
            "per": "second",
            "rate_unit": "bytes",
            "burst": self.burst_bytes,
            "burst_unit": "bytes",
            "inv": True,
        }


def named_limit(way: str, subject: str, limit: Limit) -> NamedLimit | None:
    """What `subject` may pass one way; None where that is all it could. The name says all of it: a limit that changes
    is another limit."""
    rate = limit.kbps * _BYTES_OF_KILOBIT
    if rate > MOST_BYTES_A_SECOND:
        return None
    burst = min(max(limit.burst_kbit * _BYTES_OF_KILOBIT - rate, 0), _MOST_BURST_BYTES)
    name = f"{way}_{subject.replace('.', '_')}_{rate}_{burst}"
    return NamedLimit(name=name, bytes_a_second=rate, burst_bytes=burst)
