"""The journal's log: whose flush serves whom, and what is written into it besides SQLite."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from crash.oracle import broken
from crash.scenes import acks, check_crashes, run_of, scene
from crash.steps import Close, Open, Send, Upload, message, upload
from crash.workloads import FOUR
from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import LockTimeoutError
from txstore.local.lockfile import JOURNAL_BYTE, LOCK_FILE
from txstore.testing.faults import FaultPlan

OTHER = upload("other", "other.bin", 1500, 700, 900, 800)
#: Seconds for what must happen; only a failing test waits that long.
PATIENCE = 20.0


def is_log(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").endswith("-wal")


class HeldUp(Disk):
    """Holds the log's first flush up until it is told to go on; fails the next one."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self.armed = False
        self.flushes = 0

    def flush(self, fd: int) -> None:
        if self.armed and is_log(fd):
            self.flushes += 1
            if self.flushes > 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.began.set()
            assert self.go_on.wait(PATIENCE)
        super().flush(fd)


def test_a_flush_that_began_before_a_commit_does_not_serve_it(tmp_path: Path) -> None:
    disk = HeldUp()
    told: dict[str, int | None] = {}

    def send(file_id: str) -> None:
        try:
            one = upload(file_id, file_id, 10, 10, 10, 10)
            told[file_id] = store.store_segment(message(one, 3)).segments_received
        except OSError as error:
            told[file_id] = error.errno

    with FileStoreManager(tmp_path, disk=disk) as store:
        for file_id in ("a", "b"):
            for number in (1, 2):
                store.store_segment(message(upload(file_id, file_id, 10, 10, 10, 10), number))
        disk.armed = True
        first, second = (threading.Thread(target=send, args=(one,)) for one in ("a", "b"))
        first.start()
        assert disk.began.wait(PATIENCE)
        second.start()
        while store.transfers()[1].segments_received < 3:  # until its row is committed
            assert second.is_alive()
        second.join(0.3)  # a moment in which it begins to wait for a flush, or goes wrong
        disk.go_on.set()
        first.join()
        second.join()
        disk.armed = False
    if told != {"a": 3, "b": errno.EIO}:
        raise broken(6, f"answered {told}: b's commit was in no flush that succeeded")


def test_who_waits_for_anothers_flush_of_the_log_waits_no_longer_than_a_call_may(
    tmp_path: Path,
) -> None:
    """Also where nothing failed but the waiting."""
    disk = HeldUp()
    one, other = upload("a", "a", 10, 10, 10), upload("b", "b", 10, 10, 10)
    told: dict[str, object] = {}

    def send(what: Upload) -> None:
        try:
            told[what.name] = store.store_segment(message(what, 2)).segments_received
        except OSError as error:
            told[what.name] = type(error)

    with FileStoreManager(tmp_path, disk=disk, lock_timeout=0.5) as store:
        for what in (one, other):
            store.store_segment(message(what, 1))
        disk.armed = True
        first, second = (threading.Thread(target=send, args=(what,)) for what in (one, other))
        first.start()
        assert disk.began.wait(PATIENCE)
        second.start()
        second.join(PATIENCE / 2)
        late = second.is_alive()
        disk.go_on.set()
        first.join()
        second.join()
        disk.armed = False
    if late or told != {"a": 2, "b": LockTimeoutError}:
        raise broken(7, f"answered {told}, late: {late}")


class Pausing(Disk):
    """Stops before it writes ahead in the log, until the other worker had a turn."""

    def __init__(self) -> None:
        self.here, self.go_on = threading.Event(), threading.Event()

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if len(data) > 10_000 and is_log(fd):
            self.here.set()
            self.go_on.wait(1.0)  # the other waits for the lock, as it should
        return super().pwrite(fd, data, offset)


def test_writing_ahead_takes_no_commit_of_another_worker(tmp_path: Path) -> None:
    disk = Pausing()
    with FileStoreManager(tmp_path, disk=disk) as first, FileStoreManager(tmp_path) as second:
        slow = threading.Thread(target=first.store_segment, args=(message(FOUR, 1),))
        slow.start()
        assert disk.here.wait(PATIENCE)
        for number in (1, 2):
            second.store_segment(message(OTHER, number))
        disk.go_on.set()
        slow.join()
    try:
        with FileStoreManager(tmp_path) as after:
            known = {one.file_id: one.segments_received for one in after.transfers()}
    except OSError as error:
        raise broken(1, f"the journal is damaged: {error}") from error
    if known != {"four": 1, "other": 2}:
        raise broken(1, f"acked segments are gone: {known}")


class HoldingBack(Disk):
    """Reads the log's last part for writing it anew, then waits while another commits."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], object] | None = None

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        part = super().pread(fd, size, offset)
        if part and is_log(fd):
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                meanwhile()
        return part


def test_a_manager_that_is_closed_without_the_journal_lock_takes_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("txstore.local.journal.journal._CLOSE_TIMEOUT", 0.0)
    disk = HoldingBack()
    holder = Disk()
    with FileStoreManager(tmp_path) as second:
        first = FileStoreManager(tmp_path, disk=disk)
        for number in (1, 2):
            second.store_segment(message(FOUR, number))
        first.status("nobody")
        disk.meanwhile = lambda: second.store_segment(message(FOUR, 3))
        folder = holder.open_folder(str(tmp_path / ".workdir" / "locks"), follow=True)
        lock = holder.open(LOCK_FILE, dir_fd=folder)
        assert holder.try_lock(lock, JOURNAL_BYTE)  # as a worker that commits
        with_lock = threading.Timer(0.2, holder.unlock, (lock, JOURNAL_BYTE))
        with_lock.start()
        first.close()
        with_lock.join()
        holder.close(lock)
        holder.close(folder)
        second.store_segment(message(FOUR, 3))
    try:
        with FileStoreManager(tmp_path) as after:
            status = after.status("four")
    except OSError as error:
        raise broken(1, f"the journal is damaged: {error}") from error
    if status is None or status.segments_received != 3:
        raise broken(1, "an acked segment is gone")


def test_a_worker_that_comes_after_a_failed_flush_of_the_log() -> None:
    """Of a page that the device never got its own descriptor is told nothing."""
    plan, run = FaultPlan(), run_of("log", "segment", FOUR)
    with scene(run.name, faults=plan) as (session, disk):
        session.do(Open(0))
        session.do(Send(FOUR, 1, 0))
        plan.fail("flush", errno.EIO, path="wal", forever=True)
        with pytest.raises(OSError, match="Input/output error"):
            session.do(Send(FOUR, 2, 0))
        plan.clear()
        session.do(Open(1))  # while the first one is still there
        session.do(Send(FOUR, 2, 1))
        log = list(disk.log)
    check_crashes(run, log, {max(acks(log))}, randoms=6)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_log_whose_flush_failed_is_written_anew_before_it_is_checkpointed(nth: int) -> None:
    plan, run = FaultPlan(), run_of("close", "segment", FOUR, OTHER)
    with scene(run.name, faults=plan) as (session, disk):
        session.do(Open(0))
        session.do(Send(FOUR, 1, 0))
        session.do(Send(OTHER, 1, 0))
        session.do(Send(FOUR, 2, 0))
        session.do(Send(FOUR, 3, 0))
        failed = plan.fail("flush", errno.EIO, path="wal", nth=nth, forever=True)
        with pytest.raises(OSError, match="Input/output error"):
            session.do(Send(FOUR, 4, 0))
        assert failed.done
        plan.clear()
        first = len(disk.log)
        session.do(Close(0))
        session.do(Open(0))
        session.do(Send(OTHER, 2, 0))
        session.do(Send(OTHER, 3, 0))
    check_crashes(run, disk.log, range(first, len(disk.log) + 1))


class Forgetful(Disk):
    """One flush of the log fails; then the kernel drops the pages that it could not write."""

    def __init__(self) -> None:
        self.fails = False
        self.on_device = b""

    def flush(self, fd: int) -> None:
        if not is_log(fd):
            super().flush(fd)
        elif self.fails:
            self.fails = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        else:
            now = os.pread(fd, os.fstat(fd).st_size, 0)
            super().flush(fd)
            self.on_device = now

    def drop_pages(self, log: Path) -> None:
        with open(log, "r+b", buffering=0) as file:
            cached = file.read()
            device = self.on_device.ljust(len(cached), b"\0")
            for start in range(0, len(cached), 4096):
                page = slice(start, start + 4096)
                if cached[page] != device[page]:
                    os.pwrite(file.fileno(), device[page], start)


def test_a_failed_flush_of_the_log_is_made_good_while_the_kernel_has_its_pages(
    tmp_path: Path,
) -> None:
    """Else SQLite's index leads to frames that are nowhere, and the next checkpoint copies what is
    in their place into the database."""
    disk = Forgetful()
    known = {one: upload(one, one, 10, 10, 10, 10) for one in ("a", "b", "c", "d")}
    try:
        with FileStoreManager(tmp_path, disk=disk) as first, FileStoreManager(tmp_path) as second:
            for number in (1, 2):
                for one in known.values():
                    first.store_segment(message(one, number))
            disk.fails = True
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                first.store_segment(message(known["a"], 3))
            disk.drop_pages(tmp_path / ".workdir" / "journal.db-wal")
            second.store_segment(message(known["b"], 3))
        with FileStoreManager(tmp_path) as after:
            found = {one.file_id: one.segments_received for one in after.transfers()}
    except OSError as error:
        raise broken(1, f"the journal is damaged: {error}") from error
    for file_id, acked in {"a": 2, "b": 3, "c": 2, "d": 2}.items():
        if found.get(file_id, 0) < acked:
            raise broken(1, f"{file_id}: {acked} acked segments, {found.get(file_id, 0)} left")
