"""A limit is exact, however many workers take the last place at the same moment."""

from __future__ import annotations

import threading

import pytest
from cluster_search import PausedServers
from cluster_servers import Cluster
from crew import wait_for
from support import outcome

from txstore import FileStoreManager
from txstore.errors import LimitError
from txstore.limits import Limits
from txstore.testing import segment

WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "limits", [Limits(max_transfers=1), Limits(max_unfinished_bytes=6)], ids=["transfers", "bytes"]
)
def test_the_last_place_is_taken_once(cluster: Cluster, limits: Limits) -> None:
    where, servers, told = (cluster.storage_dir, cluster.working_dir), PausedServers(), []

    def begin(store: FileStoreManager, file_id: str) -> None:
        told.append(outcome(store.store_segment, segment(1, b"12345", file_id)))

    with (
        FileStoreManager(*where, limits=limits, disk=servers) as first,
        FileStoreManager(*where, limits=limits) as second,
    ):
        servers.pause_at(1, after=False)  # its commit
        threads = [
            threading.Thread(target=begin, args=(store, file_id))
            for store, file_id in ((first, "a"), (second, "b"))
        ]
        threads[0].start()
        assert servers.reached.wait(60)
        threads[1].start()
        # It waits, or it is through, which the limit forbids.
        wait_for(lambda: bool(cluster.rows(WAITING)) or bool(told))
        servers.go_on.set()
        for one in threads:
            one.join(60)
        assert [isinstance(one, LimitError) for one in told] == [False, True], told
        assert [one.file_id for one in second.transfers()] == ["a"]
