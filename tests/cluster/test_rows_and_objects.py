"""Rows against objects: what ``check`` finds, and what it does not."""

from __future__ import annotations

import hashlib
from typing import Any

import psycopg
import pytest
from cluster_servers import BUCKET, Cluster, fresh_cluster, s3_client

from txstore import FileStoreManager
from txstore.checks import Finding
from txstore.inspection import StoreInspector
from txstore.testing import FaultPlan, FaultyServers, Transfer, segment

LARGE = b"x" * (8 * 1024**2)


@pytest.fixture
def store(cluster: Cluster) -> Any:
    """A store with a bit of everything, that is right."""
    with FileStoreManager(cluster.storage_dir, cluster.working_dir) as store:
        store.store_segment(segment(1, LARGE, "with a part"))
        store.store_segment(segment(2, b"and a tail", "with a part"))
        store.store_segment(segment(1, b"only a tail", "small"))
        store.store_segment(Transfer("stored", (b"bytes",), "stored").message(1))
        store.store_segment(Transfer("sub/stored", (b"bytes",), "below").message(1))
        yield store


def inspected(cluster: Cluster) -> StoreInspector:
    return FileStoreManager.inspect(cluster.storage_dir, cluster.working_dir)


def found(cluster: Cluster, *, deep: bool = False) -> list[tuple[str, object]]:
    return [
        (one.kind, one.facts.get("file_id") or one.facts.get("name") or one.facts.get("path"))
        for one in inspected(cluster).check(deep=deep)
    ]


def sql(cluster: Cluster, statement: str) -> Any:
    with psycopg.connect(cluster.working_dir, autocommit=True) as connection:
        return connection.execute(statement.encode())


def put(cluster: Cluster, name: str, data: bytes, **more: Any) -> None:
    s3_client(cluster.addresses.endpoint).put_object(
        Bucket=BUCKET, Key=f"{cluster.place}/{name}", Body=data, **more
    )


def part(cluster: Cluster) -> str:
    (key,) = psycopg.connect(cluster.working_dir).execute("SELECT key FROM part").fetchall()[0]
    return str(key)


@pytest.mark.usefixtures("store")
def test_nothing_is_wrong_with_a_store_that_is_right(cluster: Cluster) -> None:
    assert found(cluster) == found(cluster, deep=True) == []
    totals = inspected(cluster).totals()
    assert (totals.transfers, totals.bytes) == (2, len(LARGE) + 21)
    assert totals.free is None


def test_where_no_store_is_there_is_nothing_made() -> None:
    with fresh_cluster(new=True) as cluster:
        with pytest.raises(FileNotFoundError):
            inspected(cluster)
        assert cluster.rows("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


@pytest.mark.usefixtures("store")
def test_parts_that_are_gone_or_changed_are_found(cluster: Cluster) -> None:
    key = part(cluster)
    put(cluster, key, b"y" * len(LARGE))
    assert found(cluster) == [("transfer-changed", "with a part")]
    s3_client(cluster.addresses.endpoint).delete_object(Bucket=BUCKET, Key=f"{cluster.place}/{key}")
    assert found(cluster) == [("transfer-missing", "with a part")]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM part", "0 of 1 parts"),
        ("UPDATE part SET size = 1", "1 of 8388608 bytes"),
        ("DELETE FROM tail WHERE number = 2", "0 of 10 bytes"),
        (
            "UPDATE transfer SET state = (SELECT state FROM transfer WHERE file_id = 'small')",
            "its hash",
        ),
    ],
)
@pytest.mark.usefixtures("store")
def test_rows_that_cannot_be_are_found(cluster: Cluster, statement: str, problem: str) -> None:
    sql(cluster, statement)
    kinds = [(one.kind, problem in one.meaning) for one in inspected(cluster).check()]
    assert ("transfer-row", True) in kinds


@pytest.mark.usefixtures("store")
def test_a_tail_that_was_changed_is_found(cluster: Cluster) -> None:
    sql(cluster, "UPDATE tail SET data = 'ONLY a tail' WHERE number = 1")
    assert found(cluster) == []
    assert found(cluster, deep=True) == [("transfer-changed", "small")]


def test_stored_files_that_are_gone_or_changed_are_found(
    cluster: Cluster, store: FileStoreManager
) -> None:
    client = s3_client(cluster.addresses.endpoint)
    client.delete_object(Bucket=BUCKET, Key=f"{cluster.place}/stored")
    there = client.head_object(Bucket=BUCKET, Key=f"{cluster.place}/sub/stored")
    put(cluster, "sub/stored", b"BYTES", Metadata=there["Metadata"])
    assert found(cluster) == [("stored-missing", "stored")]
    assert found(cluster, deep=True)[1:] == [("stored-damaged", "sub/stored")]
    put(cluster, "sub/stored", b"bytes")
    assert found(cluster)[1:] == [("stored-changed", "sub/stored")]
    store.store_segment(Transfer("sub/stored", (b"newer",), "newer").message(1))
    assert found(cluster) == [("stored-missing", "stored")]


def test_orphans_are_found_and_removed(cluster: Cluster, store: FileStoreManager) -> None:
    put(cluster, ".txstore/staging/orphan", b"bytes")
    [orphan] = inspected(cluster).check()
    assert (orphan.kind, orphan.facts["size"]) == ("orphan", 5)
    kept = Finding("orphan", {"path": part(cluster), "size": 1})
    assert not store.repair(kept)
    assert store.repair(orphan)
    assert found(cluster) == []


@pytest.mark.usefixtures("store")
def test_servers_that_do_not_belong_together_are_found(cluster: Cluster) -> None:
    marker = ".txstore/store"
    s3_client(cluster.addresses.endpoint).delete_object(
        Bucket=BUCKET, Key=f"{cluster.place}/{marker}"
    )
    [missing] = inspected(cluster).check()
    assert missing.kind == "marker-missing"
    put(cluster, marker, b"", Metadata={"txstore-token": "another"})
    assert found(cluster) == [("folders-mismatched", None)]


@pytest.mark.usefixtures("store")
def test_looking_writes_nothing(cluster: Cluster) -> None:
    plan = FaultPlan(keep_history=True)
    looked = FileStoreManager.inspect(
        cluster.storage_dir, cluster.working_dir, disk=FaultyServers(plan)
    )
    before = hashlib.sha256(repr(sql(cluster, "SELECT * FROM transfer").fetchall()).encode())
    assert list(looked.check(deep=True)) == []
    after = hashlib.sha256(repr(sql(cluster, "SELECT * FROM transfer").fetchall()).encode())
    assert before.digest() == after.digest()
    assert plan.history is not None
    made = {call for call, _ in plan.history if "object" in call}
    assert made <= {"head_object", "get_object", "list_objects_v2"}


@pytest.mark.usefixtures("store")
def test_an_object_whose_bytes_are_not_those_of_its_hash_is_damaged(cluster: Cluster) -> None:
    """What the disks of an object store may do, as far as that does not see it itself."""
    client = s3_client(cluster.addresses.endpoint)
    key = f"{cluster.place}/stored"
    metadata = client.head_object(Bucket=BUCKET, Key=key)["Metadata"]
    put(cluster, "stored", b"BYTES", Metadata=metadata)
    put(cluster, "stranger", b"bytes")
    told = {one.name: one.found and one.found.kind for one in inspected(cluster).verify()}
    assert told == {"stored": "stored-damaged", "sub/stored": None}
    [stranger] = inspected(cluster).verify(["stranger"])
    assert stranger.found is not None
    assert stranger.found.kind == "stored-unknown"
