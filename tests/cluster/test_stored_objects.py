"""Objects of a bucket that are read as stored files."""

from __future__ import annotations

from cluster_servers import BUCKET, Cluster, s3_client

from txstore import FileStoreManager
from txstore.testing import Transfer

LARGE = bytes(range(251)) * 20_000  # more than is read at once


def test_the_stores_own_objects_are_no_files_and_those_of_others_are(cluster: Cluster) -> None:
    with FileStoreManager(cluster.storage_dir, cluster.working_dir) as store:
        client = s3_client(cluster.addresses.endpoint)
        for key in ("-before", ".txstore/staging/0", "folder/", "zz"):
            client.put_object(Bucket=BUCKET, Key=f"{cluster.place}/{key}", Body=b"by hand")
        store.store_segment(Transfer("file", (LARGE,)).message(1))
        for limit in (1, 2, None):
            found, after = list[str](), None
            while names := [one.name for one in store.stored(after, limit)]:
                found += names
                after = names[-1]
            assert found == ["-before", "file", "zz"]
        for name, known in (("zz", False), ("file", True)):
            opened = store.open_stored(name)
            opened.file.close()
            assert (opened.sha256 is not None) == known


def test_a_large_object_that_is_replaced_while_it_is_read_is_told(cluster: Cluster) -> None:
    with FileStoreManager(cluster.storage_dir, cluster.working_dir) as store:
        store.store_segment(Transfer("file", (LARGE,)).message(1))
        with store.open_stored("file").file as file:
            assert file.read() == LARGE
        opened = store.open_stored("file")
        with opened.file as file:
            assert file.read(10) == LARGE[:10]
            store.store_segment(Transfer("file", (b"x" * len(LARGE),)).message(1))
            rest = file.read()
            assert LARGE[10:].startswith(rest)
            assert len(rest) < len(LARGE) - 10
            assert opened.changed()
