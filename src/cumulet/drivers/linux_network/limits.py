"""Limits of bandwidth as named limits of nftables: each counts the bytes of one port, or address, in one direction.

Packets over a limit are dropped. The bucket of a limit holds what may pass in one second, or the burst where that is
larger: nftables has no smaller bucket. (A queue on the tap would delay packets instead of dropping them, but only in
one direction. The other direction needs a further device for each port, or a police action, which some kernels lack.)
"""

from __future__ import annotations

from dataclasses import dataclass

from cumulet.host.wiring import Limit

MOST_BYTES_A_SECOND = 10**10
"""80 Gbit/s. No tap is faster, and the kernel's arithmetic overflows soon after."""
_MOST_BURST_BYTES = 2**32 - 1
_BYTES_OF_KILOBIT = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLimit:
    """A rate, and the bytes that may pass at once beyond those of one second."""

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
    """The limit of `subject` in the direction `way`; None where no tap reaches it.

    The name holds the rate and the burst: a limit that changes is a new limit.
    """
    rate = limit.kbps * _BYTES_OF_KILOBIT
    if rate > MOST_BYTES_A_SECOND:
        return None
    burst = min(max(limit.burst_kbit * _BYTES_OF_KILOBIT - rate, 0), _MOST_BURST_BYTES)
    name = f"{way}_{subject.replace('.', '_')}_{rate}_{burst}"
    return NamedLimit(name=name, bytes_a_second=rate, burst_bytes=burst)
