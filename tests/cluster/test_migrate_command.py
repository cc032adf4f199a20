"""``txstore migrate``, as an operator meets it: real processes, real servers, and kills."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from cli_driver import KILL, after_ack, run, run_process, start
from cluster_servers import own_cluster, own_pair

from txstore import FileStoreManager
from txstore.errors import StoreMovedError

#: Kills the command before it makes a request that changes something.
AT_REQUEST = """
import os, signal
from txstore.cluster.servers import Servers
asked, real = [], Servers.request
def request(self, client, call, arguments):
    if call == {call!r}:
        asked.append(call)
        if len(asked) == {number}:
            os.kill(os.getpid(), signal.SIGKILL)
    return real(self, client, call, arguments)
Servers.request = request
"""


def test_an_operator_moves_a_store_with_kills_on_the_way(tmp_path: Path) -> None:
    source = tmp_path / "big.iso"
    source.write_bytes(os.urandom(1 << 20) * 20)
    small = tmp_path / "small.txt"
    small.write_text("small")
    here, back = tmp_path / "here", tmp_path / "back"
    with own_pair() as pair:
        cluster = pair.cluster()
        local = ("--storage-dir", here)
        servers = ("--storage-dir", cluster.storage_dir, "--working-dir", cluster.working_dir)
        run("put", small, *local)
        # A sender dies in the middle of a file.
        died = start("put", source, *local, setup=after_ack(9, KILL))
        died.communicate()
        assert died.returncode == -signal.SIGKILL
        there = ("--to-storage-dir", cluster.storage_dir, "--to-working-dir", cluster.working_dir)
        dry = json.loads(run_process("migrate", *local, *there, "--dry-run", "--json").stdout)
        assert (dry["files"], dry["transfers"]) == (1, 1)
        assert cluster.keys() == []
        killed = start(
            "migrate", *local, *there, setup=AT_REQUEST.format(call="put_object", number=5)
        )
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        for place in (local, servers):
            refused = run("put", small, *place, code=1)
            assert "txstore migrate" in refused.output
            assert "the same command goes on from there" not in refused.output
        done = json.loads(run_process("migrate", *local, *there, "--json").stdout)
        assert done["there"]["transfers"] == done["copied"]["transfers"] == 1
        assert done["there"]["files"] == 1
        assert "Nothing was done" in run_process("migrate", *local, *there).stdout
        # The sender goes on with its next segment, on a host that dies; and so does PostgreSQL.
        died = start("put", source, *servers, setup=after_ack(5, KILL))
        died.communicate()
        assert died.returncode == -signal.SIGKILL
        pair.postgres.kill()
        pair.postgres.start()
        stored = json.loads(run_process("put", source, *servers, "--json").stdout)
        assert stored["status"] == "stored"
        assert stored["sent"] <= stored["size"] - (14 << 20)
        assert cluster.files() == {"big.iso": source.read_bytes(), "small.txt": b"small"}
        # And back.
        to = ("--to-storage-dir", back)
        killed = start(
            "migrate", *servers, *to, setup=AT_REQUEST.format(call="get_object", number=2)
        )
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        assert "Start the services" in run_process("migrate", *servers, *to).stdout
        with FileStoreManager(back) as store:
            assert [one.name for one in store.stored()] == ["big.iso", "small.txt"]
            assert [one.name for one in store.events()] == ["small.txt", "big.iso"]
        assert (back / "big.iso").read_bytes() == source.read_bytes()
        assert (here / "small.txt").read_text() == "small", "the old store is not as it was"


def test_what_is_in_the_way_is_told(tmp_path: Path) -> None:
    with own_cluster() as cluster:
        here = tmp_path / "here"
        there = ("--to-storage-dir", cluster.storage_dir, "--to-working-dir", cluster.working_dir)
        small = tmp_path / "small.txt"
        small.write_text("small")
        run("put", small, "--storage-dir", here)
        (here / "link").symlink_to("small.txt")
        refused = run("migrate", "--storage-dir", here, *there, code=1)
        assert "link: it is a symbolic link" in refused.output
        (here / "link").unlink()
        nothing = run("migrate", "--storage-dir", tmp_path / "no", *there, code=1)
        assert "no store" in nothing.output
        assert not (tmp_path / "no").exists()
        undone = run("migrate", "--storage-dir", here, *there, "--undo", code=1)
        assert "no store" in undone.output
        killed = start(
            *("migrate", "--storage-dir", here, *there),
            setup=AT_REQUEST.format(call="put_object", number=4),
        )
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        run("migrate", "--storage-dir", here, *there, "--undo")
        with FileStoreManager(here) as store:
            assert [one.name for one in store.stored()] == ["small.txt"]
        with pytest.raises(StoreMovedError) as told:
            FileStoreManager(cluster.storage_dir, cluster.working_dir)
        assert told.value.storage_dir == str(here)
