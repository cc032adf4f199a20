"""Two servers whose answers are lost on the way: what was asked for took place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from botocore.exceptions import ReadTimeoutError

from txstore.cluster.servers import Servers


class LosingServers(Servers):
    """Loses answers as it is told.  Of one thread.

    :ivar calls: names of all calls that were made
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._lost: Callable[[str], bool] = lambda _call: False
        self.before: dict[str, Callable[[], object]] = {}

    def lose(self, call: str, nth: int, *, for_ever: bool = False) -> None:
        """Lose the answer to one of the next calls with a name, or all from that one on."""
        start = self.calls.count(call)

        def lost(made: str) -> bool:
            number = self.calls.count(call) - start
            return made == call and (number >= nth if for_ever else number == nth)

        self._lost = lost

    def clear(self) -> None:
        """Lose no more."""
        self._lost = lambda _call: False

    def _made(self, call: str) -> None:
        self.calls.append(call)
        self.before.pop(call, lambda: None)()

    def commit(self, connection: Any) -> None:
        """Commit."""
        self._made("commit")
        super().commit(connection)
        if self._lost("commit"):
            connection.connection.driver_connection.close()
            raise psycopg.OperationalError("the answer was lost")

    def request(self, client: Any, call: str, arguments: Mapping[str, Any]) -> Any:
        """Make a request."""
        self._made(call)
        answer = super().request(client, call, arguments)
        if self._lost(call):
            raise ReadTimeoutError(endpoint_url="the object store")
        return answer
