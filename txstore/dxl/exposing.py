"""What ``txstore serve --metrics`` tells beside what its workers count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from txstore import __version__
from txstore.dxl.client_config import certificate_end, load_client_config
from txstore.dxl.supervisor import Supervisor
from txstore.errors import ConfigError
from txstore.metrics.gathering import Fact


def facts(supervisor: Supervisor, config_dir: str) -> Iterator[Fact]:
    """What only the supervisor knows, and when the certificate ends.

    :param config_dir: the folder of configuration
    """
    yield Fact("txstore_build_info", "Always 1", 1.0, {"version": __version__})
    yield Fact("txstore_workers", "Workers that answer requests", supervisor.serving)
    yield Fact(
        "txstore_worker_restarts_total",
        "Workers that were started again since they died or hung",
        supervisor.restarts,
    )
    # Read each time: a certificate is renewed in its place.
    with suppress(ConfigError, OSError, ValueError):
        yield Fact(
            "txstore_certificate_expiry_timestamp_seconds",
            "When the service's certificate ends, in seconds since 1970",
            certificate_end(load_client_config(config_dir)),
        )
