"""Forks: a manager may be used on both sides, and no lock, descriptor or acknowledgement is lost.

SQLite's locks do not survive a fork, its tables in memory do; locks on descriptors are shared by
all copies of them; a thread that held a lock does not live in the child.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crew import apart, cancel, cut, forked, last, segment, visible, wait_for
from seam import StoppingDisk, WatchedDisk
from support import FULL, LEVELS, at_each_level, held_locks

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import LockTimeoutError
from txstore.options import Level

DATA = bytes(range(256)) * 8
ROUNDS = 40 if FULL else 8


# --- looking -------------------------------------------------------------------------------------


def descriptors_of(storage: Path, pid: int | str = "self") -> list[str]:
    """The files and folders of the store that a process has open, folders that stay so aside."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{fd}").removesuffix(" (deleted)")
        except FileNotFoundError:
            continue
        if path.startswith(str(storage)):
            found.append(path[len(str(storage)) + 1 :])
    return sorted(found)


LOCK = re.compile(r"\.workdir/locks/.")
JOURNAL = re.compile(r"\.workdir/journal\.db")
STAGED = re.compile(r"\.workdir/staging/.")


class Acks:
    """What was answered, noted by any number of processes where it outlives them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def note(self, file_id: str, count: int) -> None:
        with open(self.folder / file_id, "a", encoding="ascii") as file:
            file.write(f"{count}\n")

    def all(self) -> dict[str, int]:
        return {one.name: int(one.read_text().split()[-1]) for one in self.folder.iterdir()}


def send(store: FileStoreManager, acks: Acks, file_id: str, numbers: range) -> None:
    for number in numbers:
        acks.note(file_id, store.store_segment(segment(file_id, number, b"x")).segments_received)


def check_all_kept(storage: Path, acks: Acks, level: Level = "none") -> None:
    """Another process has every acknowledged segment, and nothing that nobody sent."""
    with FileStoreManager(storage, durability=level) as third:
        assert {one.file_id: one.segments_received for one in third.transfers()} == acks.all()
        for file_id in acks.all():
            assert third.status(file_id) is not None


# --- acknowledgements ----------------------------------------------------------------------------


def both_sides(storage: Path, acks: Acks, level: Level) -> None:
    store = FileStoreManager(storage, durability=level)
    stop = threading.Event()

    def write(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            send(store, acks, name, range(number, number + 1))

    def child(name: str) -> None:
        send(store, acks, name, range(1, 6))
        forked(send, store, acks, f"{name}-grandchild", range(1, 4))
        send(store, acks, name, range(6, 8))

    store.store_segment(last("old", 1, DATA, "old", DATA))
    threads = [threading.Thread(target=write, args=(f"thread{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(ROUNDS):
            forked(child, f"child{number}")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@at_each_level
def test_manager_is_used_on_both_sides_while_threads_write(tmp_path: Path, level: Level) -> None:
    storage, acks = tmp_path / "storage", Acks(tmp_path / "acks")
    apart(both_sides, storage, acks, level)
    assert len(acks.all()) == 3 + 2 * ROUNDS
    check_all_kept(storage, acks, level)


def parent_closes(storage: Path, acks: Acks, level: Level, when: str) -> None:
    """SQLite deletes the log when the last connection closes that it knows of."""
    store = FileStoreManager(storage, durability=level)
    send(store, acks, "parent", range(1, 4))
    ours, theirs = multiprocessing.Pipe()

    def child() -> None:
        if when == "after the child's first call":
            send(store, acks, "child", range(1, 4))
        theirs.send("ready")
        theirs.recv()
        done = acks.all().get("child", 0)
        send(store, acks, "child", range(done + 1, done + 8))
        theirs.send("done")
        theirs.recv()

    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    ours.recv()
    store.close()
    ours.send("closed")
    ours.recv()
    # While the child lives, and then after it has ended without closing.
    forked(check_all_kept, storage, acks, level)
    ours.send("end")
    os.waitpid(pid, 0)


@pytest.mark.parametrize("when", ["before the child's first call", "after the child's first call"])
@at_each_level
def test_parent_that_closes_takes_nothing_from_its_child(
    tmp_path: Path, level: Level, when: str
) -> None:
    storage, acks = tmp_path / "storage", Acks(tmp_path / "acks")
    apart(parent_closes, storage, acks, level, when)
    assert set(acks.all()) == {"parent", "child"}
    check_all_kept(storage, acks, level)


SCRIPT = """
import os, sys
from test_forks import *
def main(storage, folder, level, way):
    acks = Acks.__new__(Acks)
    acks.folder = Path(folder)
    store = FileStoreManager(storage, durability=level)
    send(store, acks, "parent", range(1, 4))
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            if number != 1:  # one that does nothing ends, too
                send(store, acks, f"child{number}", range(1, 4))
            if way == "closes":
                store.close()
            if way == "_exit":
                os._exit(0)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        send(store, acks, "parent", range(4 + number, 5 + number))
        assert held_locks(Path(storage)) == []
    if way == "closes":
        store.close()
main(*sys.argv[1:])
"""


@pytest.mark.parametrize("way", ["_exit", "sys.exit", "closes"])
@pytest.mark.parametrize("level", LEVELS if FULL else ["segment"])
def test_child_that_ends_takes_nothing_from_its_parent(
    tmp_path: Path, level: Level, way: str
) -> None:
    """With finalizers and `atexit` and without."""
    storage, acks = tmp_path / "storage", Acks(tmp_path / "acks")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, storage, acks.folder, level, way],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert acks.all() == {"parent": 6, "child0": 3, "child2": 3}
    check_all_kept(storage, acks, level)


# --- locks and descriptors -----------------------------------------------------------------------


def calls_of(store: FileStoreManager) -> dict[str, Callable[[], object]]:
    one, two, three = cut(DATA, 3, file_id="one", name="folder/one")
    return {
        "first segment": lambda: store.store_segment(one),
        "next segment": lambda: store.store_segment(two),
        "repeat": lambda: store.store_segment(two),
        "status": lambda: store.status("one"),
        "transfers": store.transfers,
        "last segment": lambda: store.store_segment(three),
        "repeated last segment": lambda: store.store_segment(three),
        "one segment": lambda: store.store_segment(last("s", 1, DATA, "single", DATA)),
        "cancel message": lambda: store.store_segment(cancel("none")),
        "cancel": lambda: store.cancel("none"),
        "expire": store.expire,
    }


def around_each_call(storage: Path, level: Level) -> None:
    store = FileStoreManager(storage, durability=level)
    # So many that not all are kept open, and that looking for orphans stops in the middle.
    for number in range(40):
        store.store_segment(segment(f"other{number}", 1, b"x"))

    def child(after: str) -> None:
        found = descriptors_of(storage)
        kept = [name for name in found if any(kind.match(name) for kind in (LOCK, JOURNAL, STAGED))]
        assert kept == [], f"the child has after {after!r}"
        assert len(found) < 10, found
        assert held_locks(storage) == [], f"locks are held after {after!r}"

    for name, call in calls_of(store).items():
        call()
        forked(child, name)
        # The connection is closed for a fork; nothing else needs to be, nor is more opened.
        assert held_locks(storage) == [], f"locks are held after {name!r}"
    store.close()
    assert descriptors_of(storage) == []


@at_each_level
def test_child_inherits_no_lock_and_no_descriptor_of_a_file(tmp_path: Path, level: Level) -> None:
    apart(around_each_call, tmp_path, level)


def in_the_middle(storage: Path, operation: str, level: Level) -> None:
    """The thread that has the locks does not live in the child."""
    disk = StoppingDisk()
    store = FileStoreManager(storage, durability=level, disk=disk, lock_timeout=0.1)
    one, two, three = cut(DATA, 3, file_id="one", name="one")
    store.store_segment(one)
    store.store_segment(two)

    def child() -> None:
        inherited = [name for name in descriptors_of(storage) if LOCK.match(name)]
        assert inherited == []
        assert [name for name in descriptors_of(storage) if JOURNAL.match(name)] == []
        with pytest.raises(LockTimeoutError):
            store.status("one")  # the parent has it
        assert len(store.transfers()) == 1
        store.store_segment(segment("other", 1, b"x"))
        store.close()

    with disk.stopped(operation, lambda: store.store_segment(three)):
        before = held_locks(storage)
        assert any(name.startswith("transfer-") for name in before)
        forked(child)
        assert held_locks(storage) == before, "the child freed its parent's lock"
    assert visible(storage) == {"one": DATA}
    assert held_locks(storage) == []
    assert store.store_segment(segment("other", 2, b"x")).segments_received == 2


@pytest.mark.parametrize("operation", ["pwrite", "chmod", "rename"])
@at_each_level
def test_child_of_a_busy_parent_neither_has_nor_frees_its_locks(
    tmp_path: Path, level: Level, operation: str
) -> None:
    apart(in_the_middle, tmp_path, operation, level)


def parent_is_killed(storage: Path, level: Level, operation: str) -> None:
    pipe, theirs = multiprocessing.Pipe()
    one, two, three = cut(DATA, 3, file_id="one", name="one")

    def child() -> None:
        theirs.send(os.getpid())
        signal.pause()

    def parent() -> None:
        disk = StoppingDisk()
        store = FileStoreManager(storage, durability=level, disk=disk)
        store.store_segment(one)
        store.store_segment(two)
        with disk.stopped(operation, lambda: store.store_segment(three)):
            if os.fork() == 0:
                child()
            signal.pause()

    pid = os.fork()
    if pid == 0:
        parent()
        os._exit(1)
    living = pipe.recv()
    try:
        assert held_locks(storage) != []
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert held_locks(storage) == []
        with FileStoreManager(storage, durability=level, lock_timeout=1) as store:
            assert store.store_segment(three).file_result == "store"
        os.kill(living, 0)  # all the while
    finally:
        os.kill(living, signal.SIGKILL)


@pytest.mark.parametrize("operation", ["pwrite", "rename"])
@at_each_level
def test_killed_parent_frees_its_locks_although_a_child_lives(
    tmp_path: Path, level: Level, operation: str
) -> None:
    apart(parent_is_killed, tmp_path, level, operation)
    assert visible(tmp_path) == {"one": DATA}


def while_opening(storage: Path, acks: Acks, statement: int) -> None:
    """A fork waits for a manager that another thread is opening: SQLite is at work in it."""

    class OpeningDisk(WatchedDisk):
        left = statement

        def before(self, operation: str, *facts: Any) -> None:
            del facts
            if operation == "sql":
                self.left -= 1
                if self.left == 0:
                    inside.set()
                    # A fork that does not wait is over by then.
                    forked_already.wait(0.2)

    inside, forked_already = threading.Event(), threading.Event()
    opened: list[FileStoreManager] = []
    thread = threading.Thread(
        target=lambda: opened.append(FileStoreManager(storage, disk=OpeningDisk()))
    )
    thread.start()
    inside.wait(5)

    def child() -> None:
        assert [name for name in descriptors_of(storage) if JOURNAL.match(name)] == []
        with FileStoreManager(storage) as store:
            send(store, acks, f"child{statement}", range(1, 4))

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    forked_already.set()
    thread.join(60)
    [store] = opened
    send(store, acks, f"parent{statement}", range(1, 4))
    store.close()
    assert os.waitpid(pid, 0)[1] == 0


def test_fork_waits_for_a_manager_that_is_being_opened(tmp_path: Path) -> None:
    storage, acks = tmp_path / "storage", Acks(tmp_path / "acks")
    for statement in range(1, 25, 1 if FULL else 5):
        apart(while_opening, storage, acks, statement)
    check_all_kept(storage, acks)


def two_forking(storage: Path, acks: Acks) -> None:
    store = FileStoreManager(storage, durability="none")
    failed = []

    def fork(thread: int) -> None:
        for number in range(ROUNDS):
            try:
                forked(send, store, acks, f"child{thread}-{number}", range(1, 3))
            except AssertionError as error:
                failed.append(error)
                raise

    threads = [threading.Thread(target=fork, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    number = 0
    while any(thread.is_alive() for thread in threads):
        number += 1
        send(store, acks, "main", range(number, number + 1))
    assert failed == []


def test_several_threads_fork_at_once(tmp_path: Path) -> None:
    storage, acks = tmp_path / "storage", Acks(tmp_path / "acks")
    apart(two_forking, storage, acks)
    assert len(acks.all()) == 3 * ROUNDS + 1
    check_all_kept(storage, acks)


def executed(storage: Path) -> None:
    disk = StoppingDisk()
    store = FileStoreManager(storage, durability="segment", disk=disk)
    store.store_segment(segment("one", 1, DATA))
    with disk.stopped("pwrite", lambda: store.store_segment(segment("one", 2, DATA))):
        process = subprocess.Popen(["sleep", "60"], close_fds=False)
        try:
            wait_for(
                lambda: os.readlink(f"/proc/{process.pid}/exe") != os.readlink("/proc/self/exe")
            )
            assert descriptors_of(storage, process.pid) == []
        finally:
            process.kill()
            process.wait()


def test_program_that_is_started_inherits_no_descriptor(tmp_path: Path) -> None:
    apart(executed, tmp_path)


# --- multiprocessing -----------------------------------------------------------------------------

_inherited: list[FileStoreManager] = []


def work(storage: Path, acks: Acks, name: str) -> None:
    """In a child: with the inherited manager, if there is one."""
    if _inherited:
        send(_inherited[0], acks, name, range(1, 5))
        return
    with FileStoreManager(storage, durability="segment") as store:
        send(store, acks, name, range(1, 5))


def with_multiprocessing(storage: Path, acks: Acks, method: str) -> None:
    store = FileStoreManager(storage, durability="segment")
    send(store, acks, "parent", range(1, 3))
    _inherited.append(store)
    context = multiprocessing.get_context(method)
    children = [
        context.Process(target=work, args=(storage, acks, f"child{number}"))  # type: ignore[attr-defined]
        for number in range(2)
    ]
    for child in children:
        child.start()
    send(store, acks, "parent", range(3, 9))
    for child in children:
        child.join()
        assert child.exitcode == 0
    with context.Pool(2) as pool:
        pool.starmap(work, [(storage, acks, f"pooled{number}") for number in range(2)])
    store.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_manager_is_used_with_multiprocessing(tmp_path: Path, method: str) -> None:
    storage, acks = tmp_path / "storage", Acks(tmp_path / "acks")
    apart(with_multiprocessing, storage, acks, method)
    assert len(acks.all()) == 5
    check_all_kept(storage, acks, "segment")


# --- the collector -------------------------------------------------------------------------------


def leave_cycles(folder: Path, disk: Disk | None = None) -> None:
    """Managers that only the collector finds: it runs at any moment, in any thread."""
    for number in range(8):
        store = FileStoreManager(folder / str(number), durability="none", disk=disk)
        store.store_segment(segment("one", 1, b"x"))
        store.me = store  # type: ignore[attr-defined]


def collected_by_the_forking_thread(folder: Path) -> None:
    class CollectingDisk(Disk):
        armed = False

        def unlock(self, fd: int, byte: int) -> None:
            if self.armed:
                gc.collect()
            super().unlock(fd, byte)

    leave_cycles(folder)
    disk = CollectingDisk()
    store = FileStoreManager(folder / "live", durability="none", disk=disk)
    store.store_segment(segment("one", 1, b"x"))
    disk.armed = True  # from here on, while the fork has the live one let go
    fork_and_go_on(folder, store)


def collected_by_another_thread(folder: Path) -> None:
    inside, forking = threading.Event(), threading.Event()
    main = threading.get_ident()

    class ForkedDisk(Disk):
        """Tells that the fork has a dropped manager in its hands."""

        def unlock(self, fd: int, byte: int) -> None:
            super().unlock(fd, byte)
            if inside.is_set() and threading.get_ident() == main:
                forking.set()

    class CollectingDisk(Disk):
        def size(self, fd: int) -> int:
            if threading.get_ident() != main and not inside.is_set():
                inside.set()  # in the middle of a call, which the fork waits for
                forking.wait(1)  # not for ever: the fork may come to the live one first
                gc.collect()
            return super().size(fd)

    store = FileStoreManager(folder / "live", durability="none", disk=CollectingDisk())
    leave_cycles(folder, ForkedDisk())
    thread = threading.Thread(target=store.store_segment, args=(segment("one", 1, b"x"),))
    thread.start()
    inside.wait()
    forked(lambda: None)
    thread.join()
    fork_and_go_on(folder, store)


def fork_and_go_on(folder: Path, store: FileStoreManager) -> None:
    forked(store.store_segment, segment("one", 2, b"y"))
    assert store.store_segment(segment("one", 3, b"z")).segments_received == 3
    store.close()
    for number in range(8):
        with FileStoreManager(folder / str(number), durability="none", lock_timeout=0) as other:
            assert other.store_segment(segment("one", 2, b"y")).segments_received == 2
        assert descriptors_of(folder / str(number)) == []


def without_a_deadlock(function: Callable[[Path], None], folder: Path) -> None:
    """In a process of its own, where nothing is collected but when the test says so."""
    faulthandler.dump_traceback_later(30, exit=True)
    gc.disable()
    for turn in ("one", "two"):  # the order in which a fork comes to managers is by chance
        function(folder / turn)


@pytest.mark.parametrize("function", [collected_by_the_forking_thread, collected_by_another_thread])
def test_manager_that_is_collected_in_the_middle_of_a_fork_holds_nobody_up(
    tmp_path: Path, function: Callable[[Path], None]
) -> None:
    apart(without_a_deadlock, function, tmp_path)


class InterruptedDisk(Disk):
    """Raises what a Ctrl-C raises, while a lock is taken."""

    interrupts = False

    def try_lock(self, fd: int, byte: int) -> bool:
        if self.interrupts:
            raise KeyboardInterrupt
        return super().try_lock(fd, byte)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_manager_whose_letting_go_is_interrupted_takes_no_connection_along(
    tmp_path: Path,
) -> None:
    """Nor does any other manager: the fork takes place all the same."""
    disk = InterruptedDisk()
    folders = [tmp_path / str(one) for one in range(8)]
    stores = [FileStoreManager(one, disk=disk) for one in folders[:4]]
    stores += [FileStoreManager(one) for one in folders[4:]]
    for store in stores:
        store.store_segment(segment("a", 1, DATA))
    disk.interrupts = True
    forked(lambda: None)
    disk.interrupts = False
    for folder in folders:
        assert not [one for one in descriptors_of(folder) if JOURNAL.match(one)]
    for store in stores:
        store.store_segment(segment("a", 2, DATA))
        store.close()
