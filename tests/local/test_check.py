"""``check``: damage of every kind is found, nothing that is right is told, nothing is written."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import tempfile
from pathlib import Path

import pytest
from crew import Worker, apart, cut, last, segment
from damage import DAMAGES, DATA, check, fill, kinds, overwrite, sql, staged
from support import Booted, at_each_level, become_user, get_own_mounts, journal_of, mount

from txstore import FileStoreManager
from txstore.checks import KINDS
from txstore.disk import Disk
from txstore.errors import JournalError, JournalVersionError, LockTimeoutError
from txstore.local.lockfile import transfer_byte
from txstore.local.locks import stripe_of
from txstore.options import Level
from txstore.testing import FaultPlan, FaultyDisk, SimulatedCrash

of_the_dead = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A store that nobody uses."""
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as store:
        fill(store)
    return storage


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(storage: Path, name: str) -> None:
    damage = DAMAGES[name]
    damage.act(storage)
    if damage.deep:
        assert kinds(storage) == set()
    assert kinds(storage, deep=damage.deep) == {damage.kind, *damage.others}
    for one in check(storage, deep=damage.deep):
        assert one.meaning.endswith(".")
        assert one.remedy.endswith(".")
        assert json.loads(json.dumps(one.to_dict()))["kind"] == one.kind


class Place(Disk):
    """A disk on another file system, or a fuller one."""

    def __init__(self, fstype: str = "ext4", free: int = 10**9, inodes: int | None = None) -> None:
        self.fstype, self.free, self.inodes = fstype, free, inodes

    def file_system(self, _fd: int) -> str:
        return self.fstype

    def space(self, _fd: int) -> tuple[int, int]:
        return self.free, 10**12

    def free_inodes(self, _fd: int) -> int | None:
        return self.inodes


@pytest.mark.parametrize(
    ("disk", "kind"),
    [
        (Place(fstype="nfs4"), "file-system"),
        (Place(fstype="fuse.sshfs"), "file-system"),
        (Place(fstype="vfat"), "file-system"),
        (Place(free=5 * 1024 * 1024), "space"),
        (Place(inodes=3), "space"),
        (Place(inodes=100_000), None),
    ],
    ids=["nfs", "sshfs", "vfat", "full", "no inodes", "none of these"],
)
def test_unfit_and_full_file_systems_are_found(storage: Path, disk: Disk, kind: str | None) -> None:
    assert kinds(storage, disk=disk) == ({kind} if kind else set())


@pytest.mark.parametrize("name", ["journal.db-wal", "journal.db-shm"])
def test_files_of_the_journal_that_workers_cannot_use_are_found(storage: Path, name: str) -> None:
    with Worker(storage) as worker:
        worker.store_segment(segment("open", 3, DATA))
        path = storage / ".workdir" / name
        path.chmod(0o400)
        assert kinds(storage) == {"shut-to-workers"}
        path.chmod(0o644)
        assert kinds(storage) == {"open-to-others"}


def test_files_of_another_user_are_found(storage: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    lock_file = storage / ".workdir" / "locks" / "locks"
    os.chown(lock_file, 12345, 12345)
    [found] = check(storage)
    assert (found.kind, found.facts["owner"]) == ("shut-to-workers", "12345:12345")


def test_each_kind_is_found_by_a_test() -> None:
    elsewhere = {"file-system", "space", "busy", "unreadable", "stored-unknown"}
    assert {one.kind for one in DAMAGES.values()} | elsewhere == set(KINDS)


# --- what is right -------------------------------------------------------------------------------


@at_each_level
def test_nothing_is_wrong_with_a_store_in_use(tmp_path: Path, level: Level) -> None:
    with FileStoreManager(tmp_path, durability=level) as store:
        assert kinds(tmp_path, deep=True) == set()
        fill(store)
        assert kinds(tmp_path, deep=True) == set()
        with Worker(tmp_path, durability=level) as other:
            other.store_segment(segment("open", 3, DATA))
            assert kinds(tmp_path, deep=True) == set()
    assert kinds(tmp_path, deep=True) == set()


@at_each_level
def test_nothing_is_wrong_after_a_worker_was_killed(tmp_path: Path, level: Level) -> None:
    """Its log is there still, and nobody has the log's index."""
    worker = Worker(tmp_path, durability=level)
    worker.store_segment(segment("open", 1, DATA))
    worker.store_segment(last("one", 1, DATA, "one", DATA))
    worker.kill()
    assert kinds(tmp_path, deep=True) == set()
    [found] = FileStoreManager(tmp_path).transfers()
    assert found.file_id == "open"


def test_nothing_is_wrong_with_a_store_apart_from_its_working_dir(tmp_path: Path) -> None:
    folders = tmp_path / "storage", tmp_path / "working"
    with FileStoreManager(*folders) as store:
        fill(store)
        assert list(FileStoreManager.inspect(*folders).check(deep=True)) == []


def test_nothing_is_wrong_with_a_restored_backup(storage: Path) -> None:
    """Its files are other ones, with the same bytes."""
    shutil.copytree(storage, storage.parent / "restored", copy_function=shutil.copyfile)
    restored = storage.parent / "restored"
    for path in (journal_of(restored), restored / ".workdir" / "locks" / "locks"):
        path.chmod(0o600)
    assert kinds(restored) == set()
    assert kinds(restored, deep=True) == set()
    overwrite(staged(restored), 100, b"?")
    assert kinds(restored) == {"transfer-changed"}


@of_the_dead
@pytest.mark.parametrize("call", ["rename", "commit", "flush"])
def test_nothing_is_wrong_where_a_worker_died_while_it_published(tmp_path: Path, call: str) -> None:
    """Before the rename, and before the completion was recorded; whoever comes next goes on."""
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    store = FileStoreManager(tmp_path, disk=disk)
    first, second = cut(DATA, 2, file_id="file", name="folder/file")
    store.store_segment(first)
    faults.crash(call)
    with pytest.raises(SimulatedCrash):
        store.store_segment(second)
    disk.bury()
    assert kinds(tmp_path, deep=True) == set()
    # But an intent whose bytes somebody took away cannot be carried out.
    for path in (tmp_path / "folder" / "file", *(tmp_path / ".workdir" / "staging").iterdir()):
        path.unlink(missing_ok=True)
    assert kinds(tmp_path) == {"transfer-missing"}


def test_what_was_replaced_since_is_not_missed(storage: Path) -> None:
    with FileStoreManager(storage) as store:
        for message in cut(b"newer", 2, file_id="newer", name="one"):
            store.store_segment(message)
    assert kinds(storage, deep=True) == set()


def test_a_file_whose_time_alone_was_set_is_as_it_was_stored(storage: Path) -> None:
    os.utime(storage / "one")
    assert kinds(storage, deep=True) == set()


@at_each_level
def test_what_a_power_loss_may_take_is_no_damage(tmp_path: Path, level: Level) -> None:
    """At a lower level the next worker goes back by itself."""
    with FileStoreManager(tmp_path, durability=level, disk=Booted("one")) as store:
        store.store_segment(segment("open", 1, DATA))
        store.store_segment(segment("open", 2, DATA))
    os.truncate(staged(tmp_path), 0)
    found = kinds(tmp_path, deep=True, disk=Booted("two"))
    assert found == ({"transfer-short"} if level == "segment" else set())
    assert kinds(tmp_path, disk=Booted("one")) == {"transfer-short"}


@pytest.mark.parametrize("changed_at", [10, len(DATA) + 10])
def test_durable_bytes_are_told_from_those_behind_them(tmp_path: Path, changed_at: int) -> None:
    with FileStoreManager(tmp_path, disk=Booted("one")) as store:
        store.store_segment(segment("open", 1, DATA))
    with FileStoreManager(tmp_path, durability="none", disk=Booted("one")) as store:
        store.store_segment(segment("open", 2, DATA))
    overwrite(staged(tmp_path), changed_at, b"??")
    found = kinds(tmp_path, deep=True, disk=Booted("two"))
    assert found == ({"transfer-changed"} if changed_at < len(DATA) else set())
    assert kinds(tmp_path, deep=True, disk=Booted("one")) == {"transfer-changed"}


@pytest.mark.promise(3)
def test_a_file_whose_record_a_power_loss_may_have_taken_was_not_changed(tmp_path: Path) -> None:
    with FileStoreManager(tmp_path, disk=Booted("one")) as store:
        for message in cut(DATA, 2, file_id="two", name="same"):
            store.store_segment(message)
        store.store_segment(last("one", 1, b"newer", "same", b"newer"))
    sql(tmp_path, "DELETE FROM completion WHERE segments = 1")
    assert kinds(tmp_path, deep=True, disk=Booted("two")) == set()
    assert kinds(tmp_path, deep=True, disk=Booted("one")) == {"stored-changed"}


# --- nothing is written --------------------------------------------------------------------------


def traces(storage: Path) -> dict[str, tuple[int, ...]]:
    """All that a write would leave a trace in."""
    found: dict[str, tuple[int, ...]] = {}
    for path in [storage, *storage.rglob("*")]:
        one = path.lstat()
        # As root SQLite gives the log and its index to the journal's owner, who has them already.
        given = os.geteuid() == 0 and path.name.endswith(("-wal", "-shm"))
        found[str(path)] = (
            *(one.st_ino, one.st_mode, one.st_uid, one.st_nlink, one.st_size, one.st_mtime_ns),
            0 if given else one.st_ctime_ns,
        )
    return found


@pytest.mark.promise(8)
@pytest.mark.parametrize("state", ["in use", "killed", "closed", "damaged", "restored"])
def test_check_writes_nothing(storage: Path, state: str) -> None:
    worker = Worker(storage)
    worker.store_segment(segment("open", 3, DATA))
    if state == "killed":
        worker.kill()
    elif state != "in use":
        worker.close()
    if state == "damaged":
        overwrite(journal_of(storage), 0, b"?" * 100)
    elif state == "restored":
        shutil.rmtree(storage / ".workdir" / "locks")
    before = traces(storage)
    check(storage)
    check(storage, deep=True)
    assert traces(storage) == before
    worker.close()


def _check_mounted(root: str) -> list[str]:
    """In a process of its own: the store is mounted read-only."""
    get_own_mounts()
    mount("--bind", root, root)
    mount("-o", "remount,bind,ro", root)
    with pytest.raises(OSError, match="Read-only"):
        Path(root, "storage", "x").touch()
    return [one.kind for one in check(Path(root, "storage"), deep=True)]


@pytest.mark.parametrize("state", ["in use", "killed", "closed"])
def test_check_works_on_a_read_only_mount(storage: Path, state: str) -> None:
    worker = Worker(storage)
    worker.store_segment(segment("open", 3, DATA))
    if state == "killed":
        worker.kill()
    elif state == "closed":
        worker.close()
    assert apart(_check_mounted, str(storage.parent)) == []
    os.truncate(staged(storage), 5)
    assert apart(_check_mounted, str(storage.parent)) == ["transfer-short"]
    worker.close()


def _check_as(uid: int, gid: int, storage: str) -> list[str]:
    check(Path(storage))  # what is imported when it is first needed, root alone may read
    become_user(uid, gid)
    with pytest.raises(PermissionError):
        Path(storage, ".workdir", "x").touch()
    return [one.kind for one in check(Path(storage), deep=True)]


@pytest.mark.parametrize("state", ["in use", "killed", "closed"])
def test_check_works_for_a_user_who_may_only_read(state: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as folder:  # pytest's are root's alone
        os.chmod(folder, 0o755)
        storage = Path(folder, "storage")
        storage.mkdir()
        os.chown(storage, 0, 4321)
        storage.chmod(0o2755)
        worker = Worker(storage, mode=0o640)
        worker.store_segment(segment("open", 1, DATA))
        worker.store_segment(last("one", 1, DATA, "one", DATA))
        if state == "killed":
            worker.kill()
        elif state == "closed":
            worker.close()
        assert apart(_check_as, 4321, 4321, str(storage)) == []
        (storage / "one").chmod(0o600)
        os.truncate(staged(storage), 5)
        assert apart(_check_as, 4321, 4321, str(storage)) == ["transfer-short", "unreadable"]
        worker.close()


# --- what cannot be looked at --------------------------------------------------------------------


def hold(storage: Path, byte: int) -> int:
    """Have one of the store's locks, as a worker that hangs."""
    fd = os.open(storage / ".workdir" / "locks" / "locks", os.O_RDWR)
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    return fd


def test_what_a_worker_is_busy_with_is_not_judged(storage: Path) -> None:
    fd = hold(storage, transfer_byte(stripe_of(b"open")))
    assert kinds(storage) == set()
    staged(storage).unlink()
    assert kinds(storage, lock_timeout=0.01) == {"busy"}
    os.close(fd)
    assert kinds(storage) == {"transfer-missing"}


def test_a_journal_that_is_being_written_for_too_long_is_an_error(storage: Path) -> None:
    fd = hold(storage, 0)
    with pytest.raises(LockTimeoutError):
        check(storage, lock_timeout=0.01)
    os.close(fd)


def test_where_there_is_no_store_there_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError):
            FileStoreManager.inspect(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_journal_is_an_error(storage: Path) -> None:
    sql(storage, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(JournalVersionError):
        check(storage)


def test_a_log_without_its_index_is_an_error_that_says_so(storage: Path) -> None:
    """To read it SQLite would have to write."""
    worker = Worker(storage)
    worker.store_segment(segment("open", 3, DATA))
    worker.kill()
    (storage / ".workdir" / "journal.db-shm").unlink()
    before = traces(storage)
    with pytest.raises(JournalError, match="no index"):
        check(storage)
    assert traces(storage) == before
