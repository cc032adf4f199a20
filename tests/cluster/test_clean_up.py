"""Nothing piles up for ever: transfers, completions, events, and what dead workers left."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from cluster_servers import BUCKET, Cluster, s3_client

from txstore import FileStoreManager
from txstore.errors import LimitError, ObjectStoreError
from txstore.limits import Limits
from txstore.testing import FaultyServers, Transfer, segment

pytestmark = pytest.mark.promise(9)

LARGE = b"x" * (8 * 1024**2)


@contextmanager
def opened(cluster: Cluster, **options: Any) -> Iterator[FileStoreManager]:
    with FileStoreManager(
        cluster.storage_dir, cluster.working_dir, **{"lock_timeout": 10, **options}
    ) as store:
        yield store


def keys(cluster: Cluster, folder: str = ".txstore/staging/") -> list[str]:
    """What is in the object store."""
    found = s3_client(cluster.addresses.endpoint).list_objects_v2(
        Bucket=BUCKET, Prefix=f"{cluster.place}/{folder}"
    )
    return [one["Key"] for one in found.get("Contents", [])]


def sql(cluster: Cluster, statement: str) -> list[Any]:
    with psycopg.connect(cluster.working_dir, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_transfer_without_activity_expires_with_its_parts(cluster: Cluster) -> None:
    with opened(cluster) as store, opened(cluster, expire_after=60) as other:
        store.store_segment(segment(1, LARGE, "old"))
        store.store_segment(segment(1, b"new", "new"))
        assert other.expire() == []
        assert len(keys(cluster)) == 1
        sql(cluster, "UPDATE transfer SET updated_at = updated_at - interval '61 s'")
        store.store_segment(segment(1, b"new", "new"))  # answered again: it is worked on
        assert other.expire() == ["old"]
        assert keys(cluster) == []
        assert [one.file_id for one in store.transfers()] == ["new"]
        assert [(one.kind, one.file_id, one.size) for one in store.events()] == [
            ("expired", "old", len(LARGE))
        ]


def test_what_expires_is_told_though_the_answer_of_the_database_is_lost(cluster: Cluster) -> None:
    servers = FaultyServers()
    with opened(cluster) as first, opened(cluster, expire_after=0, disk=servers) as store:
        for number in range(3):
            first.store_segment(segment(1, b"old", f"old-{number}"))
        # The first commit is the one that looks for what was left, the second drops.
        servers.faults.fail("commit", errno.ECONNRESET, nth=2, after=True)
        assert sorted(store.expire()) == ["old-0", "old-1", "old-2"]
        assert len(list(store.events())) == 3


def test_answers_clean_up_bit_by_bit(cluster: Cluster) -> None:
    with opened(cluster) as store:
        for number in range(3):
            store.store_segment(segment(1, b"old", f"old-{number}"))
        sql(cluster, "UPDATE transfer SET updated_at = updated_at - interval '61 s'")
    with opened(cluster, expire_after=0.001) as store:
        number = 0
        while store.count_transfers():
            number += 1
            store.store_segment(Transfer("file", (b"%d" % number,)).message(1))


def test_completions_are_forgotten(cluster: Cluster) -> None:
    with opened(cluster, keep_completed=0) as store:
        store.store_segment(segment(1, b"a", "id"))
        store.store_segment(Transfer("file", (b"a", b"b"), "id").message(2))
        store.expire()
        assert store.status("id") is None


def test_an_object_that_was_never_recorded_goes_and_one_that_may_be_stays(
    cluster: Cluster,
) -> None:
    servers = FaultyServers()
    with opened(cluster, disk=servers, lock_timeout=1) as store:
        # The answer to the object's PUT is lost for ever: a worker died there, say.
        servers.faults.fail("put_object", errno.ECONNRESET, after=True, forever=True)
        with pytest.raises(ObjectStoreError):
            store.store_segment(segment(1, LARGE, "id"))
        servers.faults.clear()
        store.expire()
        assert len(keys(cluster)) == 1  # its worker may be at it still
        sql(cluster, "UPDATE part SET registered_at = registered_at - interval '2 h'")
        store.expire()
        assert keys(cluster) == []
        assert sql(cluster, "SELECT count(*) FROM part") == [(0,)]


def test_an_object_that_nothing_speaks_of_goes(cluster: Cluster) -> None:
    with opened(cluster) as store:
        store.store_segment(segment(1, LARGE, "id"))
        [part] = keys(cluster)
        s3_client(cluster.addresses.endpoint).put_object(
            Bucket=BUCKET, Key=f"{cluster.place}/.txstore/staging/{uuid.uuid4().hex}", Body=b"late"
        )
        store.expire()
        assert keys(cluster) == [part]


def test_room_is_made_before_anything_is_refused(cluster: Cluster) -> None:
    with opened(cluster, limits=Limits(max_transfers=1)) as store:
        store.store_segment(segment(1, b"a", "first"))
        with pytest.raises(LimitError):
            store.store_segment(segment(1, b"a", "second"))
    with opened(cluster, limits=Limits(max_transfers=1), expire_after=0) as store:
        store.store_segment(segment(1, b"a", "second"))
        assert [one.file_id for one in store.transfers()] == ["second"]


def test_events_go_when_their_time_has_passed_and_nobody_needs_them(cluster: Cluster) -> None:
    with opened(cluster, keep_events=0, max_events=4) as store:
        with store.events("reader") as events:
            assert next(events, None) is None
        for number in range(3):
            store.store_segment(Transfer("file", (b"%d" % number,)).message(1))
        store.expire()
        assert [one.sequence for one in store.events()] == [1, 2, 3]
        with store.events("reader") as events:
            next(events).done()
        store.expire()
        assert [one.sequence for one in store.events()] == [2, 3]
        for number in range(5):
            store.store_segment(Transfer("file", (b"%d" % number,)).message(1))
        store.expire()
        assert [one.sequence for one in store.events()] == [5, 6, 7, 8]
        [reader] = store.consumers()
        assert (reader.cursor, reader.behind, reader.lost) == (1, 4, 3)


def test_late_consumers_are_told_of_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    def told(number: int) -> list[str]:
        """What is logged while two more events come."""
        caplog.clear()
        for one in range(2):
            store.store_segment(Transfer("file", (b"%d %d" % (number, one),)).message(1))
        return caplog.messages

    with opened(cluster, keep_events=0, max_events=3) as store:
        with store.events("reader") as events:
            assert next(events, None) is None
        assert ["is 1 events behind" in one for one in told(0)] == [True]
        assert ["never saw 1 events" in one for one in told(1)] == [True]
        assert told(2) == []
        with store.events("reader") as events:
            [*events][-1].done()
        assert told(3) != []
