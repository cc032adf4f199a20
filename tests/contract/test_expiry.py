"""Nothing piles up for ever, and nothing goes that is worked on, whatever the clocks say."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from crew import Worker, WorkerDiedError, cancel, cut, last, segment, staging_files, visible
from seam import KillingDisk, StoppingDisk
from support import FULL, LEVELS, at_each_level

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import SequenceError
from txstore.options import Level

DATA = bytes(range(256)) * 4
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SLICE = 32  # at most so many go after one answer


class Clock:
    """What time it is for this process: on the wall, and since the boot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.wall, self.ticks = 1_700_000_000.0, 1000.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(time, "clock_gettime", lambda _clock: self.ticks)
        self.boots = 0
        self.reboot(0.0)

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.ticks += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock on the wall."""
        self.wall += seconds

    def reboot(self, off: float) -> None:
        """A new boot, which takes the wall clock for so many seconds."""
        self.boots += 1
        boot = f"boot {self.boots}"
        self._monkeypatch.setattr(Disk, "boot_id", lambda _disk: boot)
        self.wall += off
        self.ticks = 10.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def open_ids(store: FileStoreManager) -> list[str]:
    return [one.file_id for one in store.transfers()]


def answer(store: FileStoreManager) -> None:
    """Have one answer given that needs none of the transfers."""
    store.store_segment(cancel("nothing"))


# --- transfers -----------------------------------------------------------------------------------


@at_each_level
def test_transfer_without_activity_goes_by_itself_after_an_answer(
    tmp_path: Path, clock: Clock, level: Level
) -> None:
    with FileStoreManager(tmp_path, durability=level) as store:
        store.store_segment(segment("old", 1, DATA))
        clock.pass_(4 * DAY)
        store.store_segment(segment("young", 1, DATA))
        clock.pass_(3 * DAY - MINUTE)
        answer(store)
        assert open_ids(store) == ["old", "young"]
        clock.pass_(MINUTE)
        answer(store)
        assert open_ids(store) == ["young"]
        assert len(staging_files(tmp_path / ".workdir")) == 1
        with pytest.raises(SequenceError) as caught:
            store.store_segment(segment("old", 2, DATA))
        assert caught.value.expected == 1


@at_each_level
def test_activity_of_any_kind_keeps_a_transfer(tmp_path: Path, clock: Clock, level: Level) -> None:
    with FileStoreManager(tmp_path, durability=level, expire_after=DAY) as store:
        store.store_segment(segment("one", 1, DATA))
        for number in range(2, 6):
            clock.pass_(DAY - MINUTE)
            store.store_segment(segment("one", number, DATA))
            assert store.expire() == []
        clock.pass_(DAY)
        assert store.expire() == ["one"]


@at_each_level
def test_transfer_whose_last_segment_is_answered_again_and_again_stays(
    tmp_path: Path, clock: Clock, level: Level
) -> None:
    """Its sender is at it, though nothing new comes."""
    with (
        FileStoreManager(tmp_path, durability=level, expire_after=DAY) as store,
        FileStoreManager(tmp_path, durability="none", expire_after=DAY) as other,
    ):
        store.store_segment(segment("one", 1, DATA))
        for _ in range(5):
            clock.pass_(DAY / 2)
            assert store.store_segment(segment("one", 1, DATA)).segments_received == 1
            assert other.expire() == []
        clock.reboot(DAY / 2)
        assert store.store_segment(segment("one", 2, DATA)).segments_received == 2
        clock.pass_(DAY)
        assert other.expire() == ["one"]


@pytest.mark.parametrize("opened", ["before", "after"])
def test_any_manager_drops_what_another_one_left(tmp_path: Path, clock: Clock, opened: str) -> None:
    with FileStoreManager(tmp_path) as left, FileStoreManager(tmp_path) as live:
        left.store_segment(segment("one", 1, DATA))
        left.close()
        clock.pass_(7 * DAY)
        if opened == "before":
            answer(live)
            assert open_ids(live) == []
        else:
            with FileStoreManager(tmp_path) as late:
                # Opening drops nothing: it would disturb what others are doing.
                assert open_ids(late) == ["one"]
                answer(late)
                assert open_ids(late) == []


def test_each_answer_drops_a_bounded_slice_until_all_are_gone(tmp_path: Path, clock: Clock) -> None:
    count = 5 * SLICE + 3
    with FileStoreManager(tmp_path, durability="none") as store:
        for number in range(count):
            store.store_segment(segment(f"old{number}", 1, b"x"))
        clock.pass_(7 * DAY)
        left, answers = count, 0
        while left:
            clock.pass_(1.0)
            answer(store)
            before, left = left, len(open_ids(store))
            assert 0 < before - left <= SLICE
            answers += 1
        assert answers == 6
        assert staging_files(tmp_path / ".workdir") == []


def test_young_ones_before_old_ones_keep_nothing(tmp_path: Path, clock: Clock) -> None:
    with FileStoreManager(tmp_path, durability="none") as store:
        names = [f"one{number}" for number in range(2 * SLICE + 5)]
        for name in names:
            store.store_segment(segment(name, 1, b"x"))
        clock.pass_(7 * DAY - MINUTE)
        for name in names[: SLICE + 5]:
            store.store_segment(segment(name, 2, b"x"))
        clock.pass_(MINUTE)
        for _ in range(4):
            clock.pass_(1.0)
            answer(store)
        assert open_ids(store) == names[: SLICE + 5]


def test_expire_drops_all_at_once_and_tells_which(tmp_path: Path, clock: Clock) -> None:
    with FileStoreManager(tmp_path, durability="none", expire_after=HOUR) as store:
        names = [f"old{number}" for number in range(3 * SLICE)]
        for name in names:
            store.store_segment(segment(name, 1, b"x"))
        clock.pass_(HOUR)
        store.store_segment(segment("young", 1, b"x"))
        # The answer has dropped a slice by itself.
        assert store.expire() == names[SLICE:]
        assert open_ids(store) == ["young"]
        assert store.expire() == []


# --- somebody works on it ------------------------------------------------------------------------


@at_each_level
def test_transfer_that_is_being_worked_on_does_not_expire(
    tmp_path: Path, clock: Clock, level: Level
) -> None:
    disk = StoppingDisk()
    with (
        FileStoreManager(tmp_path, durability=level, disk=disk) as busy,
        FileStoreManager(tmp_path, durability=level, expire_after=HOUR) as keeper,
    ):
        busy.store_segment(segment("one", 1, DATA))
        clock.pass_(DAY)
        with disk.stopped("pwrite", lambda: busy.store_segment(segment("one", 2, DATA))):
            clock.pass_(DAY)
            assert keeper.expire() == []
            answer(keeper)
            assert open_ids(keeper) == ["one"]
        assert busy.store_segment(segment("one", 3, DATA)).segments_received == 3


@at_each_level
def test_age_is_checked_again_under_the_transfers_lock(
    tmp_path: Path, clock: Clock, level: Level
) -> None:
    disk = StoppingDisk()
    dropped: list[list[str]] = []
    with (
        FileStoreManager(tmp_path, durability=level) as worker,
        FileStoreManager(tmp_path, durability=level, expire_after=HOUR, disk=disk) as keeper,
    ):
        worker.store_segment(segment("one", 1, DATA))
        clock.pass_(DAY)
        # It has found the row old, and is about to take the transfer's lock.
        with disk.stopped("try_lock", lambda: dropped.append(keeper.expire())):
            worker.store_segment(segment("one", 2, DATA))
        assert dropped == [[]]
        assert worker.store_segment(segment("one", 3, DATA)).segments_received == 3


def test_answered_transfer_is_not_dropped_by_its_own_answer(tmp_path: Path, clock: Clock) -> None:
    del clock
    with FileStoreManager(tmp_path, durability="none", expire_after=0) as store:
        for message in cut(DATA, 4, file_id="one", name="one"):
            store.store_segment(message)
    assert visible(tmp_path) == {"one": DATA}


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [1000 * DAY, -1000 * DAY, 8 * DAY, -8 * DAY])
def test_jump_of_the_wall_clock_expires_nothing_and_keeps_nothing(
    tmp_path: Path, clock: Clock, jump: float
) -> None:
    with FileStoreManager(tmp_path, durability="none") as store:
        store.store_segment(segment("one", 1, DATA))
        *_, end = messages = cut(DATA, 2, file_id="done", name="done")
        for message in messages:
            store.store_segment(message)
        clock.pass_(DAY / 2)
        clock.jump(jump)
        answer(store)
        assert store.expire() == []
        assert store.store_segment(end).file_result == "store"
        clock.pass_(6 * DAY)
        answer(store)
        assert open_ids(store) == ["one"]
        clock.pass_(DAY / 2)
        answer(store)
        assert open_ids(store) == []


@pytest.mark.parametrize("unknown", [False, True], ids=["known boot", "unknown boot"])
def test_boot_that_cannot_be_known_expires_by_its_own_time(
    tmp_path: Path, clock: Clock, unknown: bool
) -> None:
    class Ignorant(Disk):
        def boot_id(self) -> str:
            return ""

    disk = Ignorant() if unknown else Disk()
    with FileStoreManager(tmp_path, durability="none", disk=disk) as store:
        store.store_segment(segment("one", 1, DATA))
        clock.jump(1000 * DAY)
        clock.pass_(7 * DAY - MINUTE)
        assert store.expire() == []
        clock.pass_(MINUTE)
        assert store.expire() == ["one"]


def test_new_boot_expires_nothing_within_its_first_hour(tmp_path: Path, clock: Clock) -> None:
    """Its wall clock may be wrong by years until somebody sets it."""
    with FileStoreManager(tmp_path, durability="none") as store:
        store.store_segment(segment("one", 1, DATA))
    clock.reboot(3650 * DAY)
    with FileStoreManager(tmp_path, durability="none") as store:
        answer(store)
        clock.pass_(HOUR - MINUTE)
        answer(store)
        assert store.expire() == []
        clock.jump(-3650 * DAY + HOUR)  # it is set right
        clock.pass_(2 * MINUTE)
        answer(store)
        assert store.expire() == []
        clock.pass_(7 * DAY)
        assert store.expire() == ["one"]


def test_hour_begins_when_the_boot_first_sees_the_store(tmp_path: Path, clock: Clock) -> None:
    with FileStoreManager(tmp_path, durability="none") as store:
        store.store_segment(segment("one", 1, DATA))
    clock.reboot(8 * DAY)
    clock.pass_(DAY)  # up for long, and only now it is used
    for minutes in range(3):
        # The hour goes on from manager to manager.
        with FileStoreManager(tmp_path, durability="none") as store:
            answer(store)
            assert store.expire() == [], minutes
        clock.pass_(HOUR / 3)
    with FileStoreManager(tmp_path, durability="none") as store:
        assert store.expire() == ["one"]


def test_across_boots_the_wall_clock_counts(tmp_path: Path, clock: Clock) -> None:
    with FileStoreManager(tmp_path, durability="none") as store:
        store.store_segment(segment("one", 1, DATA))
    for _ in range(3):
        clock.reboot(2 * DAY)
        with FileStoreManager(tmp_path, durability="none") as store:
            answer(store)
            clock.pass_(2 * HOUR)
            assert store.expire() == []
    clock.reboot(DAY)
    with FileStoreManager(tmp_path, durability="none") as store:
        answer(store)
        assert open_ids(store) == ["one"]
        clock.pass_(HOUR)
        answer(store)
        assert open_ids(store) == []


@pytest.mark.parametrize("count", [1, 2 * SLICE + 3])
def test_times_in_the_future_begin_anew(tmp_path: Path, clock: Clock, count: int) -> None:
    """The clock was ahead when they were written: else they would stay until it has caught up."""
    with FileStoreManager(tmp_path, durability="none") as store:
        clock.jump(3650 * DAY)
        for number in range(count):
            store.store_segment(segment(f"open{number}", 1, b"x"))
            one, two = cut(b"xy", 2, file_id=f"done{number}", name=f"done{number}")
            store.store_segment(one)
            store.store_segment(two)
    clock.reboot(-3650 * DAY)
    with FileStoreManager(tmp_path, durability="none", keep_completed=2 * DAY) as store:
        for _ in range(10):
            clock.pass_(1.0)
            answer(store)
        clock.pass_(DAY)
        assert store.expire() == []
        assert store.status(f"done{count - 1}") is not None
        clock.pass_(DAY)
        for _ in range(10):
            clock.pass_(1.0)
            answer(store)
        assert [store.status(f"done{number}") for number in range(count)] == [None] * count
        assert len(open_ids(store)) == count
        clock.pass_(5 * DAY)
        assert len(store.expire()) + len(open_ids(store)) <= count
        assert open_ids(store) == []


def test_a_time_that_begins_anew_makes_no_file_trusted(tmp_path: Path, clock: Clock) -> None:
    """What a power loss has damaged since is not said to be stored."""
    *_, end = messages = cut(DATA, 2, file_id="one", name="one")
    with FileStoreManager(tmp_path, durability="none") as store:
        clock.jump(3650 * DAY)
        for message in messages:
            store.store_segment(message)
    clock.reboot(-3650 * DAY)
    found = (tmp_path / "one").stat()
    (tmp_path / "one").write_bytes(bytes(len(DATA)))
    os.utime(tmp_path / "one", ns=(found.st_atime_ns, found.st_mtime_ns))
    with FileStoreManager(tmp_path, durability="none") as store:
        for _ in range(10):
            clock.pass_(1.0)
            answer(store)
        assert store.stored_sha256("one", (tmp_path / "one").stat()) is None
        assert store.status("one") is None
        with pytest.raises(SequenceError):
            store.store_segment(end)


# --- completions ---------------------------------------------------------------------------------


@at_each_level
def test_completion_is_answered_from_for_its_time_and_then_forgotten(
    tmp_path: Path, clock: Clock, level: Level
) -> None:
    *_, end = messages = cut(DATA, 2, file_id="one", name="one")
    with FileStoreManager(tmp_path, durability=level) as store:
        for message in messages:
            store.store_segment(message)
        clock.pass_(DAY - MINUTE)
        answer(store)
        assert store.store_segment(end).file_result == "store"
        clock.pass_(MINUTE)
        answer(store)
        assert store.status("one") is None
        with pytest.raises(SequenceError) as caught:
            store.store_segment(end)
        assert caught.value.expected == 1
    assert visible(tmp_path) == {"one": DATA}


def test_completions_go_in_bounded_slices(tmp_path: Path, clock: Clock) -> None:
    count = 2 * SLICE + 3
    with FileStoreManager(tmp_path, durability="none", keep_completed=HOUR) as store:
        for number in range(count):
            store.store_segment(last(f"one{number}", 1, b"x", f"one{number}", b"x"))
        clock.pass_(HOUR)
        known = count
        for _ in range(3):
            clock.pass_(HOUR / 10)
            answer(store)
            before = known
            known = sum(store.status(f"one{number}") is not None for number in range(count))
            assert 0 < before - known <= SLICE
        assert known == 0
    assert len(visible(tmp_path)) == count


# --- orphans -------------------------------------------------------------------------------------


def leave_orphan(storage: Path, file_id: str) -> str:
    """Have a worker die between staging a first segment and recording it; the file's name."""
    FileStoreManager(storage, durability="none").close()
    before = set(staging_files(storage / ".workdir"))
    dying = partial(KillingDisk, 1, "sql", "INSERT INTO transfer")
    worker = Worker(storage, durability="none", disk=dying)
    with pytest.raises(WorkerDiedError):
        worker.store_segment(segment(file_id, 1, DATA))
    [name] = set(staging_files(storage / ".workdir")) - before
    return name


@at_each_level
def test_orphaned_staging_file_goes_by_itself_after_an_answer(tmp_path: Path, level: Level) -> None:
    leave_orphan(tmp_path, "one")
    with FileStoreManager(tmp_path, durability=level) as store:
        store.store_segment(segment("other", 1, DATA))
        [kept] = staging_files(tmp_path / ".workdir")
        assert (tmp_path / ".workdir" / "staging" / kept).read_bytes() == DATA
        assert store.store_segment(segment("other", 2, DATA)).segments_received == 2


def test_orphan_goes_only_when_its_transfers_lock_is_free(tmp_path: Path, clock: Clock) -> None:
    """Whoever holds the lock may be about to record it."""
    orphan = leave_orphan(tmp_path, "one")
    disk = StoppingDisk()
    with (
        FileStoreManager(tmp_path, durability="none", disk=disk) as busy,
        FileStoreManager(tmp_path, durability="none") as keeper,
    ):
        first = segment("one", 1, DATA)
        with disk.stopped("sql", lambda: busy.store_segment(first), words="INSERT INTO transfer"):
            both = staging_files(tmp_path / ".workdir")
            assert orphan in both
            assert len(both) == 2
            for _ in range(3):
                clock.pass_(2.0)
                answer(keeper)
            assert staging_files(tmp_path / ".workdir") == both
        for _ in range(3):
            clock.pass_(2.0)
            answer(keeper)
        [left] = staging_files(tmp_path / ".workdir")
        assert left != orphan
        assert busy.store_segment(segment("one", 2, DATA)).segments_received == 2


def test_any_number_of_orphans_goes_in_bounded_slices(tmp_path: Path, clock: Clock) -> None:
    orphan = leave_orphan(tmp_path, "one")
    staging = tmp_path / ".workdir" / "staging"
    for number in range(3 * SLICE):
        (staging / f"{orphan[:-6]}{number:06x}").write_bytes(DATA)
    with FileStoreManager(tmp_path, durability="none") as store:
        before = len(staging_files(tmp_path / ".workdir"))
        answers = 0
        while left := len(staging_files(tmp_path / ".workdir")):
            assert before - left <= SLICE
            before = left
            clock.pass_(1.0)
            answer(store)
            answers += 1
            assert answers < 20


def test_files_of_others_in_the_staging_folder_stay(tmp_path: Path, clock: Clock) -> None:
    """Only what the store made is the store's to remove."""
    FileStoreManager(tmp_path, durability="none").close()
    names = ["notes.txt", "w00-short", "x00-" + "0" * 32, "w00-" + "0" * 32 + ".bak", "W00"]
    names += ["w40-" + "0" * 32, "sff-" + "0" * 32]  # of more locks than there are
    for name in names:
        (tmp_path / ".workdir" / "staging" / name).write_bytes(b"mine")
    with FileStoreManager(tmp_path, durability="none") as store:
        for _ in range(4):
            clock.pass_(2.0)
            answer(store)
    assert staging_files(tmp_path / ".workdir") == sorted(names)


# --- the log -------------------------------------------------------------------------------------

#: Together they write some 20 MiB into the log.
CYCLES = range(3300)


def begin_and_cancel(store: FileStoreManager, number: int) -> None:
    file_id = f"{number:0200}"
    store.store_segment(segment(file_id, 1, b""))
    store.store_segment(cancel(file_id))


@pytest.mark.parametrize("level", LEVELS if FULL else ["none"])
def test_log_stays_below_16_mebibytes_under_many_writes(tmp_path: Path, level: Level) -> None:
    wal = tmp_path / ".workdir" / "journal.db-wal"
    # Several managers, of which each sees to it only after its own writes.
    stores = [FileStoreManager(tmp_path, durability=level) for _ in range(2)]
    with stores[0], stores[1]:
        for number in CYCLES:
            begin_and_cancel(stores[number % 2], number)
            assert wal.stat().st_size <= 16 * 1024 * 1024, number


def test_log_stays_bounded_beside_a_reader_that_comes_and_goes(tmp_path: Path) -> None:
    """Listing is a reader; it never keeps a checkpoint from being made for long."""
    wal = tmp_path / ".workdir" / "journal.db-wal"
    stop = threading.Event()

    def read(store: FileStoreManager) -> None:
        while not stop.is_set():
            store.transfers()

    with (
        FileStoreManager(tmp_path, durability="none") as writer,
        FileStoreManager(tmp_path, durability="none") as reader,
    ):
        thread = threading.Thread(target=read, args=(reader,))
        thread.start()
        try:
            for number in CYCLES:
                begin_and_cancel(writer, number)
                assert wal.stat().st_size <= 16 * 1024 * 1024, number
        finally:
            stop.set()
            thread.join()
