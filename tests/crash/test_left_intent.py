"""An older file that was cut off while it was published never comes back over a newer one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from crash.oracle import broken
from crash.search import Run, Search, states
from crash.steps import Crash, Open, Send, Session, Upload, message, upload
from crash.workloads import LEFT_INTENT, SAME_ONE
from crash.world import Clock, Folders, fixed
from txstore import FileStoreManager
from txstore.testing import operations as ops
from txstore.testing.disk import SimulatedDisk
from txstore.testing.faults import FaultPlan, SimulatedCrash
from txstore.testing.faulty import FaultyDisk

OLD = upload("old", "same.bin", 1100, 1700)
NEWER = [upload("new", "same.bin", 900), upload("new", "same.bin", 900, 800)]


def check_newer(storage: Path, newer: Upload) -> None:
    if (storage / newer.name).read_bytes() != newer.content:
        raise broken(1, "an older file came over one that was acked later")


@pytest.mark.parametrize("newer", NEWER, ids=["in one segment", "in two segments"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_live_worker_settles_the_intent_of_a_dead_one(
    tmp_path: Path, newer: Upload, when: str
) -> None:
    storage = tmp_path / "storage"
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    dying = FileStoreManager(storage, disk=disk)
    with FileStoreManager(storage) as living:
        dying.store_segment(message(OLD, 1))
        faults.crash("rename", path="same.bin", after=when == "after")
        with pytest.raises(SimulatedCrash):
            dying.store_segment(message(OLD, 2))
        disk.bury()
        for number in range(1, newer.last + 1):
            living.store_segment(message(newer, number))
        check_newer(storage, newer)
    with FileStoreManager(storage) as after:
        check_newer(storage, newer)
        after.status(OLD.file_id)
        check_newer(storage, newer)
    if left := os.listdir(storage / ".workdir" / "staging"):
        raise broken(9, f"staging files stay: {left}")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
def test_a_withdrawn_intent_that_a_power_loss_brings_back_is_not_carried_out() -> None:
    """The rename failed, the process died before the withdrawal was flushed, and a file in one
    segment, which flushes no journal, was acknowledged under the name."""
    run, folders, clock = Run(LEFT_INTENT, "segment"), Folders(), Clock()
    plan = FaultPlan()

    def die_at_the_next_flush(call: str, path: str) -> None:
        if call == "rename" and path.endswith("same.bin"):
            plan.watch = None
            plan.crash("flush")

    plan.fail("rename", path="same.bin")
    plan.watch = die_at_the_next_flush
    try:
        with folders.one() as root, fixed("left intent", clock):
            disk = SimulatedDisk(root, faults=plan, boot="boot-0")
            session = Session(root, disk, clock, run.level, (), None)
            session.do(Open())
            session.do(Send(OLD, 1))
            with pytest.raises(SimulatedCrash):
                session.do(Send(OLD, 2))
            with suppress(SimulatedCrash):
                session.close()
        base, history = disk.platter.copy(), (*session.history, Crash(False))
        tree = base.kernel()
        with folders.one() as root, fixed("left intent, again", clock):
            disk = SimulatedDisk(root, base.copy(), tree.build(root), boot="boot-0")
            session = Session(root, disk, clock, run.level, history, None)
            session.do(Open())
            session.do(Send(SAME_ONE, 1))
            session.close()
        search = Search(run, folders)
        acked = max(at for at, op in enumerate(disk.log, 1) if isinstance(op, ops.Note))
        for state in states(
            disk.log, base, history, "left intent", randoms=4, crashes=2, only={acked}
        ):
            search.check(state)
    finally:
        folders.close()
