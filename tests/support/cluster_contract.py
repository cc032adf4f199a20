"""``StoreContract`` over a cluster: the rules are the same, what fails are two servers."""

from __future__ import annotations

import posixpath

from cluster_servers import fresh_cluster

from txstore import FileStoreManager
from txstore.testing import Claims, Setup, StoreContract
from txstore.testing.checking import Seen
from txstore.testing.servers import FaultyServers
from txstore.testing.strategies import server_crashes, server_errors


class ClusterContract(StoreContract):
    """Stores over one place in an object store and one database.

    :ivar cluster: where they are
    """

    claims = Claims.everything()
    new_disk = FaultyServers
    errors = server_errors()
    crashes = replacing = server_crashes()

    def __init__(self) -> None:
        self._fresh = fresh_cluster()
        self.cluster = self._fresh.__enter__()
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        self._fresh.__exit__(None, None, None)

    def open_store(self, setup: Setup) -> FileStoreManager:
        storage_dir, working_dir = self.cluster.storage_dir, self.cluster.working_dir
        return FileStoreManager(storage_dir, working_dir, lock_timeout=2, disk=setup.disk)

    def seen(self) -> Seen:
        files = self.cluster.files()
        folders = set[str]()
        for path in files:
            while path := posixpath.dirname(path):
                folders.add(path)
        return Seen(files, folders)
