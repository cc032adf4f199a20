"""A flush that failed is nothing to rest on: what it was for is flushed again, or forgotten."""

from __future__ import annotations

import errno
from contextlib import suppress

import pytest

from crash.scenes import acks, check_crashes, finish, run_of, scene
from crash.steps import Crash, Open, Send, Upload, upload
from crash.workloads import FOUR, B
from txstore.testing.faults import FaultPlan, SimulatedCrash

BESIDE = upload("x", "deep/er/x.bin", 900)


@pytest.mark.parametrize("acked", [False, True], ids=["renamed", "acked"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
def test_a_file_whose_flush_failed_is_sent_again(acked: bool) -> None:
    """It was published at level "none"; its bytes are lost to every later flush."""
    plan, run = FaultPlan(), run_of("file", "segment", B, mixed=True)
    with scene("file", faults=plan) as (session, disk):
        session.do(Open(0, "none"))
        session.do(Send(B, 1))
        if acked:
            session.do(Send(B, 2))
        else:
            plan.crash("rename", path="b.bin", after=True)
            with pytest.raises(SimulatedCrash):
                session.do(Send(B, 2))
        left = disk.platter.copy(), (*session.history, Crash(False))
        disk.dead = True
    plan = FaultPlan()
    failed = plan.fail("flush_all", errno.EIO)
    with scene("file, again", faults=plan, after=left) as (session, disk):
        session.do(Open())
        with suppress(OSError):
            finish(session, B)
        assert failed.done
        finish(session, B)
        log = list(disk.log)
    check_crashes(run, log, {max(acks(log))}, after=left, randoms=6)


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_folder_whose_flush_failed_is_flushed_again(nth: int) -> None:
    plan, run = FaultPlan(), run_of("folder", "segment", BESIDE, B, mixed=True)
    with scene(run.name, faults=plan) as (session, disk):
        session.do(Open(0))
        session.do(Open(1, "none"))
        session.do(Send(BESIDE, 1, 1))  # makes the folders, and flushes none of them
        session.do(Send(B, 1))
        plan.fail("flush_folder", errno.EIO, nth=nth)
        with suppress(OSError):
            session.do(Send(B, 2))
        plan.clear()
        session.do(Send(B, 2))
        log = list(disk.log)
    check_crashes(run, log, {max(acks(log))}, randoms=6)


@pytest.mark.parametrize("one", [B, FOUR], ids=["last", "segment"])
def test_what_a_failed_flush_left_is_staged_anew_at_every_level(one: Upload) -> None:
    """Whoever finishes the transfer flushes nothing of its own accord; and who answers the repeat
    could flush only what the kernel does not hold for clean."""
    plan, run = FaultPlan(), run_of(one.file_id, "segment", one, mixed=True)
    with scene(run.name, faults=plan) as (session, disk):
        session.do(Open(0))
        session.do(Open(1, "none"))
        session.do(Send(one, 1, 1))
        plan.fail("flush_all" if one.last == 2 else "flush", errno.EIO)
        with suppress(OSError):
            session.do(Send(one, 2, 0))
        plan.clear()
        for number in range(2, one.last + 1):
            session.do(Send(one, number, 1))
        session.do(Send(one, one.last, 0))
        log = list(disk.log)
    check_crashes(run, log, {max(acks(log))}, randoms=6)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
def test_an_intent_whose_flush_failed_is_staged_anew_at_every_level() -> None:
    plan, run = FaultPlan(), run_of("intent", "segment", B, mixed=True)
    with scene("intent", faults=plan) as (session, disk):
        session.do(Open(0, "none"))
        session.do(Send(B, 1))
        plan.crash("rename", path="b.bin")
        with pytest.raises(SimulatedCrash):
            session.do(Send(B, 2))
        left = disk.platter.copy(), (*session.history, Crash(False))
        disk.dead = True
    plan = FaultPlan()
    failed = plan.fail("flush", errno.EIO)
    with scene("intent, again", faults=plan, after=left) as (session, disk):
        session.do(Open(0))  # settles the intent
        assert failed.done
        session.do(Open(1, "none"))
        session.do(Send(B, 2, 1))
        session.do(Send(B, 2, 0))
        log = list(disk.log)
    check_crashes(run, log, {max(acks(log))}, after=left, randoms=6)
