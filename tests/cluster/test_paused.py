"""Workers that are paused for longer than others wait, and come back: zombies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cluster_servers import BUCKET, Cluster, s3_client

from txstore import FileStoreManager
from txstore.testing import FaultyServers, Message, Transfer, segment

OLD = Transfer("file", (b"old, ", b"of two segments"), "old")
WHOLE = Transfer("file", (b"old, of one segment",), "whole")
NEWER = Transfer("file", (b"newer",), "newer")


@pytest.fixture
def paused(cluster: Cluster) -> Iterator[tuple[FileStoreManager, FaultyServers]]:
    """A worker whose turns PostgreSQL ends soon."""
    servers = FaultyServers()
    with FileStoreManager(
        cluster.storage_dir, cluster.working_dir, lock_timeout=0.6, disk=servers
    ) as store:
        yield store, servers


@pytest.fixture
def other(cluster: Cluster) -> Iterator[FileStoreManager]:
    """One that is patient."""
    with FileStoreManager(cluster.storage_dir, cluster.working_dir, lock_timeout=20) as store:
        yield store


def before_first(servers: FaultyServers, call: str, meanwhile: Callable[[], object]) -> None:
    """Have something happen right before the next call of a kind."""

    def watch(made: str, _about: str) -> None:
        if made == call:
            servers.faults.watch = None
            meanwhile()

    servers.faults.watch = watch


def stored(cluster: Cluster) -> bytes:
    client = s3_client(cluster.addresses.endpoint)
    body: bytes = client.get_object(Bucket=BUCKET, Key=f"{cluster.place}/file")["Body"].read()
    return body


def finally_(transfer: Transfer) -> Message:
    """The last message of a transfer."""
    return transfer.message(len(transfer.segments))


CALLS = ["head_object", "create_multipart_upload", "upload_part", "complete_multipart_upload"]


PATHS = [
    *((OLD, True, call) for call in (*CALLS, "commit")),
    *((OLD, False, call) for call in ("head_object", "complete_multipart_upload")),
    *((WHOLE, True, call) for call in (*CALLS, "commit")),
    *((WHOLE, False, call) for call in ("head_object", "put_object", "commit")),
]


@pytest.mark.parametrize(
    ("transfer", "before", "call"),
    PATHS,
    ids=[f"{one.file_id}-{'replaced' if before else 'new'}-{call}" for one, before, call in PATHS],
)
def test_an_older_one_never_comes_back_over_a_newer_acknowledged_one(
    cluster: Cluster,
    paused: tuple[FileStoreManager, FaultyServers],
    other: FileStoreManager,
    transfer: Transfer,
    before: bool,
    call: str,
) -> None:
    """While a worker is paused, the sender asks another one, and a newer file is acknowledged."""
    store, servers = paused
    if before:
        other.store_segment(Transfer("file", (b"oldest",), "oldest").message(1))
    for number in range(1, len(transfer.segments)):
        other.store_segment(transfer.message(number))

    def meanwhile() -> None:
        other.store_segment(finally_(transfer))
        other.store_segment(NEWER.message(1))

    before_first(servers, call, meanwhile)
    try:
        answer = store.store_segment(finally_(transfer))
    except OSError:  # it was paused for longer than its call may take
        answer = other.store_segment(finally_(transfer))
    assert answer.file_result == "store"
    assert servers.faults.watch is None, "nothing happened meanwhile"
    assert stored(cluster) == b"newer"
    kinds = [(one.kind, one.file_id) for one in other.events() if one.file_id != "oldest"]
    assert kinds == [("stored", transfer.file_id), ("stored", "newer")]


@pytest.mark.parametrize("call", [*CALLS, "commit"])
def test_what_was_cancelled_meanwhile_never_appears(
    cluster: Cluster,
    paused: tuple[FileStoreManager, FaultyServers],
    other: FileStoreManager,
    call: str,
) -> None:
    store, servers = paused
    other.store_segment(NEWER.message(1))
    other.store_segment(OLD.message(1))
    before_first(servers, call, lambda: other.cancel("old"))
    with pytest.raises((OSError, ValueError)):
        store.store_segment(OLD.message(2))
    with pytest.raises(ValueError, match="Start at segment 1"):
        other.store_segment(OLD.message(2))
    assert stored(cluster) == b"newer"
    assert [(one.kind, one.file_id) for one in other.events()][1:] == [("cancelled", "old")]


def test_a_part_that_comes_too_late_is_nobodys(
    cluster: Cluster, paused: tuple[FileStoreManager, FaultyServers], other: FileStoreManager
) -> None:
    store, servers = paused
    half = b"x" * (4 * 1024**2)
    for number in (1, 2):
        store.store_segment(segment(number, half, "id"))

    def meanwhile() -> None:
        for number in (3, 4, 5):
            other.store_segment(segment(number, half, "id"))

    before_first(servers, "put_object", meanwhile)
    with pytest.raises((OSError, ValueError)):
        store.store_segment(segment(3, b"another", "id"))
    last = Transfer("file", (*[half] * 5, b"end"), "id").message(6)
    assert other.store_segment(last).file_result == "store"
    assert stored(cluster) == half * 5 + b"end"


def test_two_finishers_under_one_name_take_turns(
    cluster: Cluster, other: FileStoreManager, at_once: Callable[..., list[object]]
) -> None:
    transfers = [Transfer("file", (b"first",), f"id-{n}") for n in range(6)]
    for transfer in transfers:
        other.store_segment(segment(1, b"first", transfer.file_id))

    def finish(transfer: Transfer) -> object:
        both = Transfer("file", (b"first", str(transfer.file_id).encode()), transfer.file_id)
        return other.store_segment(both.message(2)).file_result

    assert at_once(finish, transfers) == ["store"] * 6
    last = [one.file_id for one in other.events()][-1]
    assert stored(cluster) == b"first" + str(last).encode()
