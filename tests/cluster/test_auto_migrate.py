"""Tables are made by the first worker, or refused with the command that makes them."""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys

import psycopg
import pytest
from cluster_servers import PASSWORD, own_cluster

from txstore import FileStoreManager
from txstore.errors import JournalOutdatedError


@pytest.mark.promise(8)
def test_tables_are_made_by_the_command_that_the_refusal_tells() -> None:
    with own_cluster() as cluster:
        with pytest.raises(JournalOutdatedError) as refused:
            FileStoreManager(cluster.storage_dir, cluster.working_dir, auto_migrate=False)
        error = pickle.loads(pickle.dumps(refused.value))
        assert error.found is None
        assert PASSWORD not in str(error)
        with psycopg.connect(cluster.working_dir) as connection:
            [[count]] = connection.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
        assert count == 0
        assert cluster.keys() == []
        alembic, *words = shlex.split(error.command)
        assert alembic == "alembic"
        subprocess.run(
            [sys.executable, "-m", "alembic", *words],
            check=True,
            env={**os.environ, "PGPASSWORD": PASSWORD},
        )
        with FileStoreManager(
            cluster.storage_dir, cluster.working_dir, auto_migrate=False
        ) as store:
            assert store.count_transfers() == 0
