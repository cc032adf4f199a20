"""``on_exists="refuse"`` over many hosts, exactly against two finishers."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from cluster_servers import Cluster

from txstore import FileStoreManager
from txstore.errors import NameTakenError
from txstore.testing import FaultyServers, Transfer


def test_a_name_is_given_once_whoever_asks(
    cluster: Cluster, at_once: Callable[..., list[Any]]
) -> None:
    several = [Transfer("file", (b"%d" % n, b"end"), f"id-{n}") for n in range(4)]
    with FileStoreManager(cluster.storage_dir, cluster.working_dir, on_exists="refuse") as store:
        for one in several:
            store.store_segment(one.message(1))

        def finish(one: Transfer) -> str | None:
            try:
                return store.store_segment(one.message(2)).file_result
            except NameTakenError:
                return "refused"

        answers = at_once(finish, several)
        assert sorted(map(str, answers)) == ["refused", "refused", "refused", "store"]
        assert len(list(store.events())) == 1
        assert store.count_transfers() == 3
        winner = several[answers.index("store")]
        assert store.store_segment(winner.message(2)).file_result == "store"


@pytest.mark.parametrize("segments", [1, 2])
def test_a_file_is_not_refused_because_of_itself(cluster: Cluster, segments: int) -> None:
    servers = FaultyServers()
    with FileStoreManager(
        cluster.storage_dir, cluster.working_dir, on_exists="refuse", disk=servers
    ) as store:
        one = Transfer("file", (b"bytes",) * segments, "id")
        for number in range(1, segments):
            store.store_segment(one.message(number))
        servers.faults.fail("complete_multipart_upload", errno.ECONNRESET, after=True)
        assert store.store_segment(one.message(segments)).file_result == "store"
        assert store.store_segment(one.message(segments)).file_result == "store"
        with pytest.raises(NameTakenError):
            store.store_segment(Transfer("file", (b"other",), "other").message(1))
