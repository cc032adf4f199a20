"""What servers report, as the caller gets it: an ``OSError``, after a while or at once."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from botocore import exceptions as boto
from cluster_servers import Cluster

from txstore import FileStoreManager
from txstore.cluster.servers import Servers
from txstore.errors import JournalError, LockTimeoutError, ObjectStoreError
from txstore.testing import Transfer, segment


class _FailingServers(Servers):
    """Fails the next calls of a kind."""

    def __init__(self) -> None:
        self.kind, self.error, self.left, self.made = "", Exception(), 0, 0

    def fail(self, kind: str, error: Exception, times: int) -> None:
        self.kind, self.error, self.left, self.made = kind, error, times, 0

    def _call(self, kind: str) -> None:
        if kind == self.kind and self.left:
            self.left -= 1
            self.made += 1
            raise self.error

    def execute(
        self, connection: sa.Connection, statement: sa.Executable, values: Mapping[str, Any]
    ) -> sa.CursorResult[Any]:
        self._call("execute")
        return super().execute(connection, statement, values)

    def request(self, client: Any, call: str, arguments: Mapping[str, Any]) -> Any:
        self._call("request")
        return super().request(client, call, arguments)

    def pause(self, seconds: float) -> None:
        """Nobody waits in a test."""
        super().pause(seconds / 100)


def answered(status: int, code: str) -> boto.ClientError:
    facts = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(facts, "PutObject")


@pytest.fixture
def servers() -> _FailingServers:
    return _FailingServers()


@pytest.fixture
def store(cluster: Cluster, servers: _FailingServers) -> Iterator[FileStoreManager]:
    with FileStoreManager(cluster.storage_dir, cluster.working_dir, disk=servers) as store:
        yield store


@pytest.fixture
def hasty(cluster: Cluster, servers: _FailingServers) -> Iterator[FileStoreManager]:
    """Whose calls end soon."""
    with FileStoreManager(
        cluster.storage_dir, cluster.working_dir, disk=servers, lock_timeout=0.5
    ) as store:
        yield store


PASSING: list[tuple[str, Exception, int]] = [
    ("request", answered(500, "InternalError"), errno.EIO),
    ("request", answered(503, "SlowDown"), errno.EIO),
    ("request", answered(502, ""), errno.EIO),
    ("request", boto.EndpointConnectionError(endpoint_url="x"), errno.ECONNRESET),
    ("request", boto.ReadTimeoutError(endpoint_url="x"), errno.ETIMEDOUT),
    ("request", boto.ConnectionClosedError(endpoint_url="x"), errno.ECONNRESET),
    ("execute", psycopg.OperationalError("server closed the connection"), errno.ECONNRESET),
    ("execute", psycopg.errors.SerializationFailure("again"), errno.EAGAIN),
    ("execute", psycopg.errors.DeadlockDetected("again"), errno.EAGAIN),
    ("execute", psycopg.errors.AdminShutdown("bye"), errno.ECONNRESET),
    ("execute", psycopg.errors.ReadOnlySqlTransaction("a standby"), errno.EROFS),
    ("execute", psycopg.errors.TooManyConnections("full"), errno.EAGAIN),
]
LASTING: list[tuple[str, Exception, int]] = [
    ("request", answered(403, "AccessDenied"), errno.EACCES),
    ("request", answered(403, "SignatureDoesNotMatch"), errno.EACCES),
    ("request", answered(404, "NoSuchBucket"), errno.ENOENT),
    ("request", answered(400, "Whatever"), errno.EIO),
    ("request", boto.NoCredentialsError(), errno.EACCES),
    ("request", boto.ParamValidationError(report="x"), errno.EIO),
    ("execute", psycopg.errors.DiskFull("full"), errno.ENOSPC),
    ("execute", psycopg.errors.InsufficientPrivilege("no"), errno.EACCES),
    ("execute", psycopg.errors.UndefinedTable("gone"), errno.EIO),
]


def _name(one: object) -> str:
    if isinstance(one, boto.ClientError):
        return str(one.response["Error"].get("Code") or "502")
    return type(one).__name__ if isinstance(one, Exception) else str(one)


@pytest.mark.parametrize(("kind", "error", "number"), PASSING, ids=_name)
def test_what_passes_is_waited_for_and_told_if_it_does_not(
    store: FileStoreManager,
    hasty: FileStoreManager,
    servers: _FailingServers,
    kind: str,
    error: Exception,
    number: int,
) -> None:
    servers.fail(kind, error, 2)
    store.store_segment(Transfer("file", (b"bytes",), "one").message(1))
    assert servers.made == 2
    servers.fail(kind, error, 10_000)
    with pytest.raises((ObjectStoreError, JournalError)) as caught:
        hasty.store_segment(Transfer("file", (b"again",), "two").message(1))
    assert caught.value.errno == number
    assert caught.value.__cause__ is error
    assert servers.made > 2
    servers.fail(kind, error, 0)
    store.store_segment(Transfer("file", (b"again",), "two").message(1))


@pytest.mark.parametrize(("kind", "error", "number"), LASTING, ids=_name)
def test_what_lasts_is_told_at_once(
    store: FileStoreManager, servers: _FailingServers, kind: str, error: Exception, number: int
) -> None:
    servers.fail(kind, error, 10_000)
    with pytest.raises((ObjectStoreError, JournalError)) as caught:
        store.store_segment(Transfer("file", (b"bytes",), "one").message(1))
    assert (caught.value.errno, caught.value.__cause__) == (number, error)
    assert servers.made == (1 if number != errno.ENOSPC else 2)  # where room could be made
    servers.fail(kind, error, 0)
    store.store_segment(Transfer("file", (b"bytes",), "one").message(1))


def test_a_row_that_is_locked_for_too_long_is_a_lock_not_had(
    store: FileStoreManager, hasty: FileStoreManager, cluster: Cluster
) -> None:
    store.store_segment(segment(1, b"a", "id"))
    with psycopg.connect(cluster.working_dir) as other:
        other.execute("SELECT 1 FROM transfer FOR UPDATE")
        with pytest.raises(LockTimeoutError):
            hasty.store_segment(segment(2, b"b", "id"))
    store.store_segment(segment(2, b"b", "id"))
