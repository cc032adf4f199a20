"""Connections are cut on the wire, calls are never answered: nobody is told what is not so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from cluster_servers import Cluster
from fault_proxy import Plan, proxied

from txstore import FileStoreManager
from txstore.cluster import cleaning
from txstore.testing import Transfer

LARGE = bytes(range(256)) * (21 * 1024)


class Wire(NamedTuple):
    """A worker whose calls go through proxies, and another who needs none."""

    cluster: Cluster
    worker: FileStoreManager
    other: FileStoreManager
    postgres: Plan
    objects: Plan


@pytest.fixture
def wire(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    # Cleaning up by itself makes calls at times that nobody knows.
    monkeypatch.setattr(cleaning, "_INTERVAL", math.inf)
    with proxied(cluster.addresses) as (addresses, postgres, objects):
        through = cluster._replace(addresses=addresses)
        where = [f"{one.storage_dir}&part_size=5MiB" for one in (cluster, through)]
        with (
            FileStoreManager(where[0], cluster.working_dir, lock_timeout=20) as other,
            FileStoreManager(where[1], through.working_dir, lock_timeout=20) as worker,
        ):
            yield Wire(cluster, worker, other, postgres, objects)


SMALL = Transfer("folder/file", (b"one", b"two", b"three"), "several")
WHOLE = Transfer("folder/file", (b"whole",), "whole")
PARTS = Transfer("folder/file", (LARGE, b"tail", LARGE, b"end"), "parts")


@pytest.mark.parametrize("what", ["cut before", "cut after"])
@pytest.mark.parametrize("sent", [SMALL, WHOLE], ids=lambda one: one.file_id)
def test_a_commit_that_is_cut_is_found_out(wire: Wire, sent: Transfer, what: str) -> None:
    Transfer(sent.name, (b"older",), "older").send(wire.other)
    wire.postgres.calls.clear()
    sent.send(wire.worker)
    commits = wire.postgres.calls.count("COMMIT")
    assert commits >= len(sent.segments)
    for nth in range(1, commits + 1):
        trouble = wire.postgres.add("COMMIT", what, nth=nth)
        again = Transfer(sent.name, sent.segments, f"{sent.file_id}{nth}")
        answer = again.send(wire.worker)
        assert trouble.seen >= nth
        assert answer.segments_received == len(sent.segments)
        assert wire.cluster.files() == {sent.name: sent.content}
    ended = [(one.kind, one.file_id) for one in wire.other.events()][2:]
    assert ended == [("stored", f"{sent.file_id}{nth}") for nth in range(1, commits + 1)]
    assert wire.other.transfers() == []


@pytest.mark.parametrize(
    ("call", "what", "times"),
    [
        ("complete_multipart_upload", "cut after", 1),
        ("complete_multipart_upload", "cut before", 1),
        ("complete_multipart_upload", 500, 2),
        ("create_multipart_upload", "cut after", 1),
        ("upload_part_copy", 503, 3),
        ("upload_part", "cut after", 1),
        ("put_object", "cut after", 1),
        ("put_object", 503, 2),
        ("head_object", "delayed", 1),
        ("delete_objects", "cut after", 1),
    ],
)
def test_trouble_of_the_object_store_is_not_told_where_it_passes(
    wire: Wire, call: str, what: str | int, times: int
) -> None:
    trouble = wire.objects.add(call, what, times=times)
    answer = PARTS.send(wire.worker)
    assert answer.segments_received == len(PARTS.segments)
    assert trouble.seen >= 1
    assert wire.cluster.files() == {PARTS.name: PARTS.content}
    assert [one.kind for one in wire.other.events()] == ["stored"]
    assert PARTS.send(wire.other, first=4).to_dict() == answer.to_dict()


@pytest.mark.parametrize("server", ["PostgreSQL", "the object store"])
def test_a_server_that_never_answers_is_an_error_in_time_and_nothing_is_lost(
    wire: Wire, server: str
) -> None:
    SMALL.send(wire.other)
    cluster = wire.cluster
    with proxied(cluster.addresses) as (addresses, postgres, objects):
        through = cluster._replace(addresses=addresses)
        with FileStoreManager(
            through.storage_dir, through.working_dir, lock_timeout=1.5
        ) as impatient:
            if server == "PostgreSQL":
                postgres.add("", "never answered", times=1000)
            else:
                objects.add("", "never answered", times=1000)
            with pytest.raises(OSError) as caught:  # noqa: PT011 - whatever it is called
                Transfer(SMALL.name, (b"newer",), "newer").send(impatient)
            assert caught.value.errno is not None
            postgres.over.set()
            objects.over.set()
    assert Transfer(SMALL.name, (b"newer",), "newer").send(wire.other).file_result == "store"
    assert cluster.files() == {SMALL.name: b"newer"}
