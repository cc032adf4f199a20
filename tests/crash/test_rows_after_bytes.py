"""A row never says more than the bytes on the device: what may be believed of it, and by whom."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from crash.oracle import broken
from crash.scenes import acks, check_crashes, run_of, scene
from crash.steps import Cancel, Crash, History, Open, Send, Upload, message
from crash.workloads import FOUR, HOLLOW, TWIN
from txstore import FileStoreManager, digest
from txstore.options import Level
from txstore.testing.faults import FaultPlan, SimulatedCrash
from txstore.testing.faulty import FaultyDisk
from txstore.testing.powerloss import Platter

#: What a worker left, and what it had answered.
Left = tuple[Platter, History]


def segments(store: FileStoreManager, one: Upload) -> int:
    status = store.status(one.file_id)
    return status.segments_received if status else 0


@pytest.mark.parametrize("level", ["segment", "file"])
def test_without_openssl_nothing_is_recorded_that_cannot_be_verified(
    level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_openssl", None)
    run = run_of("plain", level, FOUR)
    with scene(run.name, level) as (session, disk):
        session.do(Open())
        for number in (1, 2, 3):
            session.do(Send(FOUR, number))
    check_crashes(run, disk.log, acks(disk.log))


def test_bytes_whose_flush_failed_and_that_the_device_lost_in_the_same_boot_are_given_up(
    tmp_path: Path,
) -> None:
    """It was lost and is mounted again: what had been acknowledged durably is there."""
    faults = FaultPlan()
    with (
        FileStoreManager(tmp_path, disk=FaultyDisk(faults)) as store,
        FileStoreManager(tmp_path, durability="none") as below,
    ):
        store.store_segment(message(FOUR, 1))
        [staged] = (tmp_path / ".workdir" / "staging").iterdir()
        size = staged.stat().st_size
        below.store_segment(message(FOUR, 2))
        failed = faults.fail("flush", errno.EIO, path="staging")
        with pytest.raises(OSError, match="Input/output error"):
            store.store_segment(message(FOUR, 3))
        assert failed.done
    os.truncate(staged, size)
    with FileStoreManager(tmp_path) as other:
        try:
            found = segments(other, FOUR)
        except OSError as error:
            raise broken(1, f"a segment was acked; {error}") from error
        if found != 1:
            raise broken(1, f"1 segment was acked, {found} are there")


def dying(name: str, at: str, number: int, left: Left | None = None, boot: str = "boot-0") -> Left:
    """A worker takes segments up to one, and dies in a flush of that."""
    plan = FaultPlan()
    with scene(name, faults=plan, after=left, boot=boot) as (session, disk):
        session.do(Open())
        for before in range(number if left else 1, number):
            session.do(Send(FOUR, before))
        plan.crash("flush", path=at)
        with pytest.raises(SimulatedCrash):
            session.do(Send(FOUR, number))
        disk.dead = True
        return disk.platter.copy(), (*session.history, Crash(False))


def answered(name: str, left: Left, number: int, boot: str = "boot-0") -> None:
    """Another worker answers the same segment, and the power goes.

    :raises PromiseBrokenError: it is lost
    """
    with scene(name, after=left, boot=boot) as (session, disk):
        session.do(Open())
        session.do(Send(FOUR, number))
        log = list(disk.log)
    check_crashes(run_of(name, "segment", FOUR), log, {max(acks(log))}, after=left, randoms=8)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
@pytest.mark.parametrize("at", ["staging", "wal"])
def test_a_row_whose_worker_died_in_a_flush_is_not_taken_for_durable(at: str) -> None:
    answered("its successor", dying("its worker", at, 3), 3)


def test_a_lock_that_could_not_be_signed_makes_no_row_current(tmp_path: Path) -> None:
    """The full disk has no room for the other's token: the first worker's must not stay there."""
    faults = FaultPlan()
    with (
        FileStoreManager(tmp_path) as first,
        FileStoreManager(tmp_path, disk=FaultyDisk(faults)) as second,
    ):
        first.store_segment(message(HOLLOW, 1))
        failed = faults.fail("sign", errno.ENOSPC, forever=True)
        # Of no bytes: its size does not tell the first worker that somebody went on.
        again = Upload(HOLLOW.file_id, HOLLOW.name, (b"", b"", b"", b""))
        second.store_segment(message(again, 2))
        assert failed.done
        if segments(first, HOLLOW) != 2:
            raise broken(1, f"2 segments were acked, {segments(first, HOLLOW)} are there")


def test_a_lower_level_takes_nothing_of_what_was_promised() -> None:
    """It goes on with what was promised, beside another transfer under the same lock."""
    run = run_of("unknown", "segment", FOUR, TWIN, mixed=True)
    with scene(run.name) as (session, disk):
        session.do(Open(0, "segment"))
        for number in (1, 2):
            session.do(Send(FOUR, number))
            session.do(Send(TWIN, number))
        session.do(Open(1, "none"))
        session.do(Send(FOUR, 3, 1))
    check_crashes(run, disk.log, {max(acks(disk.log))}, randoms=8)


def test_nothing_of_a_cancelled_transfer_is_taken_for_the_next_with_its_id() -> None:
    run = run_of("next", "segment", FOUR)
    with scene(run.name) as (session, disk):
        session.do(Open())
        for number in (1, 2, 3):
            session.do(Send(FOUR, number))
        session.do(Cancel(FOUR))
        for number in (1, 2):
            session.do(Send(FOUR, number))
    check_crashes(run, disk.log, {max(acks(disk.log))})
