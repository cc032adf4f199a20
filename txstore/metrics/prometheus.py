"""What a store tells, counted for Prometheus (needs the extra ``metrics``).

Names follow Prometheus' conventions; ``docs/operating.md`` has a table of all of them.
"""

from __future__ import annotations

import errno

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from txstore.errors import RequestError
from txstore.metrics import Step
from txstore.protocol.status import Totals

#: Upper ends of a histogram's buckets, in seconds: from a write to memory to a disk that hangs.
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class PrometheusMetrics:
    """Counts in a registry of ``prometheus_client``; a manager's ``metrics=``.

    Thread-safe.  One registry takes one: share it among managers.  In ``prometheus_client``'s
    multiprocess mode the numbers of all processes are added up.  Outside of it a process that is
    forked while another thread counts may wait for ever: make this after the fork there.

    :param registry: where its metrics are registered; by default the global one
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._requests = Counter(
            "txstore_requests",
            "Messages, by what became of them: segment, store, cancel, refused, failed",
            ["outcome"],
            registry=registry,
        )
        self._errors = Counter(
            "txstore_errors",
            "Messages that were answered with an error, by its class or the kernel's name for it",
            ["kind"],
            registry=registry,
        )
        self._bytes = Counter(
            "txstore_received_bytes", "Bytes of segments that were acknowledged", registry=registry
        )
        self._seconds = Histogram(
            "txstore_request_duration_seconds",
            "Time from a message to its answer",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._steps = Histogram(
            "txstore_step_duration_seconds",
            "Time of single steps: lock, write, flush, journal",
            ["step"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._transfers = _gauge("txstore_transfers", "Unfinished transfers", registry)
        self._unfinished = _gauge(
            "txstore_unfinished_bytes", "Bytes of unfinished transfers", registry
        )
        self._oldest = _gauge(
            "txstore_oldest_transfer_age_seconds",
            "Age of the oldest unfinished transfer; 0: there is none",
            registry,
        )
        self._behind = _gauge(
            "txstore_events_behind",
            "Events that the consumer which is furthest behind has yet to see",
            registry,
        )
        self._free = _gauge(
            "txstore_disk_free_bytes", "Bytes that the store may still take of its disk", registry
        )
        for outcome in ("segment", "store", "cancel", "refused", "failed"):
            self._requests.labels(outcome)
        steps: tuple[Step, ...] = ("lock", "write", "flush", "journal")
        self._of_step = {step: self._steps.labels(step) for step in steps}

    def answered(self, outcome: str, size: int, seconds: float) -> None:
        """A message was answered."""
        self._requests.labels(outcome).inc()
        self._bytes.inc(size)
        self._seconds.observe(seconds)

    def failed(self, error: BaseException, seconds: float) -> None:
        """A message was answered with an error."""
        self._requests.labels("refused" if isinstance(error, RequestError) else "failed").inc()
        self._errors.labels(_kind(error)).inc()
        self._seconds.observe(seconds)

    def took(self, step: Step, seconds: float) -> None:
        """A step was done."""
        self._of_step[step].observe(seconds)

    def show(self, totals: Totals) -> None:
        """Set the gauges to what a store has; to be called now and then."""
        self._transfers.set(totals.transfers)
        self._unfinished.set(totals.bytes)
        self._oldest.set(totals.oldest_age)
        self._behind.set(totals.events_behind)
        if totals.free is not None:
            self._free.set(totals.free)


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    # Of several processes each sees the same store: whoever looked last is right.
    return Gauge(name, text, registry=registry, multiprocess_mode="mostrecent")


def _kind(error: BaseException) -> str:
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.errno:
        return errno.errorcode.get(error.errno, "OSError")
    return type(error).__name__
