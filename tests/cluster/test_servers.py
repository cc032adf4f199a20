"""The servers that tests of many hosts share: begun when first needed, gone with the last user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
from cluster_servers import BUCKET, Addresses, Cluster, fresh_cluster, s3_client
from crew import wait_for

USER = """
import os, sys
from cluster_servers import shared_servers
print(*shared_servers(), flush=True)
sys.stdin.read()
"""


class User:
    """A process that needs the servers until it is killed."""

    def __init__(self, run: str) -> None:
        path = os.pathsep.join(sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER],
            env={**os.environ, "PYTHONPATH": path, "PYTEST_XDIST_TESTRUNUID": run},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def addresses(self) -> Addresses:
        assert self.process.stdout is not None
        return Addresses(*self.process.stdout.readline().split())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_one_pair_serves_all_processes_and_goes_with_the_last(tmp_path: Path) -> None:
    users = [User(tmp_path.name) for _ in range(3)]
    first, *others = [user.addresses() for user in users]
    assert others == [first, first]
    for user in users[:2]:
        user.kill()
    psycopg.connect(first.database("postgres")).close()
    users[2].kill()
    folder = Path(first.postgres).parent.parent
    wait_for(lambda: not folder.exists())
    listening = Path("/proc/net/tcp").read_text(encoding="ascii")
    assert f":{int(first.endpoint.rpartition(':')[2]):04X} 00000000:0000 0A" not in listening


def test_each_test_has_a_database_and_a_place_of_its_own(cluster: Cluster) -> None:
    with psycopg.connect(cluster.working_dir) as connection:
        [[database]] = connection.execute("SELECT current_database()").fetchall()
    assert database == cluster.name
    assert cluster.storage_dir.startswith(f"s3://{BUCKET}/{cluster.place}?")
    with fresh_cluster() as other:
        client = s3_client(cluster.addresses.endpoint)
        client.put_object(Bucket=BUCKET, Key=f"{cluster.place}/key", Body=b"content")
        assert (cluster.files(), other.files()) == ({"key": b"content"}, {})
        assert other.name != cluster.name


def test_a_database_has_no_rows_when_it_is_used_again() -> None:
    with fresh_cluster() as first, psycopg.connect(first.working_dir) as connection:
        connection.execute("CREATE TABLE numbers (number int)")
        connection.execute("INSERT INTO numbers VALUES (1)")
        connection.commit()
    with fresh_cluster() as second:
        assert second.name == first.name
        assert second.rows("SELECT * FROM numbers") == []
        with psycopg.connect(second.working_dir) as connection:
            connection.execute("DROP TABLE numbers")
