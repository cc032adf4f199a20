"""The metrics of several processes, kept where a dead one's stay, and told to Prometheus.

``prometheus_client`` has each process count in files of its own, which are added up whenever they
are asked for.  Here a process that takes another's place goes on in that one's files: nothing that
was counted is lost with a process that dies, and there are never more files than workers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, start_http_server, values
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from txstore.metrics.prometheus import PrometheusMetrics

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_KINDS = ("counter", "histogram", "gauge_mostrecent")
#: Bytes of each file, several times as many as our metrics take.
_SIZE = 1 << 16
#: The files are changed through memory: there they take no place on a disk that may be full.
_MEMORY = "/dev/shm"


class Fact(NamedTuple):
    """A number that no worker counts; a counter, if its name ends in ``_total``."""

    name: str
    text: str
    value: float
    labels: dict[str, str] = {}  # noqa: RUF012 - never changed

    def family(self) -> Metric:
        """The same as Prometheus has it."""
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        made = kind(self.name, self.text, labels=list(self.labels))
        made.add_metric(list(self.labels.values()), self.value)
        return made


class Gathering(Collector):
    """A folder in which workers count, and who tells of it by HTTP.

    :param workers: how many there are
    :param more: what else is told, asked each time
    :ivar folder: for ``count_in``
    :raises OSError: there is no room for the files
    """

    def __init__(self, workers: int, more: Callable[[], Iterable[Fact]]) -> None:
        self._more = more
        with ExitStack() as failed:
            # systemd's, which is in memory too, and goes with the service however that ends.
            where = os.environ.get("RUNTIME_DIRECTORY")
            if where is None and os.access(_MEMORY, os.W_OK):
                where = _MEMORY
            made = tempfile.TemporaryDirectory(prefix="txstore-metrics-", dir=where)
            self.folder = failed.enter_context(made)
            for number in range(1, workers + 1):
                for kind in _KINDS:
                    _allocate(Path(self.folder, f"{kind}_{number}.db"))
            self._ends = failed.pop_all()

    def serve(self, host: str, port: int) -> int:
        """Tell whoever asks, from a thread of its own.

        :param port: 0: any that is free
        :return: the port
        :raises OSError: nobody can listen there
        """
        registry = CollectorRegistry()
        registry.register(self)
        server, thread = start_http_server(port, host, registry)
        self._ends.callback(thread.join)
        self._ends.callback(server.server_close)
        self._ends.callback(server.shutdown)
        return int(server.server_port)

    def collect(self) -> Iterable[Metric]:
        """What all workers counted, and the rest."""
        yield from MultiProcessCollector(None, self.folder).collect()
        for fact in self._more():
            yield fact.family()

    def close(self) -> None:
        """End it."""
        self._ends.close()


def count_in(folder: str, number: int) -> PrometheusMetrics:
    """The metrics of a worker, in a process that has made none yet.

    :param folder: a ``Gathering``'s
    :param number: the worker's; no other process that is alive has it
    """
    os.environ[_FOLDER] = folder
    values.ValueClass = values.MultiProcessValue(lambda: number)
    return PrometheusMetrics(CollectorRegistry())


def _allocate(path: Path) -> None:
    """Make a file each of whose bytes has its place: where there was none for one that is changed
    through memory, the kernel would kill the process (SIGBUS)."""
    with path.open("xb") as file:
        os.posix_fallocate(file.fileno(), 0, _SIZE)
