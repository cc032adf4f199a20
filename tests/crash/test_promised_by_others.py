"""A worker at level "none" ends what others were promised: then it flushes as they would."""

from __future__ import annotations

import pytest

from crash.scenes import acks, check_crashes, run_of, scene
from crash.search import Run
from crash.steps import Crash, History, Open, Send, Upload, upload
from crash.test_take_over import GROUP, Shared
from crash.workloads import OLD, SAME_ONE
from txstore.testing import operations as ops
from txstore.testing.faults import FaultPlan, SimulatedCrash
from txstore.testing.powerloss import Platter

OTHER = upload("new", "same.bin", 800, 700)


def check_after(run: Run, log: list[ops.Operation], after: tuple[Platter, History]) -> None:
    """Hold power losses at the end of each step to the promises."""
    check_crashes(run, log, {*acks(log), len(log)}, after=after, randoms=6)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("newer", [SAME_ONE, OTHER], ids=["in one segment", "in two"])
def test_whose_intent_is_settled_keeps_its_completion(newer: Upload, when: str) -> None:
    """Without it the intent comes back, finds another file at its place and no staging file."""
    plan, run = FaultPlan(), run_of("settled", "segment", OLD, newer, mixed=True)
    with scene(run.name, faults=plan) as (session, disk):
        session.do(Open(0))
        session.do(Send(OLD, 1, 0))
        plan.crash("rename", path="same.bin", after=when == "after")
        with pytest.raises(SimulatedCrash):
            session.do(Send(OLD, 2, 0))
        after = disk.platter.copy(), (*session.history, Crash(False))
    with scene(f"{run.name}, again", after=after) as (session, disk):
        session.do(Open(0, "none"))
        for number in range(1, newer.last + 1):
            session.do(Send(newer, number, 0))
    check_after(run, disk.log, after)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
def test_an_orphan_goes_when_the_journal_durably_knows_no_row_of_it() -> None:
    """Its worker had copied it, and died before it flushed the row that says so."""
    plan, run = FaultPlan(), run_of("orphan", "segment", GROUP, OTHER, mixed=True)
    with scene(run.name, faults=plan, disk_type=Shared) as (session, disk):
        assert isinstance(disk, Shared)
        session.do(Open(0))
        session.do(Send(GROUP, 1, 0))
        session.do(Send(GROUP, 2, 0))
        disk.hand_over()
        session.restart(0)
        plan.crash("flush", path="wal")
        with pytest.raises(SimulatedCrash):
            session.do(Send(GROUP, 3, 0))
        after = disk.platter.copy(), (*session.history, Crash(False))
    with scene(f"{run.name}, again", after=after) as (session, disk):
        session.do(Open(0, "none"))
        session.do(Send(OTHER, 1, 0))  # and a slice of cleaning up
    assert any(isinstance(op, ops.Remove) for op in disk.log)
    check_after(run, disk.log, after)
