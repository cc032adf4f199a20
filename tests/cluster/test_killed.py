"""Workers and PostgreSQL are killed, the object store is stopped for a while: what was acknowledged
is kept, and files are whole."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from cluster_servers import Cluster, Pair, own_pair
from crew import apart
from finishing import NAME, content, finish_under_one_name
from fleet import Fleet, Log, Plan
from pushing import TRANSFERS, check_transfers, push
from support import FULL, outcome

from txstore import FileStoreManager

SEED = 5
WORKERS = 32 if FULL else 8
KILLS = 60 if FULL else 8
ACKS_BETWEEN = 20


def killed_while_pushing(folder: Path) -> None:
    with own_pair() as pair:
        cluster, log = pair.cluster(), Log(folder / "log")
        # Below that level PostgreSQL may lose, when it is killed, what it did not confirm.
        plan = Plan(
            cluster.storage_dir,
            log.path,
            push,
            SEED,
            working=cluster.working_dir,
            levels=("segment",),
        )
        rng = random.Random(SEED)
        with Fleet.forked(plan, WORKERS) as fleet:
            fleet.replace_while_working(KILLS // 2, ACKS_BETWEEN, rng)
            pair.postgres.kill()
            pair.postgres.start()
            fleet.replace_while_working(KILLS // 2, ACKS_BETWEEN, rng)
            fleet.kill()
        lines = log.lines()
        assert {line.what for line in lines if line.kind == "ack"} <= {
            f"t{number}" for number in range(TRANSFERS)
        }
        with FileStoreManager(cluster.storage_dir, cluster.working_dir) as store:
            check_transfers(store, lines)
            events = [one.file_id for one in store.events()]
            assert sorted(events) == sorted({line.what for line in lines if line.kind == "ack"})


def read_until(over: threading.Event, cluster: Cluster, torn: list[object]) -> None:
    """Look at the file again and again; what is not whole is remembered."""
    seen = False
    while not over.is_set():
        data = outcome(cluster.files, NAME)
        if isinstance(data, Exception):
            continue  # the object store is down
        file = data.get(NAME)
        if file is None and not seen:
            continue
        seen = True
        if file is None or file != content(file[:100].decode().strip()):
            torn.append(file)


def killed_while_finishing(folder: Path) -> None:
    with own_pair() as pair:
        cluster, log = pair.cluster(), Log(folder / "log")
        plan = Plan(
            cluster.storage_dir, log.path, finish_under_one_name, SEED, working=cluster.working_dir
        )
        over, torn = threading.Event(), list[object]()
        with Fleet.forked(plan, WORKERS) as fleet:
            reader = threading.Thread(target=read_until, args=(over, cluster, torn))
            reader.start()
            try:
                _kill_while_it_is_stopped(fleet, pair)
            finally:
                over.set()
                reader.join()
            fleet.kill()
        assert not torn, f"a reader saw {torn[0]!r:.200}"
        _check_events(cluster, log)


def _kill_while_it_is_stopped(fleet: Fleet, pair: Pair) -> None:
    rng = random.Random(SEED)
    fleet.replace_while_working(KILLS // 4, ACKS_BETWEEN // 2, rng)
    # SeaweedFS that was killed takes minutes to find its volumes again: it is only stopped, and a
    # worker is killed that waits for it.
    with pair.objects.stopped():
        fleet.replace_one(rng)
    fleet.replace_while_working(KILLS // 4, ACKS_BETWEEN // 2, rng)


def _check_events(cluster: Cluster, log: Log) -> None:
    """Each file that was acknowledged has one event; one that was not has at most one."""
    with FileStoreManager(cluster.storage_dir, cluster.working_dir) as store:
        store.expire()  # what was left is settled
        stored = [one.file_id for one in store.events() if one.kind == "stored"]
    acked = {line.what for line in log.lines() if line.kind == "ack"}
    assert len(stored) == len(set(stored))
    assert acked <= set(stored)
    winner = cluster.files()[NAME]
    assert winner == content(stored[-1])


@pytest.mark.parametrize("scenario", [killed_while_pushing, killed_while_finishing])
def test_nothing_is_lost_when_workers_and_servers_are_killed(
    tmp_path: Path, scenario: object
) -> None:
    assert callable(scenario)
    apart(scenario, tmp_path)
