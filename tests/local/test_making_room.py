"""What is over is dropped when space is needed, before an error says that there is none."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from crew import apart, forked, last, segment, staging_files, visible
from seam import StoppingDisk, WatchedDisk
from small_disks import BIG, SMALL, fill, here, small_disk
from support import at_each_level, get_own_mounts, outcome

from txstore import FileStoreManager
from txstore.errors import JournalError, SequenceError
from txstore.local.locks import stripe_of
from txstore.options import Level
from txstore.protocol.request import Message
from txstore.testing import FaultyDisk

WEEK = 7 * 86400.0


def later(seconds: float) -> None:
    """Let time pass for this process, and those that it forks."""
    real = time.clock_gettime
    time.clock_gettime = lambda clock: real(clock) + seconds


def live_first(store: FileStoreManager) -> FileStoreManager:
    """Several abandoned transfers, and one that is worked on."""
    for number in range(4):
        store.store_segment(segment(f"old{number}", 1, BIG))
    store.store_segment(segment("live", 1, SMALL))
    return store


def wants(store: FileStoreManager, what: str) -> None:
    """Send something for which there is no space before the abandoned ones are gone."""
    if what == "first":
        assert store.store_segment(segment("new", 1, BIG)).segments_received == 1
    elif what == "next":
        assert store.store_segment(segment("live", 2, BIG)).segments_received == 2
    elif what == "last":
        store.store_segment(last("live", 2, BIG, "live", SMALL + BIG))
    else:
        store.store_segment(last("one", 1, BIG, "one", BIG))


def over_on_full_disk(tmp: Path, level: Level, what: str, run: Callable[..., None]) -> None:
    get_own_mounts()
    disk = small_disk(tmp / "disk")
    with FileStoreManager(disk / "storage", durability=level) as store:
        live_first(store)
        later(WEEK)
        store.store_segment(segment("live", 1, SMALL))  # its sender is at it
        # The answer to it dropped what was over: others take their place.
        for number in range(4):
            store.store_segment(segment(f"old{number}", 1, BIG))
        later(WEEK)
        with FileStoreManager(disk / "storage", expire_after=2 * WEEK) as other:
            other.store_segment(segment("live", 1, SMALL))
        fill(disk)
        run(sent, disk, level, what, store)


def sent(disk: Path, level: Level, what: str, live: FileStoreManager) -> None:
    stores = [live]
    if what == "opened":
        what = "next"
        live.close()
        fill(disk)
        stores = [FileStoreManager(disk / "storage", durability=level)]
    with stores[0] as store:
        try:
            wants(store, what)
        except OSError as refused:
            raise AssertionError(
                f"promise 6: refused, though something is over: {refused}"
            ) from None
        left = {one.file_id for one in store.transfers()}
        assert left == {"first": {"live", "new"}, "last": set()}.get(what, {"live"})
        assert len(staging_files(Path(store.working_dir))) == len(left)
        status = store.status("live")
        assert status is not None


@pytest.mark.parametrize("what", ["first", "next", "last", "one", "opened"])
@at_each_level
def test_what_is_over_goes_before_a_message_is_refused_for_lack_of_space(
    tmp_path: Path, level: Level, what: str
) -> None:
    apart(over_on_full_disk, tmp_path, level, what, here)


def test_forked_worker_makes_room_on_a_full_disk(tmp_path: Path) -> None:
    apart(over_on_full_disk, tmp_path, "segment", "next", forked)


class FullDisk(WatchedDisk):
    """Says that there is no space, until something was dropped.

    :ivar fails: the operation; of SQLite's statements how one begins
    :ivar error: what the kernel says
    """

    def __init__(self) -> None:
        super().__init__()
        self.fails, self.error, self.refused = "", errno.ENOSPC, 0

    def before(self, operation: str, *facts: Any) -> None:
        statement = facts[0] if operation == "sql" else ""
        if statement.startswith("DELETE FROM transfer"):
            self.fails = ""
        if self.fails and (operation == self.fails or statement.startswith(self.fails)):
            self.refused += 1
            if operation == "sql":
                raise sqlite3.OperationalError("database or disk is full")
            raise OSError(self.error, os.strerror(self.error))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass."""
    ticks = 1000.0
    monkeypatch.setattr(time, "clock_gettime", lambda _clock: ticks)

    def pass_(seconds: float) -> None:
        nonlocal ticks
        ticks += seconds

    return pass_


FIRST, NEXT = segment("new", 1, SMALL), segment("live", 2, BIG)
LAST = last("live", 2, BIG, "a/live", SMALL + BIG)
WHOLE = last("one", 1, BIG, "one", BIG)


@pytest.mark.parametrize(
    ("fails", "error", "message", "level"),
    [
        ("pwrite", errno.ENOSPC, NEXT, "segment"),
        ("pwrite", errno.EDQUOT, NEXT, "file"),
        ("pwrite", errno.EDQUOT, NEXT, "none"),
        ("create", errno.ENOSPC, FIRST, "none"),
        ("flush", errno.ENOSPC, NEXT, "segment"),
        ("flush_all", errno.EDQUOT, LAST, "file"),
        ("INSERT INTO transfer", errno.ENOSPC, FIRST, "segment"),
        ("UPDATE transfer", errno.ENOSPC, NEXT, "segment"),
        ("UPDATE transfer", errno.ENOSPC, LAST, "none"),
        ("INSERT INTO completion", errno.ENOSPC, WHOLE, "file"),
        ("make_folder", errno.ENOSPC, LAST, "segment"),
        ("rename", errno.EDQUOT, LAST, "segment"),
    ],
)
def test_step_that_found_no_space_is_tried_once_more(
    tmp_path: Path,
    clock: Callable[[float], None],
    fails: str,
    error: int,
    message: Message,
    level: Level,
) -> None:
    disk = FullDisk()
    with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
        store.store_segment(segment("old", 1, BIG))
        clock(WEEK / 2)
        store.store_segment(segment("live", 1, SMALL))
        clock(WEEK / 2)
        disk.fails, disk.error = fails, error
        try:
            store.store_segment(message)
        except OSError as refused:
            pytest.fail(f"promise 6: refused, though room could be made: {refused}")
        assert disk.refused >= 1
        left = [one.file_id for one in store.transfers()]
        expected = {id(FIRST): ["live", "new"], id(LAST): []}
        assert left == expected.get(id(message), ["live"])
    files = {id(LAST): {"a/live": SMALL + BIG}, id(WHOLE): {"one": BIG}}
    assert visible(tmp_path) == files.get(id(message), {})


@at_each_level
def test_where_nothing_is_over_the_error_comes_at_once(tmp_path: Path, level: Level) -> None:
    disk = FullDisk()
    with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
        store.store_segment(segment("one", 1, SMALL))
        for fails in ("pwrite", "UPDATE transfer"):
            disk.fails, before = fails, disk.refused
            with pytest.raises(OSError, match=r"space|full") as caught:
                store.store_segment(segment("one", 2, BIG))
            assert caught.value.errno == errno.ENOSPC
            # The journal tries each statement again after a checkpoint.
            assert disk.refused - before == (1 if fails == "pwrite" else 2)
            disk.fails = ""
        assert store.store_segment(segment("one", 2, BIG)).segments_received == 2


def test_transfer_of_the_same_lock_makes_room_too(tmp_path: Path) -> None:
    """Transfers share 64 locks; the one that holds all the space may be one of the call's own."""
    disk = FullDisk()
    old = next(name for name in map(str, count()) if stripe_of(name.encode()) == stripe_of(b"new"))
    with FileStoreManager(tmp_path, durability="none") as other:
        other.store_segment(segment(old, 1, BIG))
    with FileStoreManager(tmp_path, durability="none", expire_after=0, disk=disk) as store:
        disk.fails = "create"
        assert store.store_segment(segment("new", 1, SMALL)).segments_received == 1
        left = [one.file_id for one in store.transfers()]
        assert left == ["new"], "promise 9: a transfer in use was dropped"


@at_each_level
def test_transfer_that_needs_the_room_is_not_dropped_for_it(tmp_path: Path, level: Level) -> None:
    disk = FullDisk()
    with FileStoreManager(tmp_path, durability=level, expire_after=0, disk=disk) as store:
        store.store_segment(segment("one", 1, SMALL))
        disk.fails = "pwrite"
        with suppress(OSError, SequenceError):
            store.store_segment(segment("one", 2, SMALL))
        assert len(store.transfers()) == 1, "promise 9: a transfer in use was dropped"
        assert disk.refused == 1
        disk.fails = ""
        assert store.store_segment(segment("one", 2, SMALL)).segments_received == 2


def test_transfer_that_somebody_works_on_is_not_waited_for(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    stopping, disk = StoppingDisk(), FullDisk()
    with (
        FileStoreManager(tmp_path, durability="none", disk=stopping) as busy,
        FileStoreManager(tmp_path, durability="none", disk=disk) as store,
    ):
        busy.store_segment(segment("busy", 1, SMALL))
        clock(WEEK)
        with stopping.stopped("pwrite", lambda: busy.store_segment(segment("busy", 2, SMALL))):
            disk.fails = "pwrite"
            with pytest.raises(OSError, match="No space"):
                store.store_segment(segment("live", 1, SMALL))
        assert busy.store_segment(segment("busy", 3, SMALL)).segments_received == 3


def test_orphan_makes_room(tmp_path: Path) -> None:
    FileStoreManager(tmp_path, durability="none").close()
    staging = tmp_path / ".workdir" / "staging"
    for number in range(100):
        (staging / f"w00-{number:032x}").write_bytes(BIG)

    class Full(FullDisk):
        def before(self, operation: str, *facts: Any) -> None:
            if operation == "unlink":
                self.fails = ""
            super().before(operation, *facts)

    disk = Full()
    with FileStoreManager(tmp_path, durability="none", disk=disk) as store:
        disk.fails = "pwrite"
        assert store.store_segment(segment("one", 1, SMALL)).segments_received == 1
        assert len(staging_files(tmp_path / ".workdir")) == 1


def test_failure_while_room_is_made_leaves_the_first_error(tmp_path: Path) -> None:
    class Worse(FullDisk):
        def before(self, operation: str, *facts: Any) -> None:
            if self.fails and operation == "sql" and facts[0].startswith("DELETE FROM transfer"):
                raise sqlite3.OperationalError("disk I/O error")
            super().before(operation, *facts)

    disk = Worse()
    with FileStoreManager(tmp_path, durability="none", expire_after=0, disk=disk) as store:
        store.store_segment(segment("old", 1, SMALL))
        disk.fails = "pwrite"
        with pytest.raises(OSError, match="No space") as caught:
            store.store_segment(segment("new", 1, SMALL))
        assert not isinstance(caught.value, JournalError)
        disk.fails = ""
        assert store.store_segment(segment("new", 1, SMALL)).segments_received == 1


@at_each_level
def test_cancel_never_tells_less_than_it_dropped(
    tmp_path: Path, clock: Callable[[float], None], level: Level
) -> None:
    """The flush after its commit finds no space: made again, it finds nothing to drop any more."""
    for nth in range(1, 7):
        disk = FaultyDisk()
        with FileStoreManager(tmp_path / str(nth), durability=level, disk=disk) as store:
            store.store_segment(segment("old", 1, BIG))
            clock(WEEK / 2)
            store.store_segment(segment("live", 1, SMALL))
            clock(WEEK / 2)
            disk.faults.fail("change", errno.ENOSPC, nth=nth)
            told = outcome(store.cancel, "live")
            if not isinstance(told, OSError):
                assert getattr(told, "segments_received", None) == 1, f"change {nth}: {told!r}"
