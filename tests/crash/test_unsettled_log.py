"""SQLite checkpoints and removes the journal's log only where that is settled, however it ends.

The last connection that closes does both by itself.  After somebody's failed flush it would copy
frames into the database that the device never got, and a power loss brings an older log back over
it.  Here a worker was killed, and whoever comes next is alone with what it left.
"""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from crew import Worker, forked, segment
from support import journal_of

from crash.oracle import broken
from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.local.journal import handles
from txstore.local.lockfile import JOURNAL_BYTE, LOCK_FILE
from txstore.testing import FaultPlan, FaultyDisk

State = dict[str, tuple[int, bytes]]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A store whose only worker was killed: its log has frames that the database has not."""
    storage = tmp_path / "storage"
    with Worker(storage, durability="none") as worker:
        for number in range(1, 4):
            worker.store_segment(segment("one", number, b"x"))
        worker.kill()
    return storage


def state(storage: Path) -> State:
    """The database and its log: which files they are, and what SQLite has written into them."""
    journal = journal_of(storage)
    files = [journal, journal.with_name(journal.name + "-wal")]
    return {one.name: (one.stat().st_ino, one.read_bytes().rstrip(b"\0")) for one in files}


def check_untouched(storage: Path, before: State) -> None:
    try:
        after: State | None = state(storage)
    except FileNotFoundError:
        after = None
    if after != before:
        raise broken(1, "a log that was not settled was checkpointed or removed")


def fails_to_open(storage: Path) -> None:
    plan = FaultPlan()
    plan.fail("open", errno.EMFILE, path="-wal", forever=True)
    with pytest.raises(OSError, match="Too many open files"):
        FileStoreManager(storage, durability="none", disk=FaultyDisk(plan))


def no_descriptor_is_left(storage: Path) -> None:
    """Not for anything that could help, either."""
    script = """\
import os, resource, sys
from txstore import FileStoreManager
from txstore.disk import Disk
class Full(Disk):
    def open(self, name, **options):
        if name.endswith("-wal"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        return super().open(name, **options)
try:
    FileStoreManager(sys.argv[1], durability="none", disk=Full())
except OSError as error:
    os._exit(error.errno) if len(sys.argv) > 2 else sys.exit(error.errno)
"""
    ended = subprocess.run([sys.executable, "-c", script, storage], check=False)
    assert ended.returncode == errno.EMFILE


def cannot_flush(storage: Path) -> None:
    plan = FaultPlan()
    store = FileStoreManager(storage, durability="none", disk=FaultyDisk(plan))
    plan.fail("flush", errno.EIO, path="-wal", forever=True)
    store.close()


def cannot_flush_the_folder(storage: Path) -> None:
    plan = FaultPlan()
    store = FileStoreManager(storage, durability="none", disk=FaultyDisk(plan))
    plan.fail("flush_folder", errno.EIO, path=".workdir", forever=True)
    store.close()


def collected_without_the_lock(storage: Path) -> None:
    """Who has the journal lock need have no connection: before its first write after a fork."""
    store = [FileStoreManager(storage, durability="none")]
    disk = Disk()
    folder = disk.open_folder(str(storage / ".workdir" / "locks"), follow=True)
    lock = disk.open(LOCK_FILE, dir_fd=folder)
    assert disk.try_lock(lock, JOURNAL_BYTE)
    store.clear()
    gc.collect()
    disk.close(lock)
    disk.close(folder)


def never_closed(storage: Path) -> None:
    """Its own end of the process does not reach it."""
    script = """\
import sys
from txstore import FileStoreManager
store = FileStoreManager(sys.argv[1], durability="none")
store._engine._release.detach()
del store
"""
    subprocess.run([sys.executable, "-c", script, storage], check=True)


def inherited(storage: Path) -> None:
    """A library forks, and Python's hooks do not run; the child's interpreter ends in order."""
    script = """\
import ctypes, os, sys
from txstore import FileStoreManager
store = FileStoreManager(sys.argv[1], durability="none")
child = ctypes.CDLL(None).fork()
if child == 0:
    store._engine._release.detach()
    sys.exit()
os.waitpid(child, 0)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script, storage], check=True)


WAYS = [
    fails_to_open,
    no_descriptor_is_left,
    cannot_flush,
    cannot_flush_the_folder,
    collected_without_the_lock,
    never_closed,
    inherited,
]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_settled_is_neither_checkpointed_nor_removed(
    storage: Path, way: Callable[[Path], None]
) -> None:
    before = state(storage)
    way(storage)
    check_untouched(storage, before)
    with FileStoreManager(storage) as store:
        assert store.store_segment(segment("one", 4, b"x")).segments_received == 4
    assert not journal_of(storage).with_name("journal.db-wal").exists()


def test_an_upgrade_that_fails_to_flush_removes_nothing(storage: Path) -> None:
    """Its connection is another one than the store's."""
    from txstore.local.journal.upgrade import exclusive

    before = state(storage)
    plan, folder = FaultPlan(), os.open(storage / ".workdir", os.O_RDONLY)
    plan.fail("flush", errno.EIO, path="-wal", forever=True)
    with exclusive(FaultyDisk(plan), str(journal_of(storage)), folder):
        pass
    os.close(folder)
    check_untouched(storage, before)


def test_who_looks_at_a_journal_checkpoints_nothing(storage: Path) -> None:
    """A connection that may only read cannot have the lock that this needs."""
    from txstore.local.journal.sqlite import connect

    before = state(storage)
    connection = connect(Disk(), str(journal_of(storage)), "ro")
    assert connection.execute("SELECT count(*) FROM transfer").fetchall() == [(1,)]
    connection.close()
    check_untouched(storage, before)


def test_what_could_not_be_closed_is_closed_later(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as no descriptor is left for whoever would outlive it."""

    def refuse(*_: object) -> bool:
        return False

    def left() -> int:
        return len([one for one in os.listdir("/proc/self/fd") if is_journal(one)])

    def is_journal(fd: str) -> bool:
        path = f"/proc/self/fd/{fd}"
        found = os.readlink(path) if os.path.exists(path) else ""
        # Of the index we have one of our own, which stays where a connection was left.
        return f"{storage}/.workdir/journal.db" in found and "-shm" not in found

    before = state(storage)
    monkeypatch.setattr(handles, "_never_checkpoint", refuse)
    monkeypatch.setattr(handles, "_close_outlived", refuse)
    for _ in range(2):
        fails_to_open(storage)
    some = left()
    for _ in range(4):
        fails_to_open(storage)
        assert left() == some
    check_untouched(storage, before)
    forked(lambda: None)
    with FileStoreManager(storage) as store:
        assert store.store_segment(segment("one", 4, b"x")).segments_received == 4
    assert left() == 0
