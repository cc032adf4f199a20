"""An exception in the middle of a call, as a signal handler raises it: wherever it strikes, no lock
stays held, other workers go on, and the next call of the same manager is right."""

from __future__ import annotations

import errno
import faulthandler
import logging
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from crew import apart, cancel, cut, last, segment
from support import FULL, LEVELS, at_each_level, held_locks

import txstore
from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import JournalError, SequenceError, StoreClosedError, TxStoreError
from txstore.options import Level, OnExists

pytestmark = pytest.mark.promise(7)

PACKAGE = str(Path(txstore.__file__).parent) + os.sep
DATA = bytes(range(256)) * 8
#: A call has some thousand bytecodes, and at each of them would take an hour: this is at every so
#: manieth, from another one for each level.
STEP = 29 if FULL else 307


class CutOffError(Exception):
    """What a handler raises: a soft time limit, say."""


class CutOffTimeoutError(TimeoutError):
    """What an alarm's handler raises, mostly: it looks like an error of the kernel, the more so
    with an errno."""


class Cut:
    """Raises before the n-th bytecode of the package's own code.

    :ivar left: how many more; positive at the end: the call was over before
    """

    def __init__(self, at: int) -> None:
        self.left = at
        like_the_kernels = CutOffTimeoutError(errno.ETIME, "too late")
        self._error = (CutOffError(), CutOffTimeoutError(), like_the_kernels)[at % 3]

    def __call__(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "call":
            if not frame.f_code.co_filename.startswith(PACKAGE):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self.strike()
        return self

    def strike(self) -> None:
        raise self._error


def cut_off(call: Callable[[], object], at: int) -> bool:
    """Make a call that is cut off; ``False``: it was over before."""
    cut_at = Cut(at)
    sys.settrace(cut_at)
    try:
        call()
    except (CutOffError, CutOffTimeoutError, TxStoreError):
        assert cut_at.left == 0
    finally:
        sys.settrace(None)
    return cut_at.left <= 0


#: By kind of call: the segments that are there before, what is called, and what is sent on.
ONE, TWO, THREE = cut(DATA, 3, file_id="a", name="file")
WHOLE = last("w", 1, DATA, "whole", DATA)
CALLS: dict[str, tuple[int, Callable[[FileStoreManager], object]]] = {
    "first": (0, lambda store: store.store_segment(ONE)),
    "middle": (1, lambda store: store.store_segment(TWO)),
    "repeat": (2, lambda store: store.store_segment(TWO)),
    "last": (2, lambda store: store.store_segment(THREE)),
    "one segment": (0, lambda store: store.store_segment(WHOLE)),
    # Where no file is replaced, their names are asked for under a lock.
    "last under a free name": (2, lambda store: store.store_segment(THREE)),
    "one segment under a free name": (0, lambda store: store.store_segment(WHOLE)),
    "cancel message": (1, lambda store: store.store_segment(cancel("a"))),
    "cancel": (1, lambda store: store.cancel("a")),
    "status": (1, lambda store: store.status("a")),
    "transfers": (1, lambda store: store.transfers()),
    "expire": (1, lambda store: store.expire()),
}


def go_on(store: FileStoreManager) -> None:
    """Send the file on from wherever it is, as a sender does, and again in whole."""
    number = 1
    while number < 4:
        try:
            answer = store.store_segment((ONE, TWO, THREE)[number - 1])
            number = answer.segments_received + 1
        except SequenceError as error:
            number = error.expected
    assert store.store_segment(THREE).file_result == "store"
    assert store.store_segment(WHOLE).file_result == "store"
    assert Path(store.storage_dir, "file").read_bytes() == DATA
    assert Path(store.storage_dir, "whole").read_bytes() == DATA


def everywhere(storage: Path, level: Level, kind: str) -> int:
    """In a process of its own: cut off a call at every so manieth bytecode."""
    faulthandler.dump_traceback_later(250, exit=True)
    logging.disable()
    before, call = CALLS[kind]
    on_exists: OnExists = "refuse" if "free name" in kind else "replace"
    open_store = partial(FileStoreManager, durability=level, on_exists=on_exists)
    # Python 3.13.0 tells nothing of the first bytecodes that it is asked to trace.
    with open_store(storage / "traced") as traced:
        for one in (ONE, TWO)[:before]:
            traced.store_segment(one)
        cut_off(lambda: call(traced), 1 << 30)
    at, count, going = 1 + (101 * LEVELS.index(level)) % STEP, 0, True
    while going:
        folder = storage / str(at)
        store = open_store(folder)
        for one in (ONE, TWO)[:before]:
            store.store_segment(one)
        if kind.startswith("last"):
            store.status("a")
        going = cut_off(lambda store=store: call(store), at)  # type: ignore[misc]
        assert held_locks(folder) == [], f"{kind} at {at}"
        with open_store(folder, lock_timeout=0.5) as other:
            other.store_segment(segment("other", 1, b"x"))
            if at % 2:
                go_on(other)  # what the first one kept is not current now
        store.store_segment(segment("other", 2, b"x"))
        go_on(store)
        store.close()
        with open_store(folder, lock_timeout=0.5) as third:
            assert [one.file_id for one in third.transfers()] == ["other"]
        at += STEP
        count += 1
    faulthandler.cancel_dump_traceback_later()
    return count


@pytest.mark.parametrize("kind", CALLS)
@at_each_level
def test_a_call_that_is_cut_off_anywhere_leaves_nothing_held(
    tmp_path: Path, level: Level, kind: str
) -> None:
    assert apart(everywhere, tmp_path, level, kind) > 1


def closed_everywhere(storage: Path, level: Level) -> int:
    """In a process of its own: cut off ``close`` at every so manieth bytecode."""
    faulthandler.dump_traceback_later(250, exit=True)
    logging.disable()
    with FileStoreManager(storage / "traced", durability=level) as traced:
        cut_off(traced.close, 1 << 30)
    at, count, going = 1, 0, True
    while going:
        folder = storage / str(at)
        store = FileStoreManager(folder, durability=level)
        store.store_segment(ONE)
        going = cut_off(store.close, at)
        assert held_locks(folder) == [], f"close at {at}"
        with FileStoreManager(folder, durability=level, lock_timeout=0.5) as other:
            go_on(other)
        store.close()
        with pytest.raises(StoreClosedError):
            store.transfers()
        at += 3 if FULL else 17
        count += 1
    faulthandler.cancel_dump_traceback_later()
    return count


@at_each_level
def test_a_close_that_is_cut_off_anywhere_leaves_nothing_held(tmp_path: Path, level: Level) -> None:
    assert apart(closed_everywhere, tmp_path, level) > 10


class Close(Cut):
    """Closes a manager before the n-th bytecode, and opens files which get its descriptors."""

    def __init__(self, at: int, store: FileStoreManager, beside: Path) -> None:
        super().__init__(at)
        self._store, self._beside = store, beside
        self.opened: list[int] = []

    def strike(self) -> None:
        self._store.close()
        for number in range(12):
            path = self._beside / str(number)
            path.write_bytes(b"mine")
            self.opened.append(os.open(path, os.O_RDWR))


def closed_in_the_middle(storage: Path, level: Level, kind: str) -> int:
    """In a process of its own: a handler closes the manager at every so manieth bytecode."""
    faulthandler.dump_traceback_later(250, exit=True)
    before, call = CALLS[kind]
    at, count, going = 1, 0, True
    while going:
        folder, beside = storage / str(at), storage / f"beside-{at}"
        beside.mkdir()
        store = FileStoreManager(folder, durability=level)
        for one in (ONE, TWO)[:before]:
            store.store_segment(one)
        closing = Close(at, store, beside)
        sys.settrace(closing)
        try:
            call(store)
        except StoreClosedError:
            pass  # it had not begun; any other error is one of a descriptor that is not its own
        finally:
            sys.settrace(None)
        going = closing.left <= 0
        for number, fd in enumerate(closing.opened):
            assert os.path.samestat(os.fstat(fd), os.stat(beside / str(number)))
            assert os.pread(fd, 100, 0) == b"mine"
            os.close(fd)
        store.close()
        assert held_locks(folder) == [], f"{kind} at {at}"
        with pytest.raises(StoreClosedError):
            store.transfers()
        with FileStoreManager(folder, durability=level, lock_timeout=0.5) as other:
            go_on(other)
        at += STEP
        count += 1
    faulthandler.cancel_dump_traceback_later()
    return count


@pytest.mark.parametrize("kind", ["middle", "last", "cancel", "status"])
@at_each_level
def test_a_call_in_whose_middle_a_handler_closes_the_manager_ends_well(
    tmp_path: Path, level: Level, kind: str
) -> None:
    """It uses descriptors to its end; closed before, they would be the application's next ones."""
    assert apart(closed_in_the_middle, tmp_path, level, kind) > 1


class Fork(Cut):
    """Forks before the n-th bytecode; the child uses the manager.

    :ivar code: exit code of the child: how its call ended
    """

    def __init__(self, at: int, store: FileStoreManager) -> None:
        super().__init__(at)
        self._store, self.code = store, 0

    def strike(self) -> None:
        child = os.fork()
        if child == 0:
            try:
                self._store.transfers()
                os._exit(0)
            except JournalError as error:
                os._exit(error.errno or 1)
            finally:
                os._exit(1)
        self.code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def forked_in_the_middle(storage: Path, level: Level, kind: str) -> int:
    """In a process of its own: a handler forks at every so manieth bytecode of a call."""
    faulthandler.dump_traceback_later(250, exit=True)
    before, call = CALLS[kind]
    at, count, going = 1, 0, True
    while going:
        folder = storage / str(at)
        store = FileStoreManager(folder, durability=level)
        for one in (ONE, TWO)[:before]:
            store.store_segment(one)
        forking = Fork(at, store)
        sys.settrace(forking)
        try:
            call(store)
        finally:
            sys.settrace(None)
        going = forking.left <= 0
        assert forking.code in (0, errno.EBADF), f"{kind} at {at}"
        assert held_locks(folder) == [], f"{kind} at {at}"
        with FileStoreManager(folder, durability=level, lock_timeout=0.5) as other:
            go_on(other)
        go_on(store)
        store.close()
        at += STEP if FULL else 61
        count += 1
    faulthandler.cancel_dump_traceback_later()
    return count


@pytest.mark.parametrize("kind", ["last", "one segment", "cancel"])
@at_each_level
def test_a_call_in_whose_middle_a_handler_forks_goes_on(
    tmp_path: Path, level: Level, kind: str
) -> None:
    assert apart(forked_in_the_middle, tmp_path, level, kind) > 1


def by_signals(storage: Path, level: Level, error: type[BaseException]) -> None:
    """A timer's handler raises at random moments, while one manager is used on and on."""
    faulthandler.dump_traceback_later(120, exit=True)
    logging.disable()
    chance = random.Random(7)

    def handler(_number: int, _frame: object) -> None:
        raise error

    signal.signal(signal.SIGALRM, handler)
    store = FileStoreManager(storage, durability=level)
    count = 0
    for turn in range(800 if FULL else 100):
        name = f"file{turn % 3}"
        parts = cut(DATA, 3, file_id=name, name=name)
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0002, 0.004))
            for number in range(3):
                store.store_segment(parts[number])
            signal.setitimer(signal.ITIMER_REAL, 0)
        except error:
            count += 1
        except (TxStoreError, OSError):
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert held_locks(storage) == []
        if turn % 10 == 0:
            with FileStoreManager(storage, durability=level, lock_timeout=0.5) as other:
                other.store_segment(segment(f"other{turn}", 1, b"x"))
                for row in other.transfers():
                    other.cancel(row.file_id)
        elif store.status(name) is not None:
            store.cancel(name)
    assert count > 10
    store.close()
    with FileStoreManager(storage, durability=level, lock_timeout=0.5) as other:
        other.store_segment(segment("end", 1, b"x"))
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize("error", [CutOffError, KeyboardInterrupt, TimeoutError])
@at_each_level
def test_handlers_that_raise_at_random_moments_leave_nothing_held(
    tmp_path: Path, level: Level, error: type[BaseException]
) -> None:
    apart(by_signals, tmp_path, level, error)


class StrikingConnection(sqlite3.Connection):
    """Raises after the n-th statement, whose cursor is in the traceback then."""

    left = 0

    def execute(self, *args: Any) -> sqlite3.Cursor:
        cursor = super().execute(*args)
        type(self).left -= 1
        if self.left == 0:
            raise CutOffError(cursor)
        return cursor


class StrikingDisk(Disk):
    sqlite_connection = StrikingConnection


@at_each_level
def test_others_go_on_while_the_exception_is_being_handled(tmp_path: Path, level: Level) -> None:
    """At each statement of a file's three messages."""
    opened = partial(FileStoreManager, tmp_path, durability=level, lock_timeout=2)
    struck = nth = 0
    with opened() as other:
        while struck == nth:
            nth += 1
            with opened(disk=StrikingDisk()) as store:
                StrikingConnection.left = nth
                for message in cut(DATA, 3, file_id=f"mine{nth}", name="file"):
                    try:
                        store.store_segment(message)
                    except CutOffError:
                        struck += 1
                        other.store_segment(segment(f"other{nth}", 1, b"1"))
                        store.store_segment(message)
                StrikingConnection.left = 0
    assert struck > 9
