"""The log's name is made durable by us: SQLite keeps it to itself where it cannot do it."""

from __future__ import annotations

import errno

import pytest

from crash.scenes import acks, check_crashes, run_of, scene
from crash.steps import Open, Send
from crash.workloads import FOUR
from txstore.testing.disk import SimulatedDisk
from txstore.testing.faults import FaultPlan


class Swallowing(SimulatedDisk):
    """SQLite cannot flush the working dir, or not open it for that."""

    sqlite_flushes_folder = False


def test_what_rests_on_a_new_log_is_kept_where_sqlite_cannot_flush_its_name() -> None:
    """The store's folders were flushed before this log was there."""
    plan, run = FaultPlan(), run_of("name", "segment", FOUR)
    with scene(run.name, faults=plan, disk_type=Swallowing) as (session, disk):
        session.do(Open(0))
        session.do(Send(FOUR, 1, 0))
        failed = plan.fail("statement", errno.EIO, path="UPDATE transfer")
        with pytest.raises(OSError, match="Input/output error"):
            session.do(Send(FOUR, 2, 0))  # its connection is closed, and the log goes
        assert failed.done
        session.do(Send(FOUR, 2, 0))
        session.do(Send(FOUR, 3, 0))
    check_crashes(run, disk.log, acks(disk.log))


def test_a_folder_of_the_log_that_cannot_be_flushed_is_an_error_until_it_can() -> None:
    plan, run = FaultPlan(), run_of("folder", "segment", FOUR)
    with scene(run.name, faults=plan, disk_type=Swallowing) as (session, disk):
        session.do(Open(0))
        session.do(Send(FOUR, 1, 0))
        plan.fail("statement", errno.EIO, path="UPDATE transfer")
        with pytest.raises(OSError, match="Input/output error"):
            session.do(Send(FOUR, 2, 0))
        plan.fail("flush_folder", errno.EIO, nth=1)
        plan.fail("flush_folder", errno.EINTR, nth=2)
        for _ in range(2):
            with pytest.raises(OSError, match=r"error|Interrupted"):
                session.do(Send(FOUR, 2, 0))
        session.do(Send(FOUR, 2, 0))
        session.do(Send(FOUR, 3, 0))
    check_crashes(run, disk.log, acks(disk.log))
