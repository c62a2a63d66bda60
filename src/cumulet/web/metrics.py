"""Request counts and durations, kept as plain numbers and written as Prometheus text on request."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from cumulet.web.context import Cloud

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """A counter of a service. `values`: the counts by the values of `labels`, of which there are few."""

    name: str
    """The metric's name, without ``_total``."""
    falls: bool = False
    """Whether it is a gauge: its values fall, too."""
    words: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], int]


Count: TypeAlias = "Callable[[Cloud], Awaitable[Sequence[Counts]]]"
"""Reads counters for `/metrics`. Its waits are short, and it leaves out what does not answer."""


class RequestMetrics:
    """Counts on the event loop only, so it needs no lock."""

    __slots__ = ("_buckets", "_requests", "_seconds")

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()

    def count(self, service: str, method: str, status: int, seconds: float) -> None:
        self._requests[service, method, status] += 1
        buckets = self._buckets.get(service)
        if buckets is None:
            buckets = self._buckets[service] = [0] * (len(BUCKETS) + 1)
        buckets[bisect.bisect_left(BUCKETS, seconds)] += 1
        self._seconds[service] += seconds  # type: ignore[assignment]

    def collect(self) -> Iterator[Any]:
        """prometheus_client's collector protocol."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily(
            "cumulet_http_requests", "Answered requests.", labels=("service", "method", "status")
        )
        for (service, method, status), number in sorted(self._requests.items()):
            requests.add_metric((service, method, str(status)), number)
        yield requests
        durations = HistogramMetricFamily(
            "cumulet_http_request_duration_seconds", "From the request's head to its answer.", labels=("service",)
        )
        for service, counts in sorted(self._buckets.items()):
            total, cumulative = 0, []
            for bound, number in zip((*BUCKETS, float("inf")), counts, strict=True):
                total += number
                cumulative.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
            durations.add_metric((service,), cumulative, sum_value=float(self._seconds[service]))
        yield durations

    def text(self, counts: Sequence[Counts] = ()) -> bytes:
        """Prometheus' text: these numbers, `counts`, and what prometheus_client counts of the process."""
        from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

        own = CollectorRegistry(auto_describe=False)
        own.register(self)
        for one in counts:
            own.register(_Counted(one))
        return generate_latest(own) + generate_latest(REGISTRY)


class _Counted:
    """`Counts` as a collector."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kind = GaugeMetricFamily if self._counts.falls else CounterMetricFamily
        found = kind(self._counts.name, self._counts.words, labels=self._counts.labels)
        for values, number in sorted(self._counts.values.items()):
            found.add_metric(values, number)
        yield found
