"""The vitals of this process's agents as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from agents.vitals import Histogram, Vitals
from console.hosting.readiness import Watched

_COUNTERS: Final[tuple[tuple[str, str, Callable[[Vitals], float]], ...]] = (
    ("otway_dead_letters", "Records that could not be read.", lambda vitals: vitals.dead_letters),
    ("otway_conflicts", "Inputs that were read and decided again.", lambda vitals: vitals.conflicts),
    ("otway_records_sent", "Records that the bus has acknowledged.", lambda vitals: vitals.sent),
)
_GAUGES: Final[tuple[tuple[str, str, Callable[[Vitals], float]], ...]] = (
    ("otway_lag_records", "Records of its partitions not dealt with.", lambda vitals: vitals.lag.records),
    ("otway_silent_seconds", "Since the bus was last heard of.", lambda vitals: vitals.lag.silent_s),
    ("otway_partitions", "Partitions held.", lambda vitals: len(vitals.partitions or ())),
    ("otway_waiting", "1 while it waits for bus or store.", lambda vitals: vitals.waiting_for is not None),
)


def metrics_of(agents: Sequence[Watched]) -> Callable[[], bytes]:
    """What gives the metrics of these agents and of this process, in Prometheus's text format."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Agents(agents))
    return lambda: generate_latest(registry)


class _Agents(Collector):
    """Reads while the loops write: what is gone through is copied first."""

    def __init__(self, agents: Sequence[Watched]) -> None:
        self._agents = agents

    def collect(self) -> Iterator[Metric]:
        """All families; label `agent` says whose a value is."""
        yield self._requests()
        yield self._refusals()
        yield self._histogram("otway_latency_seconds", "From receive to commit.", lambda v: v.latency)
        yield self._histogram("otway_batch_size", "Inputs and dead letters of a batch.", lambda v: v.batches)
        yield from self._store()
        for name, what, value in _COUNTERS:
            counter = CounterMetricFamily(name, what, labels=["agent"])
            for agent in self._agents:
                counter.add_metric([agent.role], value(agent.vitals))
            yield counter
        for name, what, value in _GAUGES:
            gauge = GaugeMetricFamily(name, what, labels=["agent"])
            for agent in self._agents:
                gauge.add_metric([agent.role], value(agent.vitals))
            yield gauge

    def _requests(self) -> Metric:
        family = CounterMetricFamily("otway_requests", "Inputs dealt with.", labels=["agent", "type"])
        for agent in self._agents:
            for kind, count in dict(agent.vitals.inputs).items():
                family.add_metric([agent.role, kind], count)
        return family

    def _refusals(self) -> Metric:
        labels = ["agent", "check", "code"]
        family = CounterMetricFamily("otway_refusals", "Refusals that the audit was told.", labels=labels)
        for agent in self._agents:
            for reason, count in dict(agent.vitals.refusals).items():
                family.add_metric([agent.role, *reason], count)
        return family

    def _store(self) -> Iterator[Metric]:
        labels = ["agent", "operation"]
        trips = CounterMetricFamily("otway_store_round_trips", "Questions to the store.", labels=labels)
        seconds = CounterMetricFamily("otway_store_seconds", "Time waited for it.", labels=labels)
        for agent in self._agents:
            for operation, done in dict(agent.vitals.store).items():
                trips.add_metric([agent.role, operation], done.count)
                seconds.add_metric([agent.role, operation], done.seconds)
        yield trips
        yield seconds

    def _histogram(self, name: str, what: str, of: Callable[[Vitals], Histogram]) -> Metric:
        family = HistogramMetricFamily(name, what, labels=["agent"])
        for agent in self._agents:
            seen = of(agent.vitals)
            bounds = (*(str(float(bound)) for bound in seen.bounds), "+Inf")
            buckets = list(zip(bounds, accumulate(seen.counts), strict=True))
            family.add_metric([agent.role], buckets, seen.total)
        return family
