"""``lock_timeout`` bounds all waiting of one call together, whatever it waits for."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from crew import Worker, forked, staging_files
from seam import Pause, PausingDisk, WatchedDisk
from support import claim, lock_name, message, outcome

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import LockTimeoutError
from txstore.protocol.request import Message

#: Nothing here rests on how fast the machine is: pauses are added up as they were asked for.
TIMEOUT = 0.6

DATA = b"first" + b"second"


class BusyDisk(Disk):
    """Somebody else has the locks of each class of which ``until`` says so.

    :ivar until: class of lock (``transfer``, ``name``, ``journal``): when it becomes free
    :ivar waited: seconds of all pauses that were asked for
    """

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self.waited = 0.0

    def try_lock(self, fd: int, byte: int) -> bool:
        if time.monotonic() < self.until.get(lock_name(byte).partition("-")[0], 0.0):
            return False
        return super().try_lock(fd, byte)

    def pause(self, seconds: float) -> None:
        self.waited += seconds
        super().pause(seconds)

    def keep(self, *classes: str, seconds: float = float("inf")) -> None:
        self.until = {one: time.monotonic() + seconds for one in classes}


def _begun(store: FileStoreManager) -> None:
    store.store_segment(message(b"first", file_id="a", segment_number="1"))


def _last() -> Message:
    return message(b"second", file_id="a", segment_number="2", **claim(DATA, "file"))


@pytest.mark.parametrize("kind", ["transfer", "name", "journal"])
def test_a_lock_that_is_never_free_is_waited_for_so_long_and_no_longer(
    tmp_path: Path, kind: str
) -> None:
    disk = BusyDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=TIMEOUT, durability="none") as store:
        _begun(store)
        disk.keep(kind)
        start = time.monotonic()
        with pytest.raises(LockTimeoutError) as caught:
            store.store_segment(_last())
        assert time.monotonic() - start >= TIMEOUT
        assert disk.waited <= TIMEOUT
        assert caught.value.timeout == TIMEOUT
        assert kind in caught.value.lock
        # It is as if it had not been sent.
        disk.until = {}
        answer = store.store_segment(_last())
        assert answer.file_result == "store"
        assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize(("first", "second"), [("transfer", "name"), ("transfer", "journal")])
def test_the_waits_of_one_call_are_bounded_together(
    tmp_path: Path, first: str, second: str
) -> None:
    """The first lock becomes free late, so that little is left for the second."""
    disk = BusyDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=TIMEOUT, durability="none") as store:
        _begun(store)
        disk.keep(second)
        disk.until[first] = time.monotonic() + 0.8 * TIMEOUT
        start = time.monotonic()
        with pytest.raises(LockTimeoutError) as caught:
            store.store_segment(_last())
        assert time.monotonic() - start >= TIMEOUT
        assert disk.waited <= TIMEOUT  # each for itself would be 1.8 times that
        disk.until = {}  # closing would wait, too
        assert second in caught.value.lock


def test_other_processes_are_waited_for_no_longer_either(tmp_path: Path) -> None:
    """A worker is stopped in the middle of its transaction, holding its transfer and the journal;
    killed, it holds nobody up."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    pause, storage = Pause(meeting), tmp_path / "storage"
    disk = BusyDisk()
    with FileStoreManager(storage, disk=disk, lock_timeout=TIMEOUT, durability="none") as store:
        _begun(store)
        store.store_segment(message(b"x", file_id="other", segment_number="1"))
        with Worker(storage, disk=_Stops(meeting), durability="none") as stopped:
            stopped.ask("store_segment", message(b"2", file_id="a", segment_number="2"))
            pause.reached()
            for file_id in ("a", "other"):
                start, disk.waited = time.monotonic(), 0.0
                error = outcome(
                    store.store_segment, message(b"2", file_id=file_id, segment_number="2")
                )
                assert isinstance(error, LockTimeoutError)
                assert time.monotonic() - start >= TIMEOUT
                assert disk.waited <= TIMEOUT
            stopped.kill()
            for file_id in ("a", "other"):
                answer = store.store_segment(message(b"2", file_id=file_id, segment_number="2"))
                assert answer.segments_received == 2


class _Stops:
    """Makes a worker's disk, in the worker."""

    def __init__(self, meeting: Path) -> None:
        self._meeting = meeting

    def __call__(self) -> Disk:
        return PausingDisk("UPDATE", self._meeting)


class StandingDisk(Disk):
    """Stops in the first write of a payload, until it is let go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if bytes(data) == b"stop here":
            self.reached.set()
            assert self.go_on.wait(60)
        return super().pwrite(fd, data, offset)


def test_other_threads_are_waited_for_no_longer_either(tmp_path: Path) -> None:
    disk = StandingDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=TIMEOUT, durability="none") as store:
        _begun(store)
        second = message(b"stop here", file_id="a", segment_number="2")
        inside = threading.Thread(target=store.store_segment, args=(second,))
        inside.start()
        assert disk.reached.wait(60)
        calls = (
            lambda: store.store_segment(message(b"y", file_id="a", segment_number="2")),
            lambda: store.store_segment(message(file_id="a", result="cancel")),
            lambda: store.cancel("a"),
            lambda: store.status("a"),
        )
        for call in calls:
            start = time.monotonic()
            assert isinstance(outcome(call), LockTimeoutError)
            assert time.monotonic() - start >= TIMEOUT
        # Listing waits for nobody's transfer.
        assert [one.segments_received for one in store.transfers()] == [1]
        disk.go_on.set()
        inside.join()
        status = store.status("a")
        assert status is not None
        assert status.segments_received == 2


def test_no_waiting_at_all_can_be_asked_for(tmp_path: Path) -> None:
    disk = BusyDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=0, durability="none") as store:
        _begun(store)
        disk.keep("transfer")
        error = outcome(store.store_segment, message(b"2", file_id="a", segment_number="2"))
        assert isinstance(error, LockTimeoutError)
        assert disk.waited == 0.0


# SQLite's own waiting


class BusyJournalDisk(BusyDisk, WatchedDisk):
    """Knows how long SQLite may wait for a lock of its own.

    :ivar patience: in seconds
    :ivar writing: what it was at each write
    """

    def __init__(self) -> None:
        WatchedDisk.__init__(self)
        BusyDisk.__init__(self)
        self.patience = 0.0
        self.writing: list[float] = []

    def before(self, operation: str, *facts: Any) -> None:
        if operation == "sql" and facts[0].startswith("PRAGMA busy_timeout="):
            self.patience = int(facts[0].partition("=")[2]) / 1000
        elif operation == "sql" and facts[0].startswith("INSERT INTO transfer"):
            self.writing.append(self.patience)

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        self.patience = options["timeout"]
        return super().connect(path, **options)


@contextmanager
def another_program(storage: Path, *statements: str) -> Iterator[None]:
    """One that is not txstore, and has the journal in a transaction: a shell, a backup."""
    journal = storage / ".workdir" / "journal.db"
    with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        yield


def test_sqlites_own_waiting_is_part_of_the_calls(tmp_path: Path) -> None:
    disk = BusyJournalDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=TIMEOUT, durability="none") as store:
        _begun(store)
        with another_program(tmp_path, "BEGIN IMMEDIATE"):
            disk.keep("transfer", seconds=0.5 * TIMEOUT)
            with pytest.raises(LockTimeoutError) as caught:
                store.store_segment(_last())
        assert disk.waited > 0
        assert disk.waited + disk.patience <= TIMEOUT
        assert caught.value.timeout == TIMEOUT
        assert caught.value.path == str(tmp_path / ".workdir" / "journal.db")
        assert store.store_segment(_last()).file_result == "store"


def test_who_may_wait_long_has_sqlite_wait_long_too(tmp_path: Path) -> None:
    disk = BusyJournalDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=1000, durability="none") as store:
        _begun(store)
        [patience] = disk.writing
        assert 500 < patience <= 1000


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_opening_waits_for_sqlite_no_longer_than_a_call_may(tmp_path: Path, timeout: float) -> None:
    FileStoreManager(tmp_path, durability="none").close()
    alone = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE")
    with another_program(tmp_path, *alone), pytest.raises(LockTimeoutError) as caught:
        FileStoreManager(tmp_path, lock_timeout=timeout)
    assert caught.value.timeout == timeout
    FileStoreManager(tmp_path, lock_timeout=timeout).close()


def test_a_busy_journal_costs_no_space_that_is_kept_for_a_full_disk(tmp_path: Path) -> None:
    FileStoreManager(tmp_path, durability="none").close()
    [reserve] = (tmp_path / ".workdir").glob("*reserve")
    with FileStoreManager(tmp_path, lock_timeout=0, durability="none") as store:
        _begun(store)
        forked(lambda: None)  # the connection is opened anew by the next call
        assert reserve.exists()
        alone = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE")
        with another_program(tmp_path, *alone):
            assert isinstance(outcome(store.store_segment, _last()), LockTimeoutError)
        assert reserve.exists()
        assert store.store_segment(_last()).file_result == "store"


# What is done besides


def test_cleaning_up_after_an_answer_waits_no_longer_than_the_call_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, ticks = BusyDisk(), 1000.0
    monkeypatch.setattr(time, "clock_gettime", lambda _clock: ticks)
    with FileStoreManager(
        tmp_path, disk=disk, lock_timeout=0, durability="none", keep_completed=100
    ) as store:
        _begun(store)
        store.store_segment(message(b"1", file_id="b", segment_number="1", **claim(b"1", "done")))
        disk.keep("journal")
        ticks += 100
        # This writes nothing, and there is a completion to forget.
        nothing = store.store_segment(message(b"", file_id="unknown", result="cancel"))
        assert nothing.segments_received == 0
        assert disk.waited == 0.0
        disk.until = {}


def test_a_first_segment_whose_lock_was_not_had_leaves_nothing(tmp_path: Path) -> None:
    """Its sender tries again and again, each time with a file of its own."""
    disk = BusyDisk()
    with FileStoreManager(tmp_path, disk=disk, lock_timeout=0, durability="none") as store:
        disk.keep("journal")
        for _ in range(3):
            with pytest.raises(LockTimeoutError):
                _begun(store)
        assert staging_files(tmp_path / ".workdir") == []
        disk.until = {}
        _begun(store)


class TakenDisk(Disk):
    """Somebody else has the journal lock at so many attempts.

    :ivar pauses: those that were asked for in between; none is made
    """

    def __init__(self) -> None:
        self.taken, self.pauses = 0, list[float]()

    def try_lock(self, fd: int, byte: int) -> bool:
        if self.taken and lock_name(byte) == "journal":
            self.taken -= 1
            return False
        return super().try_lock(fd, byte)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def test_a_lock_that_is_held_for_one_commit_is_waited_for_without_a_sleep(tmp_path: Path) -> None:
    """The kernel makes the shortest sleep last longer than a commit."""
    disk = TakenDisk()
    with FileStoreManager(tmp_path, disk=disk, durability="none") as store:
        disk.taken = 10
        _begun(store)
        assert disk.pauses == [0.0] * 10


def test_a_lock_that_is_held_for_long_is_waited_for_asleep(tmp_path: Path) -> None:
    """Whoever has it needs the processor."""
    disk = TakenDisk()
    with FileStoreManager(tmp_path, disk=disk, durability="none") as store:
        disk.taken = 200
        _begun(store)
        assert len(disk.pauses) == 200
        assert all(0.0 < pause < 0.01 for pause in disk.pauses[50:])
        assert min(disk.pauses[100:]) >= 0.001


class OpeningDisk(Disk):
    """Somebody else has the locks, until it is told otherwise."""

    def __init__(self) -> None:
        self.waiting, self.free = threading.Event(), threading.Event()

    def try_lock(self, fd: int, byte: int) -> bool:
        return self.free.is_set() and super().try_lock(fd, byte)

    def pause(self, seconds: float) -> None:
        self.waiting.set()
        super().pause(seconds)


def test_a_store_whose_opening_waits_holds_up_no_other_store_and_no_fork(tmp_path: Path) -> None:
    disk = OpeningDisk()
    opened: list[object] = []
    thread = threading.Thread(
        target=lambda: opened.append(outcome(FileStoreManager, tmp_path / "busy", disk=disk))
    )
    thread.start()
    assert disk.waiting.wait(60)
    with FileStoreManager(tmp_path / "other", durability="none") as store:
        _begun(store)
        forked(lambda: None)
    assert opened == []  # all the while
    disk.free.set()
    thread.join()
    [busy] = opened
    assert isinstance(busy, FileStoreManager), busy
    busy.close()
