"""The turn of a consumer, over connections of its own."""

from __future__ import annotations

import json

import psycopg
import pytest
from cli_driver import run
from cluster_servers import Cluster

from txstore import FileStoreManager
from txstore.errors import JournalError, LockTimeoutError, UnknownConsumerError
from txstore.testing import Transfer


@pytest.fixture
def store(cluster: Cluster) -> FileStoreManager:
    store = FileStoreManager(cluster.storage_dir, cluster.working_dir, lock_timeout=5)
    for number in range(3):
        store.store_segment(Transfer(f"file-{number}", (b"bytes",)).message(1))
    return store


def test_one_at_a_time_has_the_turn(store: FileStoreManager, cluster: Cluster) -> None:
    with FileStoreManager(cluster.storage_dir, cluster.working_dir, lock_timeout=0.3) as other:
        mine = store.events("reader")
        assert next(mine).sequence == 1
        with pytest.raises(LockTimeoutError):
            next(other.events("reader"))
        next(mine).done()
        mine.close()
        theirs = other.events("reader")
        assert [one.sequence for one in theirs] == [3]
        theirs.close()
    store.close()


def test_a_turn_ends_with_its_connection_and_is_taken_anew(
    store: FileStoreManager, cluster: Cluster
) -> None:
    events = store.events("reader", follow=True)
    first = next(events)
    events._batch.clear()
    with psycopg.connect(cluster.working_dir, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(JournalError):
        next(events)
    # What was handed out and is not done with comes again.
    assert next(events).sequence == first.sequence
    events.close()
    store.close()


def test_a_consumer_that_is_removed_begins_anew(store: FileStoreManager) -> None:
    with store.events("reader") as events:
        last = [*events][-1]
        last.done()
    assert [(one.name, one.cursor, one.behind) for one in store.consumers()] == [("reader", 3, 0)]
    assert store.remove_consumer("reader")
    assert not store.remove_consumer("reader")
    with pytest.raises(UnknownConsumerError):
        last.done()
    with store.events("reader") as events:
        assert [one.sequence for one in events] == [1, 2, 3]
    store.close()


def test_the_command_lists_and_forgets_them(store: FileStoreManager, cluster: Cluster) -> None:
    where = ("--storage-dir", cluster.storage_dir, "--working-dir", cluster.working_dir)
    with store.events("index") as feed:
        next(feed)
    asked = ("events", *where, "--consumers", "--json")
    told = json.loads(run(*asked).stdout)
    assert (told["name"], told["cursor"], told["behind"]) == ("index", 0, 3)
    shown = run("events", *where, "--forget", "index")
    assert shown.stdout == "index: forgotten; it was 3 events behind.\n"
    assert run(*asked).stdout == ""
    assert store.consumers() == []
