"""Every call to the two servers goes by one of these methods: the seam for tests.

A test passes a subclass as ``disk=`` of the manager, and has a call fail before it reaches its
server, or after: then its effect is there, and the answer is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa


class Servers:
    """The calls.  Holds nothing; thread-safe."""

    def connect(self, opening: Callable[[], Any]) -> Any:
        """Open a connection to PostgreSQL.

        :param opening: does it
        """
        return opening()

    def execute(
        self, connection: sa.Connection, statement: sa.Executable, values: Mapping[str, Any]
    ) -> sa.CursorResult[Any]:
        """Have PostgreSQL carry out a statement."""
        return connection.execute(statement, dict(values))

    def commit(self, connection: sa.Connection) -> None:
        """Commit a transaction of PostgreSQL's."""
        connection.commit()

    def request(self, client: Any, call: str, arguments: Mapping[str, Any]) -> Any:
        """Make a request to the object store.

        :param client: boto3's
        :param call: name of its method, such as ``put_object``
        """
        return getattr(client, call)(**arguments)

    def pause(self, seconds: float) -> None:
        """Wait before a call is made again."""
        time.sleep(seconds)
