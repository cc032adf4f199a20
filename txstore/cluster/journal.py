"""Connections to PostgreSQL, transactions on them, and what their errors mean."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

from txstore.cluster.addresses import without_secrets
from txstore.cluster.retry import TransientError, retrying
from txstore.cluster.servers import Servers
from txstore.deadline import Deadline
from txstore.errors import JournalError, LockTimeoutError, OptionError
from txstore.protocol.moved import Fence

T = TypeVar("T")

#: Connections that are kept, and that there may be besides.
_KEPT, _MORE = 8, 56
#: Seconds that a call to PostgreSQL is given at least, however late it is.
_LEAST = 0.5
#: Seconds of its call after which a transaction says itself how long it may wait.
_JUST_BEGUN = 0.2
#: Milliseconds: the longest that PostgreSQL can be told.
_MOST_WAITING = 2**31 - 1
#: Seconds after which PostgreSQL ends a transaction of a worker that is paused or gone: nobody
#: waits for it longer than that.
_IDLE = 10

_LOCK_TIMEOUT = "55P03"
#: What a write meets behind a fence, and the setting of those whom it lets through.
FENCED, PASS = "TX001", "txstore.moving"
#: What passes: the transaction was ended for another one's sake, or the server is busy or on its
#: way up, down or over to another host.
_PASSING = ("40", "08", "57P", "25P03", "53300", "25006", "55006", "58000")
_NUMBERS = {
    "53100": errno.ENOSPC,
    "53200": errno.ENOMEM,
    "53300": errno.EAGAIN,
    "25006": errno.EROFS,
    "28": errno.EACCES,
    "42501": errno.EACCES,
    "3D": errno.ENOENT,
    "40": errno.EAGAIN,
    "57P": errno.ECONNRESET,
    "08": errno.ECONNRESET,
}


def _bound(connection: Any, deadline: Deadline) -> None:
    """Have nothing be waited for on a connection beyond the end of a call: a server that is
    stopped, or a network that swallows everything, answers never."""
    wait = connection.wait

    def bounded(waiting: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        end: Deadline | None = connection.deadline
        if end is not None:
            timeout = end.left() + _LEAST
        try:
            return wait(waiting, interval, timeout)
        except psycopg.errors._WaitTimeout as error:
            connection.pgconn.finish()  # what comes now would be taken for the next answer
            raise psycopg.OperationalError("PostgreSQL did not answer in time") from error

    connection.deadline, connection.wait = deadline, bounded


class Journal:
    """The connections of one process.  Thread-safe; ``disown`` in a forked child.

    :param url: as libpq takes it
    :ivar where: the URL, without secrets
    :ivar moving: whether it is for who moves the store, and whom no fence keeps off
    """

    def __init__(
        self, url: str, servers: Servers, lock_timeout: float, *, moving: bool = False
    ) -> None:
        self.moving = moving
        self.where = without_secrets(url)
        # What libpq reads itself: environment, .pgpass, services, all parameters of the URL.
        self._url = "postgresql://" + url.partition("://")[2]
        try:
            psycopg.conninfo.conninfo_to_dict(self._url)
        except psycopg.ProgrammingError:
            # Its text has the whole URL, and so has that of the error before it.
            raise OptionError(
                "working_dir must be a URL as PostgreSQL's own programs take it:"
                " 'postgresql://user@host/database'.",
                option="working_dir",
                received=None,
            ) from None
        self._servers, self._timeout = servers, lock_timeout
        self._engine = self._make_engine(
            poolclass=QueuePool,
            pool_size=_KEPT,
            max_overflow=_MORE,
            pool_timeout=max(lock_timeout, _LEAST),
        )
        self._unpooled = self._make_engine(poolclass=NullPool)
        self._mine = threading.local()
        self.salt = b""

    def _make_engine(self, **options: Any) -> sa.Engine:
        # Bytes and names of senders are not for logs.
        url, hidden = "postgresql+psycopg://", {"hide_parameters": True}
        return sa.create_engine(url, creator=self._open, **hidden, **options)

    def _open(self) -> Any:
        deadline = getattr(self._mine, "deadline", None) or Deadline(self._timeout)

        def opening() -> Any:
            connection: Any = psycopg.connect(
                self._url,
                connect_timeout=max(2, int(deadline.left())),
                autocommit=True,
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                application_name="txstore",
            )
            _bound(connection, deadline)
            with connection.cursor() as cursor:
                cursor.execute(_SETTINGS)
                most = min(int(max(self._timeout, _LEAST) * 1000), _MOST_WAITING)
                cursor.execute(f"SET lock_timeout = {most}".encode())
                if self.moving:
                    cursor.execute(f"SET {PASS} = 'on'".encode())
            connection.autocommit = False
            return connection

        return self._servers.connect(opening)

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self._engine.dispose()

    def disown(self) -> None:
        """In a forked child: all connections are the parent's."""
        self._engine.dispose(close=False)

    # --- using a connection ------------------------------------------------------------------

    def deadline(self) -> Deadline:
        """The end of a call that begins now."""
        return Deadline(self._timeout)

    @contextmanager
    def connected(self, deadline: Deadline) -> Iterator[sa.Connection]:
        """A connection, for a few transactions; in none of them yet.

        :raises TransientError: it was lost on the way
        :raises JournalError: PostgreSQL failed
        """
        connection = self._connect(deadline)
        try:
            with self.lent(connection, deadline):
                yield connection
        finally:
            connection.close()

    def apart(self, deadline: Deadline) -> sa.Connection:
        """A connection that the pool does not count, for as long as somebody wants."""
        return self._connect(deadline, self._unpooled)

    def _connect(self, deadline: Deadline, engine: sa.Engine | None = None) -> sa.Connection:
        self._mine.deadline = deadline
        try:
            return (engine or self._engine).connect()
        except (sa.exc.SQLAlchemyError, psycopg.Error) as error:
            raise self._translated(error) from error

    @contextmanager
    def lent(self, connection: sa.Connection, deadline: Deadline) -> Iterator[None]:
        """Use a connection in one call; after an error that leaves its state unknown it is closed,
        and PostgreSQL frees its locks."""
        if connection.invalidated:
            raise self.lost()
        driver: Any = connection.connection.driver_connection
        driver.deadline = deadline
        try:
            yield
        except (sa.exc.SQLAlchemyError, psycopg.Error) as error:
            self.drop(connection)
            raise self._translated(error) from error
        except (ValueError, OSError, TransientError):
            raise  # of ours: its transaction was rolled back
        except BaseException:
            self.drop(connection)  # struck anywhere
            raise
        finally:
            driver.deadline = None

    def lost(self) -> JournalError:
        """The error for a connection that is gone."""
        return JournalError(errno.ECONNRESET, "The connection to PostgreSQL was lost", self.where)

    @staticmethod
    def drop(connection: sa.Connection) -> None:
        """Close a connection whatever state it is in; PostgreSQL frees its locks."""
        with suppress(sa.exc.SQLAlchemyError, psycopg.Error):
            connection.invalidate()

    def ask(self, question: Callable[[Transaction], T], deadline: Deadline) -> T:
        """The answer to a question, in a transaction of its own.  It is asked again as long as what
        fails is passing."""

        def asked() -> T:
            with self.transaction(deadline) as at:
                return question(at)

        return retrying(asked, deadline, self._servers)

    @contextmanager
    def transaction(self, deadline: Deadline, *, lazily: bool = False) -> Iterator[Transaction]:
        """A transaction on a connection of its own: committed at the end, or not at all.

        :param lazily: do not wait until it is on PostgreSQL's disk
        """
        with (
            self.connected(deadline) as connection,
            self.within(connection, deadline, lazily=lazily) as transaction,
        ):
            yield transaction

    @contextmanager
    def within(
        self, connection: sa.Connection, deadline: Deadline, *, lazily: bool = False
    ) -> Iterator[Transaction]:
        """A transaction on a connection that is there."""
        transaction = Transaction(connection, self._servers)
        try:
            left = deadline.left()
            if lazily or left < self._timeout - _JUST_BEGUN:  # else as the connection has it
                milliseconds = min(int(max(left, _LEAST) * 1000), _MOST_WAITING)
                settings = {"timeout": f"{milliseconds}"}
                transaction.run(_LAZY if lazily else _BOUNDED, settings)
            yield transaction
        except BaseException:
            try:
                connection.rollback()
            except (sa.exc.SQLAlchemyError, psycopg.Error):
                self.drop(connection)
            raise
        self._servers.commit(connection)

    def _translated(self, error: Exception) -> Exception:
        """What an error of PostgreSQL's or its libraries' means."""
        original = getattr(error, "orig", None) or error
        if not isinstance(original, (sa.exc.SQLAlchemyError, psycopg.Error)):
            return original  # SQLAlchemy wraps what a signal handler raises in the middle of it
        state = str(getattr(original, "sqlstate", None) or "")
        if state == _LOCK_TIMEOUT or isinstance(error, sa.exc.TimeoutError):
            return LockTimeoutError(self.where, self._timeout)
        text = str(original).strip().splitlines()
        if state == FENCED and (fence := Fence.read(text[0] if text else "")):
            return fence.error(self.where)
        number = next((n for s, n in _NUMBERS.items() if state.startswith(s)), errno.EIO)
        lost = not state and isinstance(original, psycopg.OperationalError)
        if lost:
            number = errno.ECONNRESET
        told = JournalError(
            number, f"PostgreSQL failed: {text[0] if text else type(original).__name__}", self.where
        )
        told.__cause__ = error
        if lost or state.startswith(_PASSING):
            return TransientError(told)
        return told

    # --- locks that outlast a transaction ----------------------------------------------------

    def key(self, kind: str, name: str) -> int:
        """The number of an advisory lock of this store's."""
        text = b"\0".join([self.salt, kind.encode(), name.encode()])
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)


_SETTINGS = f"""
SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local');
SET idle_in_transaction_session_timeout = '{_IDLE}s';
SET timezone = 'UTC';
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
"""
_BOUNDED = sa.text("SELECT set_config('lock_timeout', :timeout, true)")
_LAZY = sa.text(
    "SELECT set_config('lock_timeout', :timeout, true),"
    " set_config('synchronous_commit', 'off', true)"
)


class Transaction:
    """A transaction that is under way.  Of one thread."""

    def __init__(self, connection: sa.Connection, servers: Servers) -> None:
        self.connection, self._servers = connection, servers

    def run(
        self, statement: sa.Executable, values: Mapping[str, Any] | None = None
    ) -> sa.CursorResult[Any]:
        """Have a statement carried out."""
        return self._servers.execute(self.connection, statement, values or {})
