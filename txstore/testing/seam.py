"""All calls of a disk, SQLite's included, led through one place."""

from __future__ import annotations

import functools
import inspect
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from txstore.disk import Disk
from txstore.testing.sqlite import SimulatedConnection

T = TypeVar("T")


class Seam(Disk, ABC):
    """A disk each of whose calls goes through ``made``.

    In front of another class (``class Mine(MySeam, Another)``) its calls are that one's.
    """

    sqlite_connection = SimulatedConnection

    @abstractmethod
    def made(
        self, call: str, act: Callable[..., T], args: tuple[Any, ...], options: dict[str, Any]
    ) -> T:
        """Make a call.

        :param call: name of the method of ``Disk``; ``"sql"`` for what SQLite is asked
        :param act: makes it, given the arguments
        :param args: for ``"sql"`` the connection and a statement, which may be ``"COMMIT"`` or
            ``"CLOSE"``, too
        """

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        return self.made("connect", self._connect, (path,), options)

    def _connect(self, path: str, **options: Any) -> sqlite3.Connection:
        connection = super().connect(path, **options)
        assert isinstance(connection, SimulatedConnection)
        connection.around = self._asked_sqlite
        connection.file = unquote(urlsplit(path).path) if path.startswith("file:") else path
        # A database that never changes has no WAL, and nothing is written to it.
        connection.writes = "immutable=1" not in path
        return connection

    def _asked_sqlite(self, connection: SimulatedConnection, sql: str, act: Callable[[], T]) -> T:
        return self.made("sql", lambda *_: act(), (connection, sql), {})


def _led(call: str) -> Callable[..., Any]:
    @functools.wraps(getattr(Disk, call))
    def method(self: Seam, *args: Any, **options: Any) -> Any:
        return self.made(call, getattr(super(Seam, self), call), args, options)

    return method


for _call, _ in inspect.getmembers(Disk, inspect.isfunction):
    if not _call.startswith("_") and _call != "connect":
        setattr(Seam, _call, _led(_call))
