"""Calls to the two servers that tell how long they take; for managers with ``metrics``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from txstore.cluster.servers import Servers
from txstore.metrics import Metrics, Timed

if TYPE_CHECKING:
    import sqlalchemy as sa


class MeasuredServers(Servers):
    """Makes each call through others.  What waits for a lock does so within a statement."""

    def __init__(self, servers: Servers, metrics: Metrics) -> None:
        self._servers, self._metrics = servers, metrics

    def connect(self, opening: Callable[[], Any]) -> Any:
        with Timed(self._metrics, "journal"):
            return self._servers.connect(opening)

    def execute(
        self, connection: sa.Connection, statement: sa.Executable, values: Mapping[str, Any]
    ) -> sa.CursorResult[Any]:
        with Timed(self._metrics, "journal"):
            return self._servers.execute(connection, statement, values)

    def commit(self, connection: sa.Connection) -> None:
        with Timed(self._metrics, "flush"):
            self._servers.commit(connection)

    def request(self, client: Any, call: str, arguments: Mapping[str, Any]) -> Any:
        with Timed(self._metrics, "write"):
            return self._servers.request(client, call, arguments)

    def pause(self, seconds: float) -> None:
        self._servers.pause(seconds)
