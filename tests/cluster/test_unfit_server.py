"""A server that does not keep what it confirms is refused: no level is lowered silently."""

from __future__ import annotations

import psycopg
import pytest
from cluster_servers import Addresses, Cluster, Postgres, own_cluster, scratch_folder

from txstore import FileStoreManager
from txstore.errors import UnfitServerError


@pytest.mark.promise(1)
def test_a_server_that_a_power_loss_takes_confirmed_commits_from_is_refused() -> None:
    with own_cluster() as cluster, scratch_folder() as folder:
        server = Postgres(folder / "postgres", fsync="off")
        try:
            server.start()
            addresses = Addresses(server.address, cluster.addresses.endpoint)
            unfit = Cluster(cluster.place, "postgres", addresses)
            for level in ("segment", "file"):
                with pytest.raises(UnfitServerError) as refused:
                    FileStoreManager(unfit.storage_dir, unfit.working_dir, durability=level)
                assert refused.value.settings == ["fsync"]
            with psycopg.connect(unfit.working_dir) as connection:
                [[tables]] = connection.execute(
                    "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
                ).fetchall()
            assert tables == 0, "what was refused left something"
            FileStoreManager(unfit.storage_dir, unfit.working_dir, durability="none").close()
        finally:
            server.stop()
