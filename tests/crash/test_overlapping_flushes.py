"""A row that is recorded while its bytes are flushed: what may be believed of it, and by whom."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from crash.oracle import broken
from crash.scenes import acks, check_crashes, run_of, scene
from crash.search import states
from crash.steps import Cancel, Crash, History, Open, Send, Upload, message
from crash.workloads import FOUR, HOLLOW, TWIN
from txstore import FileStoreManager, digest
from txstore.disk import Disk
from txstore.locks import stripe_of
from txstore.testing import operations as ops
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
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_openssl", None)
    run = run_of("plain", level, FOUR)
    with scene(run.name, level) as (session, disk):
        session.do(Open())
        for number in (1, 2, 3):
            session.do(Send(FOUR, number))
    check_crashes(run, disk.log, acks(disk.log))


def test_an_older_note_that_a_power_loss_kept_says_nothing_in_the_next_boot() -> None:
    """Also not to those who come after the one who found the row whole and recorded that."""
    run = run_of("older note", "segment", FOUR)
    with scene(run.name) as (session, disk):
        session.do(Open())
        for number in (1, 2, 3):
            session.do(Send(FOUR, number))
        log = list(disk.log)
    check_crashes(run, log, {max(acks(log))}, randoms=8)


class Mounted(Disk):
    """A disk whose device was mounted once more.

    :param number: which time
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def mount_id(self, _fd: int) -> int:
        return self.number


def test_an_older_note_says_nothing_where_the_device_was_mounted_anew(tmp_path: Path) -> None:
    """The device lost its power, not the machine: the same boot goes on with what it kept."""
    lock = f"transfer-{stripe_of(FOUR.file_id.encode()):02x}"
    with FileStoreManager(tmp_path, disk=Mounted(1)) as store:
        for number in (1, 2):
            store.store_segment(message(FOUR, number))
        older = (tmp_path / ".workdir" / "locks" / lock).read_bytes()
        store.store_segment(message(FOUR, 3))
    (tmp_path / ".workdir" / "locks" / lock).write_bytes(older)
    with FileStoreManager(tmp_path, disk=Mounted(2)) as other:
        if segments(other, FOUR) != 3 or segments(other, FOUR) != 3:
            raise broken(1, f"3 segments were acked, {segments(other, FOUR)} are there")


def test_bytes_that_a_device_lost_in_the_same_boot_take_no_acknowledged_segment(
    tmp_path: Path,
) -> None:
    """It kept the row that was recorded while they were being flushed."""
    faults = FaultPlan()
    died = FaultyDisk(faults)
    store = FileStoreManager(tmp_path, disk=died)
    for number in (1, 2):
        store.store_segment(message(FOUR, number))
    [staged] = (tmp_path / ".workdir" / "staging").iterdir()
    size = staged.stat().st_size
    faults.crash("flush", path="staging")
    with pytest.raises(SimulatedCrash):
        store.store_segment(message(FOUR, 3))
    died.bury()
    os.truncate(staged, size)
    with FileStoreManager(tmp_path, disk=Mounted(2)) as other:
        try:
            found = segments(other, FOUR)
        except OSError as error:
            raise broken(1, f"2 segments were acked; {error}") from error
        if found != 2:
            raise broken(1, f"2 segments were acked, {found} are there")


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
@pytest.mark.parametrize("at", ["file", "wal"])
def test_a_row_whose_worker_died_in_a_flush_is_not_taken_for_durable(at: str) -> None:
    answered("its successor", dying("its worker", at, 3), 3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
def test_no_note_is_there_that_a_row_to_come_will_have_the_number_of() -> None:
    """A power loss that takes the row and keeps its note would have the next such row, whose worker
    dies in the flush of its bytes, taken for durable."""
    base, history = dying("the first", "wal", 2)
    log: list[ops.Operation] = [ops.Note(None)]
    name = f"storage/.workdir/locks/transfer-{stripe_of(FOUR.file_id.encode()):02x}"
    for state in states(log, base, history[:-1], "noted", randoms=8, only={1}):
        noted = state.tree.file(name)
        if not state.power or not noted or not any(noted):
            continue
        left = Platter.of(state.tree), state.history
        with scene("in between", after=left, boot="boot-1") as (session, _):
            session.do(Open())
            kept = segments(session.manager(), FOUR)
        if kept == 1:
            left = dying("the second", "file", 2, left, "boot-1")
            answered("the third", left, 2, "boot-1")


def test_a_note_that_cannot_be_written_leaves_no_older_one(tmp_path: Path) -> None:
    """An older note says that nobody was told of the row; somebody was."""
    faults = FaultPlan()
    with FileStoreManager(tmp_path, disk=FaultyDisk(faults)) as store:
        for number in (1, 2):
            store.store_segment(message(FOUR, number))
        failed = faults.fail("pwrite", errno.ENOSPC, path="/locks/")
        store.store_segment(message(FOUR, 3))
        assert failed.done
        with FileStoreManager(tmp_path) as other:
            if segments(other, FOUR) != 3:
                raise broken(1, f"3 segments were acked, {segments(other, FOUR)} are there")


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


def test_a_lower_level_flushes_what_it_cannot_know_to_be_durable() -> None:
    """The note is another transfer's by then; the row says less than what was promised."""
    run = run_of("unknown", "segment", FOUR, TWIN, mixed=True)
    with scene(run.name) as (session, disk):
        session.do(Open(0, "segment"))
        for number in (1, 2):
            session.do(Send(FOUR, number))
            session.do(Send(TWIN, number))
        session.do(Open(1, "none"))
        session.do(Send(FOUR, 3, 1))
    check_crashes(run, disk.log, {max(acks(disk.log))}, randoms=8)


def test_what_a_cancelled_transfer_left_in_the_lock_says_nothing_of_the_next() -> None:
    run = run_of("next", "segment", FOUR)
    with scene(run.name) as (session, disk):
        session.do(Open())
        for number in (1, 2, 3):
            session.do(Send(FOUR, number))
        session.do(Cancel(FOUR))
        for number in (1, 2):
            session.do(Send(FOUR, number))
    check_crashes(run, disk.log, {max(acks(disk.log))})
