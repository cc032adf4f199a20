"""A signal handler that raises while a store over servers is at work."""

from __future__ import annotations

import pytest
from cluster_servers import Cluster
from sqlalchemy.engine.default import DefaultExecutionContext

from txstore import FileStoreManager
from txstore.testing import FaultyServers, Transfer, segment


class _Alarm:
    """Raises, as an alarm's handler would, at the nth call to the servers."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, _call: str, _about: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise TimeoutError("the alarm")


@pytest.mark.promise(7)
@pytest.mark.parametrize("number", [1, 2], ids=["first and last", "last of two"])
def test_what_a_handler_raises_comes_out_wherever_it_strikes(cluster: Cluster, number: int) -> None:
    """At each call of a last segment, and of the clean-up after it."""
    servers, nth, came_out = FaultyServers(), 0, 0
    while came_out == nth:
        nth += 1
        transfer = Transfer("file", (b"bytes",) * number, f"id-{nth}")
        with FileStoreManager(cluster.storage_dir, cluster.working_dir) as other:
            other.store_segment(segment(1, b"to expire", f"old-{nth}"))
            for before in range(1, number):
                other.store_segment(transfer.message(before))
        with FileStoreManager(
            cluster.storage_dir, cluster.working_dir, disk=servers, expire_after=0
        ) as store:
            servers.faults.watch = alarm = _Alarm(nth)
            try:
                store.store_segment(transfer.message(number))
            except TimeoutError:
                came_out += 1
            servers.faults.watch = None
            assert (came_out == nth) == (alarm.left <= 0), f"ignored at call {nth}"
            store.expire()  # the same manager goes on
    assert came_out > 10


class _SoftTimeLimitError(Exception):
    pass


def _raise(_: object) -> None:
    raise _SoftTimeLimitError


@pytest.mark.promise(7)
def test_what_a_handler_raises_comes_out_where_a_library_wraps_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy takes for an error of a statement what is raised while it is made ready."""
    with FileStoreManager(cluster.storage_dir, cluster.working_dir) as store:
        store.store_segment(segment(1, b"bytes", "id"))
        with monkeypatch.context() as struck:
            struck.setattr(DefaultExecutionContext, "create_cursor", _raise)
            with pytest.raises(_SoftTimeLimitError):
                store.store_segment(segment(2, b"bytes", "id"))
        assert store.store_segment(segment(2, b"bytes", "id")).segments_received == 2
