"""A process that is not the one that made the manager, without Python having been told: forks that
are made in C, uWSGI's among them, and daemons that close all descriptors."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crew import apart, cut, segment, visible
from seam import StoppingDisk
from support import at_each_level

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import JournalError, TxStoreError
from txstore.local.files.descriptors import descriptors_of
from txstore.local.journal import handles, inherited
from txstore.options import Level

pytestmark = pytest.mark.promise(7)

DATA = bytes(range(256)) * 8

#: ``CDLL`` lets go of the interpreter's lock around the call, ``PyDLL`` keeps it.
LIBRARIES = {"CDLL": ctypes.CDLL, "PyDLL": ctypes.PyDLL}


def forked_in_c(function: Callable[..., object], *args: Any, library: str = "PyDLL") -> None:
    """Run a function in a child of which Python is not told, and wait for it."""
    pid = LIBRARIES[library](None).fork()
    if pid == 0:
        code = 1
        try:
            function(*args)
            code = 0
        except BaseException:  # noqa: BLE001 - it must not go on as its parent
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def sqlite_locks(storage: Path) -> set[int]:
    """The processes that hold locks of SQLite on the journal, its index included."""
    inodes = {
        (storage / ".workdir" / name).stat().st_ino for name in ("journal.db", "journal.db-shm")
    }
    found = set()
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        words = line.split()
        if "POSIX" in words and int(words[-3].rpartition(":")[2]) in inodes:
            found.add(int(words[-4]))
    return found


# --- forks in C ----------------------------------------------------------------------------------


def child_goes_on(storage: Path, level: Level, library: str) -> None:
    store = FileStoreManager(storage, durability=level)
    one, two, three = cut(DATA, 3, file_id="one", name="one")
    store.store_segment(one)
    ours = len(os.listdir("/proc/self/fd"))

    def child() -> None:
        store.store_segment(two)
        # SQLite has to have locks of its own, or whoever closes next takes the log away.
        assert os.getpid() in sqlite_locks(storage)
        assert len(os.listdir("/proc/self/fd")) <= ours + 2
        forked_in_c(store.store_segment, three, library=library)
        assert store.status("one") is not None

    forked_in_c(child, library=library)
    assert os.getpid() in sqlite_locks(storage)
    assert visible(storage) == {"one": DATA}
    assert store.store_segment(three).file_result == "store"
    store.store_segment(segment("two", 1, b"x"))
    store.close()


@pytest.mark.parametrize("library", LIBRARIES)
@at_each_level
def test_a_child_that_c_forked_goes_on(tmp_path: Path, level: Level, library: str) -> None:
    apart(child_goes_on, tmp_path, level, library)


def parent_closes(storage: Path, level: Level) -> None:
    """And with it goes the log, unless SQLite knows of the child's connection."""
    store = FileStoreManager(storage, durability=level)
    store.store_segment(segment("one", 1, b"x"))
    used, closed = os.pipe(), os.pipe()

    def child() -> None:
        store.store_segment(segment("one", 2, b"x"))
        os.write(used[1], b".")
        os.read(closed[0], 1)
        store.store_segment(segment("one", 3, b"x"))
        os.write(used[1], b".")
        os.read(closed[0], 1)
        store.store_segment(segment("one", 5, b"x"))

    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    os.read(used[0], 1)
    store.close()
    os.write(closed[1], b".")
    os.read(used[0], 1)
    with FileStoreManager(storage, durability=level) as other:
        assert other.store_segment(segment("one", 4, b"x")).segments_received == 4
    os.write(closed[1], b".")
    assert os.waitpid(pid, 0)[1] == 0
    with FileStoreManager(storage, durability=level) as other:
        assert other.store_segment(segment("one", 6, b"x")).segments_received == 6


@at_each_level
def test_a_parent_that_closes_takes_nothing_from_a_child_that_c_forked(
    tmp_path: Path, level: Level
) -> None:
    apart(parent_closes, tmp_path, level)


UNUSED = """
import ctypes, sys
from txstore import FileStoreManager
from crew import segment
store = FileStoreManager(sys.argv[1], durability="none")
store.store_segment(segment("one", 1, b"x"))
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    if sys.argv[2] == "closes":
        store.close()
    sys.exit(0)
import os
assert os.waitpid(pid, 0)[1] == 0
locks = open("/proc/locks").read()
assert locks.count(f" {os.getpid()} ") >= 2, locks
assert os.path.exists(store.working_dir + "/journal.db-wal")
store.store_segment(segment("one", 2, b"x"))
"""


@pytest.mark.parametrize("way", ["ends", "closes"])
def test_a_child_that_c_forked_and_that_only_ends_takes_nothing_along(
    tmp_path: Path, way: str
) -> None:
    subprocess.run(
        [sys.executable, "-c", UNUSED, tmp_path, way],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    )
    with FileStoreManager(tmp_path, durability="none") as store:
        assert store.store_segment(segment("one", 3, b"x")).segments_received == 3


def several_managers(storage: Path) -> None:
    """SQLite keeps one table for all of a process's connections to a journal."""
    stores = [FileStoreManager(storage, durability="none") for _ in range(3)]
    for number, store in enumerate(stores):
        store.store_segment(segment(str(number), 1, b"x"))
    stores.pop().close()

    def child() -> None:
        with FileStoreManager(storage, durability="none") as new:
            new.store_segment(segment("new", 1, b"x"))
            assert os.getpid() in sqlite_locks(storage)
        for number, store in enumerate(stores):
            store.store_segment(segment(str(number), 2, b"x"))
            assert os.getpid() in sqlite_locks(storage)

    forked_in_c(child)
    for number, store in enumerate(stores):
        assert store.store_segment(segment(str(number), 3, b"x")).segments_received == 3


def test_several_managers_are_used_in_a_child_that_c_forked(tmp_path: Path) -> None:
    apart(several_managers, tmp_path)


def in_the_middle(storage: Path) -> None:
    """Nothing frees the parent's locks, and nobody is answered wrongly."""
    disk = StoppingDisk()
    store = FileStoreManager(storage, durability="none", disk=disk, lock_timeout=0.2)
    one, two, three = cut(DATA, 3, file_id="one", name="one")
    store.store_segment(one)

    def child() -> None:
        with pytest.raises(JournalError, match="in this process"):
            store.store_segment(segment("other", 1, b"x"))
        store.close()

    with disk.stopped("sql", lambda: store.store_segment(two), words="UPDATE transfer"):
        forked_in_c(child)
        with (
            FileStoreManager(storage, durability="none", lock_timeout=0.1) as other,
            pytest.raises(TimeoutError),
        ):
            other.store_segment(segment("other", 1, b"x"))  # the parent has the journal's lock
    assert store.store_segment(three).file_result == "store"


def test_a_c_fork_while_a_thread_is_in_sqlite_is_told_from_one_that_is_not(
    tmp_path: Path,
) -> None:
    apart(in_the_middle, tmp_path)


# --- closed descriptors --------------------------------------------------------------------------


def closed_all(storage: Path, level: Level, used: bool, reused: bool) -> None:
    store = FileStoreManager(storage, durability=level)
    one, two, three = cut(DATA, 3, file_id="one", name="one")
    if used:
        store.store_segment(one)
    keep = os.dup2(2, 200)
    pipe_like = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2]
    # All but the test's own pipe, which tells how it went.
    kept = {fd for fd in pipe_like if _is_pipe(fd)} | {keep}
    for fd in pipe_like:
        if fd not in kept:
            os.closerange(fd, fd + 1)
    theirs = {}
    if reused:
        for number in range(30):
            fd = os.open(storage.parent / f"app{number}", os.O_RDWR | os.O_CREAT, 0o600)
            os.write(fd, b"theirs")
            theirs[fd] = os.fstat(fd).st_ino

    if not used:
        store.store_segment(one)
    store.store_segment(two)
    with FileStoreManager(storage, durability=level) as other:
        assert other.store_segment(three).file_result == "store"
    store.store_segment(segment("two", 1, b"x"))
    assert os.getpid() in sqlite_locks(storage)
    store.close()
    for fd, inode in theirs.items():
        assert os.fstat(fd).st_ino == inode
        assert os.pread(fd, 100, 0) == b"theirs"
    assert visible(storage) == {"one": DATA}


def _is_pipe(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(("pipe:", "socket:", "anon_inode:"))
    except OSError:
        return False


@pytest.mark.parametrize("reused", [False, True], ids=["free", "others have the numbers"])
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@at_each_level
def test_a_manager_whose_descriptors_were_all_closed_opens_anew(
    tmp_path: Path, level: Level, used: bool, reused: bool
) -> None:
    apart(closed_all, tmp_path / "storage", level, used, reused)


def closed_and_let_go(storage: Path, how: str) -> None:
    store = FileStoreManager(storage, durability="none")
    store.store_segment(segment("one", 1, b"x"))
    before = {fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and not _is_pipe(fd)}
    for fd in before:
        os.closerange(fd, fd + 1)
    theirs = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
    if how == "close":
        store.close()
    del store
    for fd in theirs:
        os.fstat(fd)
    with FileStoreManager(storage, durability="none") as other:
        assert other.store_segment(segment("one", 2, b"x")).segments_received == 2


@pytest.mark.parametrize("how", ["close", "collected"])
def test_letting_go_after_descriptors_were_closed_closes_nothing_of_the_applications(
    tmp_path: Path, how: str
) -> None:
    apart(closed_and_let_go, tmp_path, how)


def closed_beside_a_thread(storage: Path) -> None:
    """Numbers that other files have, which another thread may be using, are not touched."""
    store = FileStoreManager(storage, durability="none")
    store.store_segment(segment("one", 1, b"x"))
    end = threading.Event()
    thread = threading.Thread(target=end.wait, daemon=True)
    thread.start()
    before = {fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and not _is_pipe(fd)}
    for fd in before:
        os.closerange(fd, fd + 1)
    theirs = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
    with pytest.raises(TxStoreError, match="in this process"):
        store.store_segment(segment("one", 2, b"x"))
    store.close()
    for fd in theirs:
        os.fstat(fd)
    end.set()
    thread.join()


def test_descriptors_of_others_are_left_alone_beside_threads(tmp_path: Path) -> None:
    apart(closed_beside_a_thread, tmp_path)


DAEMON = """
import os, sys
import daemon
from pathlib import Path
from txstore import FileStoreManager
from crew import segment
store = FileStoreManager(sys.argv[1], durability="segment")
store.store_segment(segment("one", 1, b"x"))
with daemon.DaemonContext(working_directory="/", detach_process=sys.argv[3] == "detached"):
    theirs = [os.open("/dev/null", os.O_RDONLY) for _ in range(40)]
    try:
        answer = store.store_segment(segment("one", 2, b"y")).segments_received
        store.close()
        for fd in theirs:
            os.fstat(fd)
    except BaseException as error:
        answer = repr(error)
    Path(sys.argv[2]).write_text(str(answer) + "\\n")
"""


@pytest.mark.parametrize("detached", ["detached", "in place"])
def test_a_daemon_uses_a_manager_that_was_made_before(tmp_path: Path, detached: str) -> None:
    pytest.importorskip("daemon", reason="python-daemon is not installed")
    fifo = tmp_path / "told"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, tmp_path / "storage", fifo, detached],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)
    try:
        assert fifo.read_text().strip() == "2"
        process.wait(60)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with FileStoreManager(tmp_path / "storage") as store:
        assert store.store_segment(segment("one", 3, b"z")).segments_received == 3


def test_a_connection_that_is_closed_already_takes_no_descriptor_from_the_next(
    tmp_path: Path,
) -> None:
    """The next one to the same journal has the same numbers, which lead to the same files."""
    with FileStoreManager(tmp_path, durability="none") as store:
        store.store_segment(segment("one", 1, b"x"))
    journal = tmp_path / ".workdir" / "journal.db"
    found = journal.stat()
    first = handles.open_writing(Disk(), str(journal))
    first.execute("SELECT * FROM transfer").fetchall()
    numbers = descriptors_of(Disk(), {(found.st_dev, found.st_ino)})
    handles.close_unsettled(first)
    second = handles.open_writing(Disk(), str(journal))
    assert descriptors_of(Disk(), {(found.st_dev, found.st_ino)}) == numbers
    assert inherited.put_away(first, numbers)
    assert len(second.execute("SELECT * FROM transfer").fetchall()) == 1
    handles.close_unsettled(second)
