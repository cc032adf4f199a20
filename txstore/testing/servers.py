"""The two servers of a cluster, which fail, or are cut off, where a fault plan says so."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import botocore.exceptions
import psycopg

from txstore.cluster.servers import Servers
from txstore.testing.faults import Fault, FaultPlan, SimulatedCrash

if TYPE_CHECKING:
    import sqlalchemy as sa

T = TypeVar("T")

#: What an object store answers for an errno; for any other the connection is lost.
_ANSWERS = {
    errno.EIO: (500, "InternalError"),
    errno.EAGAIN: (503, "SlowDown"),
    errno.ENOSPC: (507, "QuotaExceeded"),
    errno.EACCES: (403, "AccessDenied"),
}
#: What PostgreSQL says; for any other the connection is lost.
_STATES: dict[int, type[psycopg.Error]] = {
    errno.EAGAIN: psycopg.errors.SerializationFailure,
    errno.ENOSPC: psycopg.errors.DiskFull,
    errno.EACCES: psycopg.errors.InsufficientPrivilege,
}
#: Requests that make the object store keep more than before.
_GROWING = ("put_object", "upload_part", "upload_part_copy", "create_multipart_upload")


class FaultyServers(Servers):
    """The way of one process to its servers, which can fail and end on command.  Thread-safe.

    Pass it to a manager as ``disk=``.  Calls are named ``"connect"``, ``"execute"`` (with the
    statement as what it is about), ``"commit"``, and as the methods of boto3's client (with the
    key).  A call that fails *after* it was carried out is one whose answer was lost.  When a crash
    has struck, every call of every thread raises ``SimulatedCrash`` and reaches no server; ``bury``
    then closes the connections, as the kernel does, and another manager can go on.

    :param faults: what goes wrong; by default nothing yet
    :ivar full: whether the object store has no room; what is there can be read and removed
    :ivar dead: whether a crash has struck
    """

    def __init__(self, faults: FaultPlan | None = None) -> None:
        self.faults = FaultPlan() if faults is None else faults
        self.dead = self.full = False
        self._mutex = threading.Lock()
        self._connections: list[psycopg.Connection[Any]] = []

    def bury(self) -> None:
        """Close the connections to PostgreSQL, without a word to the store."""
        self.dead = True
        with self._mutex:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    # --- the calls ---------------------------------------------------------------------------

    def connect(self, opening: Callable[[], Any]) -> Any:
        opened = self._made("connect", "", opening, _connection_lost, lambda made: made.close())
        with self._mutex:
            self._connections.append(opened)
        return opened

    def execute(
        self, connection: sa.Connection, statement: sa.Executable, values: Mapping[str, Any]
    ) -> sa.CursorResult[Any]:
        about = " ".join(str(statement).split()) if self.faults.looks else ""
        return self._asked_postgres(
            "execute",
            about,
            connection,
            lambda: super(FaultyServers, self).execute(connection, statement, values),
        )

    def commit(self, connection: sa.Connection) -> None:
        self._asked_postgres(
            "commit", "", connection, lambda: super(FaultyServers, self).commit(connection)
        )

    def _asked_postgres(
        self, call: str, about: str, connection: sa.Connection, act: Callable[[], T]
    ) -> T:
        driver: Any = connection.connection.driver_connection

        def fail(fault: Fault) -> NoReturn:
            state = None if fault.error is None else _STATES.get(fault.error)
            if state is not None and not fault.after:
                raise state(f"simulated: {call} {about}"[:200])
            driver.close()
            _connection_lost(fault)

        return self._made(call, about, act, fail)

    def request(self, client: Any, call: str, arguments: Mapping[str, Any]) -> Any:
        def fail(fault: Fault) -> NoReturn:
            _refuse(call, fault.error)

        if self.full and call in _GROWING and not self.dead:
            _refuse(call, errno.ENOSPC)
        return self._made(
            call,
            str(arguments.get("Key", "")),
            lambda: super(FaultyServers, self).request(client, call, arguments),
            fail,
        )

    def pause(self, seconds: float) -> None:
        if self.dead:
            raise SimulatedCrash("pause")
        super().pause(min(seconds, 0.001))

    def _made(
        self,
        call: str,
        about: str,
        act: Callable[[], T],
        fail: Callable[[Fault], NoReturn],
        undo: Callable[[T], object] = lambda _made: None,
    ) -> T:
        """Make a call, unless the plan is against it."""
        if self.dead:
            raise SimulatedCrash(f"{call} {about}")
        with self._mutex:
            struck = self.faults.struck(call, about)
        for fault in struck:
            if not fault.after:
                self._strike(fault, call, about, fail)
        made = act()
        for fault in struck:
            if fault.after:
                undo(made)
                self._strike(fault, call, about, fail)
        return made

    def _strike(
        self, fault: Fault, call: str, about: str, fail: Callable[[Fault], NoReturn]
    ) -> NoReturn:
        if fault.error is None:
            self.dead = True
            raise SimulatedCrash(f"{call} {about}")
        fail(fault)


def _connection_lost(_fault: Fault) -> NoReturn:
    raise psycopg.OperationalError("simulated: the connection is lost")


def _refuse(call: str, error: int | None) -> NoReturn:
    if error not in _ANSWERS:
        raise botocore.exceptions.ConnectionClosedError(endpoint_url="simulated")
    status, code = _ANSWERS[error]
    raise botocore.exceptions.ClientError(
        {
            "Error": {"Code": code, "Message": "simulated"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        call,
    )
