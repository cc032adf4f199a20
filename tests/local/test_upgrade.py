"""Older journals are upgraded when they are opened: in one step, whoever is killed or waiting."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from crew import Worker, WorkerDiedError, cut, last, segment, staging_files, visible, wait_for
from data import make_journal_0001 as first
from seam import Pause, PausingDisk, WatchedDisk
from support import at_each_level, journal_of, lock_file, message, sha256

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import JournalOutdatedError, LockTimeoutError, SequenceError
from txstore.local.journal import schema
from txstore.local.journal.upgrade import migrations_folder
from txstore.local.lockfile import JOURNAL_BYTE
from txstore.options import Level

KEPT = Path(first.__file__).parent / "journal-0001.db"
HALF = first.OPEN_DATA[: 2 * first.OPEN_SEGMENT]
REST = first.OPEN_DATA[2 * first.OPEN_SEGMENT :]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A store as a worker of the first version left it."""
    storage = tmp_path / "storage"
    working = storage / ".workdir"
    for name in ("staging", "locks"):
        (working / name).mkdir(parents=True)
    shutil.copy(KEPT, working / "journal.db")
    (working / "staging" / first.OPEN_STAGING).write_bytes(HALF + b"never recorded")
    (working / "staging" / first.LEFT_STAGING).write_bytes(first.LEFT_DATA)
    (storage / "done").write_bytes(first.DONE_DATA)
    return storage


@pytest.fixture
def quiet(storage: Path) -> Path:
    """The same without the intent, so that opening it upgrades it and does nothing else."""
    with closing(sqlite3.connect(journal_of(storage))) as connection, connection:
        connection.execute("DELETE FROM transfer WHERE file_id = ?", (first.LEFT,))
    (storage / ".workdir" / "staging" / first.LEFT_STAGING).unlink()
    return storage


def content(journal: Path) -> list[str]:
    """Schema and rows of a journal, without touching it."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (journal, journal.with_name(journal.name + "-wal")):
            if path.exists():
                shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder, journal.name))) as connection:
            # What Alembic renders itself it indents by spaces, what it runs by tabs.
            return sorted(line.expandtabs(4) for line in connection.iterdump())


def revision(journal: Path) -> str:
    [found] = [line for line in content(journal) if 'INTO "alembic_version"' in line]
    return found.split("'")[1]


def finish(store: FileStoreManager | Worker) -> None:
    """Go on with what was on its way, to its end."""
    answer = store.store_segment(last(first.OPEN, 3, REST, "open", first.OPEN_DATA))
    assert answer.file_result == "store"


ALL = {"done": first.DONE_DATA, "open": first.OPEN_DATA, "folder/left": first.LEFT_DATA}


def test_script_makes_the_kept_journal(tmp_path: Path) -> None:
    first.make(tmp_path / "made.db")
    assert content(tmp_path / "made.db") == content(KEPT)
    assert revision(KEPT) == "0001" != schema.REVISION


@pytest.mark.promise(8)
def test_an_older_journal_is_left_alone_where_it_is_not_to_be_upgraded(storage: Path) -> None:
    before = content(journal_of(storage))
    with pytest.raises(JournalOutdatedError) as refused:
        FileStoreManager(storage, auto_migrate=False)
    assert refused.value.found == "0001"
    assert content(journal_of(storage)) == before
    _alembic, *words = shlex.split(refused.value.command)
    subprocess.run([sys.executable, "-m", "alembic", *words], check=True)
    with FileStoreManager(storage, auto_migrate=False) as store:
        finish(store)


# --- what was on its way -------------------------------------------------------------------------


class ReadingDisk(WatchedDisk):
    """Knows how many bytes were read of each file."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[str, int] = {}

    def before(self, operation: str, *facts: Any) -> None:
        if operation == "pread":
            name = os.path.basename(os.readlink(f"/proc/self/fd/{facts[0]}"))
            self.read[name] = self.read.get(name, 0) + facts[1]


@at_each_level
def test_transfer_of_the_first_version_is_found_verified_and_finished(
    storage: Path, level: Level
) -> None:
    disk = ReadingDisk()
    with FileStoreManager(storage, durability=level, disk=disk) as store:
        [found] = [one for one in store.transfers() if one.file_id == first.OPEN]
        assert (found.segments_received, found.bytes_received) == (2, len(HALF))
        assert (found.created_at.timestamp(), found.sha256) == (first.WHEN, sha256(HALF))
        assert first.OPEN_STAGING not in disk.read
        # Nothing tells whether a power loss has been over its bytes.
        finish(store)
        assert disk.read[first.OPEN_STAGING] >= len(HALF)
        assert visible(storage) == ALL
        assert store.transfers() == []
    assert staging_files(storage / ".workdir") == []
    assert revision(journal_of(storage)) == schema.REVISION


@at_each_level
def test_last_segment_of_the_first_version_is_answered_again(storage: Path, level: Level) -> None:
    with FileStoreManager(storage, durability=level) as store:
        message = segment(first.OPEN, 2, HALF[first.OPEN_SEGMENT :])
        assert store.store_segment(message).segments_received == 2
        finish(store)


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
@at_each_level
def test_transfer_whose_bytes_do_not_verify_is_dropped(
    storage: Path, level: Level, damage: str
) -> None:
    staged = storage / ".workdir" / "staging" / first.OPEN_STAGING
    if damage == "changed":
        staged.write_bytes(HALF[:-1] + bytes([HALF[-1] ^ 1]))
    elif damage == "cut":
        os.truncate(staged, len(HALF) - 1)
    else:
        staged.unlink()
    with FileStoreManager(storage, durability=level) as store:
        with pytest.raises(SequenceError) as caught:
            finish(store)
        assert caught.value.expected == 1
        assert store.status(first.OPEN) is None
        assert store.transfers() == []
        assert staging_files(storage / ".workdir") == []
        for message in cut(first.OPEN_DATA, 3, file_id=first.OPEN, name="open"):
            store.store_segment(message)
    assert visible(storage) == ALL


@at_each_level
def test_publish_that_the_first_version_left_is_carried_out(storage: Path, level: Level) -> None:
    with FileStoreManager(storage, durability=level):
        assert visible(storage)["folder/left"] == first.LEFT_DATA


def test_publish_whose_bytes_do_not_verify_is_not_carried_out(storage: Path) -> None:
    left = storage / ".workdir" / "staging" / first.LEFT_STAGING
    left.write_bytes(first.LEFT_DATA[:-1] + b"?")
    with FileStoreManager(storage) as store:
        assert "folder/left" not in visible(storage)
        # Its first segment is there, as it was acknowledged.
        store.store_segment(
            last(first.LEFT, 2, first.LEFT_DATA[100:], "folder/left", first.LEFT_DATA)
        )
    assert visible(storage)["folder/left"] == first.LEFT_DATA


@at_each_level
def test_last_message_of_the_first_version_is_answered_again(storage: Path, level: Level) -> None:
    found = os.stat(storage / "done")
    with closing(sqlite3.connect(journal_of(storage))) as connection, connection:
        connection.execute(
            "UPDATE completion SET inode = ?, mtime_ns = ?", (found.st_ino, found.st_mtime_ns)
        )
    # Further segments would have been of the same size.
    end = last(first.DONE, 2, first.DONE_DATA[first.DONE_SEGMENT :], "done", first.DONE_DATA)
    with FileStoreManager(storage, durability=level) as store:
        assert store.store_segment(end).file_result == "store"
    assert os.stat(storage / "done").st_ino == found.st_ino


# --- killed on the way ---------------------------------------------------------------------------


class ExitingDisk(WatchedDisk):
    """Ends its process, without a word, after the N-th statement of the upgrade's transaction."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.done = after, -1

    def before(self, operation: str, *facts: Any) -> None:
        if operation == "sql" and (self.done >= 0 or facts[0].startswith("BEGIN")):
            self.done += 1
            if self.done == self.after:
                os._exit(9)


def test_upgrade_killed_after_any_statement_leaves_the_old_or_the_new_journal(
    quiet: Path, tmp_path: Path
) -> None:
    old, new = content(journal_of(quiet)), upgraded(quiet, tmp_path / "upgraded")
    found = old
    count = 0
    while found != new:
        place = tmp_path / str(count)
        shutil.copytree(quiet, place)
        with pytest.raises(WorkerDiedError) as died:
            Worker(place, disk=partial(ExitingDisk, count), durability="none")
        assert died.value.code == 9
        found = content(journal_of(place))
        assert found in (old, new), f"neither the old nor the new after statement {count}"
        with FileStoreManager(place, durability="none") as store:
            finish(store)
        count += 1
    assert count > 15, "the upgrade has more statements than that"


def upgraded(storage: Path, copy: Path) -> list[str]:
    """The content of a journal after opening has upgraded it."""
    shutil.copytree(storage, copy)
    FileStoreManager(copy, durability="none").close()
    return content(journal_of(copy))


# --- while others want it ------------------------------------------------------------------------


@contextmanager
def journal_lock(storage: Path) -> Iterator[Path]:
    """Hold the lock that writers of the journal take; its path."""
    path = lock_file(storage)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        assert Disk().try_lock(fd, JOURNAL_BYTE)
        yield path
    finally:
        os.close(fd)


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open; also if it has ended: then it will not have."""
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{fd}") == str(path) for fd in os.listdir(folder))
    except FileNotFoundError:
        return has_open(pid, path) if os.path.exists(folder) else False


def test_processes_that_open_an_old_journal_at_once_all_work(storage: Path) -> None:
    with ExitStack() as stack:
        with journal_lock(storage) as lock:
            workers = [
                stack.enter_context(Worker(storage, durability="none", wait=False))
                for _ in range(5)
            ]
            for worker in workers:
                wait_for(lambda worker=worker: has_open(worker.pid, lock))  # type: ignore[misc]
            assert revision(journal_of(storage)) == "0001"
        for worker in workers:
            worker.opened()
        messages = cut(b"shared" * 100, 10, file_id="shared", name="shared")
        for number, message in enumerate(messages):
            workers[number % 5].store_segment(message)
        finish(workers[0])
    assert visible(storage) == ALL | {"shared": b"shared" * 100}
    assert revision(journal_of(storage)) == schema.REVISION


def test_workers_that_come_while_an_upgrade_runs_wait_for_it(storage: Path, tmp_path: Path) -> None:
    pause = Pause(tmp_path)
    upgrading = Worker(
        storage, disk=partial(PausingDisk, "ALTER TABLE completion", tmp_path), wait=False
    )
    pause.reached()
    with pytest.raises(LockTimeoutError):
        Worker(storage, lock_timeout=0.05)
    waiting = Worker(storage, wait=False)
    lock = lock_file(storage)
    wait_for(lambda: has_open(waiting.pid, lock))
    assert revision(journal_of(storage)) == "0001"
    pause.end()
    with upgrading, waiting:
        upgrading.opened()
        waiting.opened()
        waiting.store_segment(segment("new", 1, b"1"))
        upgrading.store_segment(segment("new", 2, b"2"))
        finish(waiting)


def test_killed_upgrade_holds_nobody_up(storage: Path, tmp_path: Path) -> None:
    pause = Pause(tmp_path)
    upgrading = Worker(
        storage, disk=partial(PausingDisk, "ALTER TABLE completion", tmp_path), wait=False
    )
    pause.reached()
    with Worker(storage, wait=False) as waiting:
        wait_for(lambda: has_open(waiting.pid, lock_file(storage)))
        upgrading.kill()
        waiting.opened()
        finish(waiting)
    assert visible(storage) == ALL


# --- by hand -------------------------------------------------------------------------------------


def alembic(storage: Path) -> subprocess.Popen[str]:
    """Start the command that ``migrations/env.py`` tells of."""
    command = ["alembic", "-x", f"working_dir={storage / '.workdir'}", "upgrade", "head"]
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=migrations_folder(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_bare_alembic_waits_for_the_journal_lock(storage: Path) -> None:
    with journal_lock(storage) as lock:
        process = alembic(storage)
        wait_for(lambda: process.poll() is not None or has_open(process.pid, lock))
        assert process.poll() is None, process.communicate()[0]
        assert revision(journal_of(storage)) == "0001"
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert revision(journal_of(storage)) == schema.REVISION


def test_bare_alembic_upgrades_as_opening_does(quiet: Path, tmp_path: Path) -> None:
    expected = upgraded(quiet, tmp_path / "upgraded")
    process = alembic(quiet)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert content(journal_of(quiet)) == expected
    with FileStoreManager(quiet) as store:
        finish(store)


class Flushed(Disk):
    """Notes whose bytes are flushed."""

    def __init__(self) -> None:
        self.inodes: set[int] = set()

    def flush(self, fd: int) -> None:
        self.inodes.add(os.fstat(fd).st_ino)
        super().flush(fd)


#: Takes away what later revisions brought.
BACK_TO_0004 = (
    "DROP TABLE event",
    "DROP TABLE consumer",
    "ALTER TABLE transfer DROP COLUMN publish_sender",
    "ALTER TABLE transfer DROP COLUMN said_path",
    "ALTER TABLE transfer DROP COLUMN said_size",
    "ALTER TABLE completion DROP COLUMN catalogued",
    "DROP TABLE catalogue",
)


@pytest.mark.parametrize("mark", [1, 2])
def test_bytes_that_may_be_unflushed_are_staged_anew_whoever_goes_on(
    tmp_path: Path, mark: int
) -> None:
    """Revision 0003 recorded rows while their bytes were being flushed, and acknowledged them."""
    parts = (b"one", b"two", b"three")
    with FileStoreManager(tmp_path) as store:
        for number, part in enumerate(parts[:2], 1):
            store.store_segment(message(part, file_id="a", segment_number=str(number)))
    with closing(sqlite3.connect(tmp_path / ".workdir" / "journal.db")) as journal, journal:
        for step in BACK_TO_0004:
            journal.execute(step)
        journal.execute("ALTER TABLE transfer RENAME COLUMN doubted TO overlapped")
        journal.execute(
            "UPDATE transfer SET overlapped = ?, durable_segments = 1, durable_offset = 3", (mark,)
        )
        journal.execute("UPDATE alembic_version SET version_num = '0003'")
    disk = Flushed()
    [staged] = (tmp_path / ".workdir" / "staging").iterdir()
    with FileStoreManager(tmp_path, durability="none", disk=disk) as store:
        store.store_segment(message(parts[2], file_id="a", segment_number="3"))
    assert staged.stat().st_ino in disk.inodes


# --- in strange surroundings ---------------------------------------------------------------------


def test_listeners_of_an_application_do_not_reach_the_journal(
    quiet: Path, request: pytest.FixtureRequest
) -> None:
    """As many have them, for all engines of SQLAlchemy."""

    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def connect(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=DELETE")

    for name, listener in (("begin", begin), ("connect", connect)):
        sa.event.listen(sa.Engine, name, listener)
        request.addfinalizer(partial(sa.event.remove, sa.Engine, name, listener))
    with FileStoreManager(quiet) as store:
        finish(store)
    assert revision(journal_of(quiet)) == schema.REVISION


def test_a_package_in_a_zip_finds_its_migrations(quiet: Path, tmp_path: Path) -> None:
    package = Path(sys.modules["txstore"].__file__ or "").parent
    shutil.copytree(package, tmp_path / "zipped" / "txstore")
    if not (package / "migrations").exists():
        shutil.copytree(migrations_folder(), tmp_path / "zipped" / "txstore" / "migrations")
    zipped = shutil.make_archive(str(tmp_path / "txstore"), "zip", tmp_path / "zipped")
    script = """\
import sys
sys.path.insert(0, sys.argv[1])
import txstore
assert txstore.__file__.startswith(sys.argv[1]), txstore.__file__
txstore.FileStoreManager(sys.argv[2]).close()
"""
    subprocess.run([sys.executable, "-c", script, zipped, quiet], check=True, cwd=tmp_path)
    assert revision(journal_of(quiet)) == schema.REVISION


def test_the_journal_ends_an_upgrade_as_a_new_one_begins(quiet: Path, tmp_path: Path) -> None:
    FileStoreManager(quiet).close()
    FileStoreManager(tmp_path / "new").close()

    def tables(journal: Path) -> dict[str, list[tuple[Any, ...]]]:
        with closing(sqlite3.connect(journal)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {
                name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall()
                for (name,) in names.fetchall()
            }

    assert tables(journal_of(quiet)) == tables(journal_of(tmp_path / "new"))


@pytest.mark.promise(1)
def test_a_backup_of_an_older_journal_is_one_of_the_same_revision(
    storage: Path, tmp_path: Path
) -> None:
    """So an older txstore can use it; and this one upgrades it when it is opened."""
    backup = tmp_path / "backup"
    done = FileStoreManager.inspect(storage).backup(backup)
    # The last message of the other one was not answered, and it had no segment before.
    assert (done.transfers, done.left_out) == (2, [])
    with closing(sqlite3.connect(journal_of(backup))) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            ("0001",)
        ]
    shutil.rmtree(storage)
    assert list(FileStoreManager.inspect(backup).check(deep=True)) == []
    with FileStoreManager(backup) as store:
        status = store.status(first.OPEN)
        assert status is not None
        assert status.bytes_received == len(HALF)
