"""Backups: what is in one, how it is restored, and what a crash of the backup leaves."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crew import Worker, apart, cut, last, segment, visible
from damage import DATA, check, fill, overwrite
from seam import WatchedDisk
from small_disks import fill as fill_disk
from small_disks import small_disk
from support import (
    at_each_level,
    become_user,
    descriptors,
    get_own_mounts,
    journal_of,
    mount,
    send,
    tree,
)

from txstore import FileStoreManager, digest
from txstore.backups import Backup
from txstore.disk import Disk
from txstore.errors import BackupRefusedError, JournalDamagedError
from txstore.options import Level

REST_OF_OPEN = cut(DATA * 3, 3, file_id="open", name="opened")[2:]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as store:
        fill(store)
        with store.events(consumer="index") as feed:
            next(feed).done()
    return storage


def back_up(storage: Path, backup: Path, **options: Any) -> Backup:
    disk = options.pop("disk", None)
    done = FileStoreManager.inspect(storage, disk=disk).backup(backup, **options)
    assert done.left_out == []
    return done


def check_right(folder: Path, working_dir: Path | None = None) -> None:
    """Nothing is wrong, and the transfer that was open goes on."""
    inspector = FileStoreManager.inspect(folder, working_dir)
    assert {one.kind for one in inspector.check(deep=True)} <= {"space"}
    with FileStoreManager(folder, working_dir) as store:
        send(store, REST_OF_OPEN)
    assert visible(folder) == {"opened": DATA * 3, "folder/two": DATA, "one": DATA}


def copied(folder: Path, target: Path) -> Path:
    """As an operator does it: `cp -a`."""
    shutil.copytree(folder, target, symlinks=True)
    return target


# --- what is in it -------------------------------------------------------------------------------


@at_each_level
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.promise(1)
def test_a_backup_is_a_store_in_which_all_goes_on(
    tmp_path: Path, links: bool, level: Level
) -> None:
    storage, backup = tmp_path / "storage", tmp_path / "backup"
    with FileStoreManager(storage, durability=level) as store:
        fill(store)
        done = back_up(storage, backup, links=links)
        assert (done.files, done.transfers) == (2, 1)
        assert (done.linked, done.copied + done.cloned) == ((2, 0) if links else (0, 2))
        before = tree(storage)
        check_right(copied(backup, tmp_path / "restored"))
        check_right(backup)
        assert tree(storage) == before
        send(store, REST_OF_OPEN)


@pytest.mark.promise(4)
def test_answers_events_and_consumers_are_in_it(tmp_path: Path, storage: Path) -> None:
    back_up(storage, tmp_path / "backup")
    with FileStoreManager(storage) as store, FileStoreManager(tmp_path / "backup") as other:
        last_of_two = cut(DATA, 2, file_id="two", name="folder/two")[1]
        answers = [one.store_segment(last_of_two).to_dict() for one in (store, other)]
        assert answers[0] == answers[1]
        told = [[event.to_dict() for event in one.events()] for one in (store, other)]
        assert len(told[0]) == 2
        assert told[0] == told[1]
        assert [one.cursor for one in store.consumers()] == [1]
        assert store.consumers() == other.consumers()


def test_a_store_whose_working_dir_is_elsewhere_is_restored_to_such_a_one(tmp_path: Path) -> None:
    storage, working = tmp_path / "storage", tmp_path / "var" / "working"
    with FileStoreManager(storage, working) as store:
        fill(store)
        FileStoreManager.inspect(storage, working).backup(tmp_path / "backup")
    check_right(copied(tmp_path / "backup", tmp_path / "as it is"))
    restored = copied(tmp_path / "backup", tmp_path / "restored")
    (restored / ".workdir").rename(tmp_path / "working")
    check_right(restored, tmp_path / "working")


def test_files_keep_what_they_have(tmp_path: Path, storage: Path) -> None:
    (storage / "one").chmod(0o604)
    os.utime(storage / "one", ns=(1, 1_234_567_891))
    (storage / "folder").chmod(0o751)
    os.utime(storage / "folder", ns=(1, 2_345_678_912))
    (storage / "empty").mkdir()
    (storage / "link").symlink_to("folder/two")
    with_attributes = hasattr(os, "setxattr")
    if with_attributes:
        os.setxattr(storage / "one", "user.of", b"somebody")
    for links in (True, False):
        backup = tmp_path / f"backup {links}"
        back_up(storage, backup, links=links)
        assert _seen(backup) == _seen(storage)
        assert not with_attributes or os.getxattr(backup / "one", "user.of") == b"somebody"
        check_right_but_for_the_link(backup)


def _seen(folder: Path) -> dict[str, tuple[str, int, int, bytes]]:
    return {
        name: (entry.mode, found.st_mtime_ns * (not path_is_link), found.st_uid, entry.content)
        for name, entry in tree(folder).items()
        if not name.startswith((".workdir", ".txstore"))
        for found in [(folder / name).lstat()]
        for path_is_link in [stat.S_ISLNK(found.st_mode)]
    }


def check_right_but_for_the_link(backup: Path) -> None:
    (backup / "link").unlink()
    check_right(backup)


def test_what_is_no_file_is_left_out_and_told(tmp_path: Path, storage: Path) -> None:
    os.mkfifo(storage / "folder" / "pipe")
    done = FileStoreManager.inspect(storage).backup(tmp_path / "backup")
    [(what, reason)] = done.left_out
    assert (what, reason) == ("folder/pipe", "it is neither a file nor a folder nor a link")
    check_right(tmp_path / "backup")


@pytest.mark.promise(3)
def test_damaged_transfers_are_left_out_and_told(tmp_path: Path, storage: Path) -> None:
    [staged] = (storage / ".workdir" / "staging").iterdir()
    overwrite(staged, 3, b"?")
    done = FileStoreManager.inspect(storage).backup(tmp_path / "backup")
    [(what, reason)] = done.left_out
    assert what == "transfer 'open'"
    assert "txstore check" in reason
    assert check(tmp_path / "backup", deep=True) == []


class CloningDisk(Disk):
    """A file system on which files can share their blocks, as far as is seen from outside."""

    def clone(self, source: int, target: int) -> None:
        size = os.fstat(source).st_size
        assert os.copy_file_range(source, target, size, 0, 0) == size


def test_blocks_are_shared_where_the_file_system_offers_that(tmp_path: Path, storage: Path) -> None:
    done = back_up(storage, tmp_path / "backup", disk=CloningDisk(), links=False)
    assert (done.cloned, done.copied, done.linked) == (2, 0, 0)
    check_right(tmp_path / "backup")


def test_a_file_system_without_second_names_gets_copies(tmp_path: Path, storage: Path) -> None:
    class WithoutLinks(WatchedDisk):
        asked = 0

        def before(self, operation: str, *_facts: Any) -> None:
            if operation == "link_to":
                self.asked += 1
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    disk = WithoutLinks()
    done = back_up(storage, tmp_path / "backup", disk=disk)
    assert (done.linked, done.copied + done.cloned, disk.asked) == (0, 2, 1)
    check_right(tmp_path / "backup")


@pytest.mark.promise(1)
def test_rows_without_a_hash_are_copied_and_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without OpenSSL cannot save one."""
    storage = tmp_path / "storage"
    with monkeypatch.context() as patched:
        patched.setattr(digest, "_openssl", None)
        with FileStoreManager(storage) as store:
            fill(store)
    back_up(storage, tmp_path / "backup")
    check_right(copied(tmp_path / "backup", tmp_path / "restored"))


class ReplacingDisk(WatchedDisk):
    """Has a file replaced before it gets a second name."""

    def __init__(self, storage: Path) -> None:
        super().__init__()
        self.storage = storage

    def before(self, operation: str, *facts: Any) -> None:
        if operation == "link_to" and facts[0] == "one":
            with FileStoreManager(self.storage) as store:
                store.store_segment(last("new", 1, DATA * 2, "one", DATA * 2))


@pytest.mark.promise(7)
def test_a_file_that_is_newer_than_its_record_is_no_damage(tmp_path: Path, storage: Path) -> None:
    back_up(storage, tmp_path / "backup", disk=ReplacingDisk(storage))
    assert (tmp_path / "backup" / "one").read_bytes() == DATA * 2
    for folder in (tmp_path / "backup", copied(tmp_path / "backup", tmp_path / "restored")):
        assert check(folder, deep=True) == []


def test_folders_may_be_deeper_than_there_are_descriptors(tmp_path: Path, storage: Path) -> None:
    folder = storage
    for _ in range(700):
        folder /= "f"
    folder.mkdir(parents=True)
    back_up(storage, tmp_path / "backup")
    assert Path(tmp_path / "backup", *["f"] * 700).is_dir()


def test_a_backup_leaves_no_descriptor_and_writes_nothing_in_the_store(
    tmp_path: Path, storage: Path
) -> None:
    before, opened = tree(storage), descriptors()
    back_up(storage, tmp_path / "backup", links=False)
    with pytest.raises(BackupRefusedError):
        back_up(storage, storage / "below")
    assert tree(storage) == before
    assert descriptors() == opened


# --- where it is made ----------------------------------------------------------------------------


def test_it_is_made_nowhere_but_where_nothing_is(tmp_path: Path, storage: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    FileStoreManager(tmp_path / "other").close()
    (tmp_path / "new.unfinished").mkdir()
    (tmp_path / "new.unfinished" / "file").write_text("")
    before = tree(tmp_path)
    for name, reason in {
        "file": "a file",
        "full": "something else",
        "other": "something else",
        "new": "is something else",
        "storage": "lies in the store",
        "storage/.workdir/staging/x": "lies in the store",
        "missing/x": "there is no folder",
    }.items():
        with pytest.raises(BackupRefusedError, match=reason) as caught:
            back_up(storage, tmp_path / name)
        assert caught.value.destination == str(tmp_path / name)
    assert tree(tmp_path) == before


def test_a_store_that_is_worked_with_is_never_taken_for_a_backup(
    tmp_path: Path, storage: Path
) -> None:
    backup = tmp_path / "backup"
    back_up(storage, backup)
    FileStoreManager(backup).close()
    before = tree(tmp_path)
    with pytest.raises(BackupRefusedError, match="opened it as a store"):
        back_up(storage, backup)
    with pytest.raises(BackupRefusedError, match="opened it as a store"):
        back_up(backup, storage)
    assert tree(tmp_path) == before


class LockedOutDisk(WatchedDisk):
    """Has another backup be begun in the middle of one."""

    def __init__(self, storage: Path, backup: Path) -> None:
        super().__init__()
        self.storage, self.backup, self.refused = storage, backup, 0

    def before(self, operation: str, *facts: Any) -> None:
        if operation == "rename" and facts[1] == "journal.db":
            with pytest.raises(BackupRefusedError, match="another process"):
                back_up(self.storage, self.backup)
            self.refused += 1


def test_two_at_once_do_not_get_in_each_others_way(tmp_path: Path, storage: Path) -> None:
    backup = tmp_path / "backup"
    disk = LockedOutDisk(storage, backup)
    for _ in range(2):  # a new one, and one that is there
        back_up(storage, backup, disk=disk)
    assert disk.refused == 2
    check_right(backup)


def test_folders_called_like_a_backups_own_are_refused(tmp_path: Path) -> None:
    storage, working = tmp_path / "storage", tmp_path / "working"
    with FileStoreManager(storage, working) as store:
        store.store_segment(last("one", 1, DATA, ".workdir/one", DATA))
    with pytest.raises(BackupRefusedError, match="where a backup has its working dir"):
        FileStoreManager.inspect(storage, working).backup(tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


# --- again in the same place ---------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False])
def test_a_backup_is_brought_up_to_date(tmp_path: Path, storage: Path, links: bool) -> None:
    backup = tmp_path / "backup"
    (storage / "became a folder").write_text("")
    (storage / "became a file").mkdir()
    (storage / "became a file" / "x").write_text("")
    (storage / "gone").mkdir()
    (storage / "gone" / "x").write_text("")
    (storage / "link").symlink_to("here")
    back_up(storage, backup, links=links)
    shutil.rmtree(storage / "gone")
    (storage / "became a folder").unlink()
    (storage / "became a folder").mkdir()
    shutil.rmtree(storage / "became a file")
    (storage / "became a file").write_text("now")
    (storage / "link").unlink()
    (storage / "link").symlink_to("there")
    kept = (storage / "one").stat()
    with FileStoreManager(storage) as store:
        store.store_segment(last("new", 1, DATA * 2, "folder/two", DATA * 2))
        store.store_segment(segment("open", 3, DATA))
        store.store_segment(segment("begun", 1, DATA))
        done = back_up(storage, backup, links=links)
        assert (done.files, done.transfers, done.unchanged) == (4, 2, 1)
    assert (storage / "one").stat().st_ctime_ns == kept.st_ctime_ns
    assert _seen(backup) == _seen(storage)
    assert check(backup, deep=True) == []
    assert len(list((backup / ".workdir" / "staging").iterdir())) == 2


def test_a_file_of_the_same_size_and_time_is_copied_anew(tmp_path: Path, storage: Path) -> None:
    """As `put` makes one, which keeps the time of its source."""
    backup, before = tmp_path / "backup", (storage / "one").stat()
    back_up(storage, backup, links=False)
    with FileStoreManager(storage) as store:
        store.store_segment(last("new", 1, DATA[::-1], "one", DATA[::-1]))
    os.utime(storage / "one", ns=(before.st_atime_ns, before.st_mtime_ns))
    back_up(storage, backup, links=False)
    assert (backup / "one").read_bytes() == DATA[::-1]


def test_a_damaged_store_does_not_replace_its_backup(tmp_path: Path, storage: Path) -> None:
    backup = tmp_path / "backup"
    back_up(storage, backup)
    overwrite(journal_of(storage), 1024, b"?" * 1024)
    with pytest.raises(JournalDamagedError):
        back_up(storage, backup)
    check_right(backup)


# --- a backup that is not finished ---------------------------------------------------------------


@pytest.mark.promise(1)
def test_all_is_durable_before_the_backup_has_its_name(tmp_path: Path, storage: Path) -> None:
    calls: list[tuple[str, ...]] = []

    class Listening(WatchedDisk):
        def before(self, operation: str, *facts: Any) -> None:
            calls.append((operation, *(one for one in facts if isinstance(one, str))))

    back_up(storage, tmp_path / "backup", disk=Listening(), links=False)
    [switch] = [
        n for n, call in enumerate(calls) if call[0] == "rename" and call[2] == "journal.db"
    ]
    [name] = [n for n, call in enumerate(calls) if call[0] == "rename" and call[2] == "backup"]
    flushed = calls.index(("flush_file_system",))
    written = [n for n, call in enumerate(calls) if call[0] in ("pwrite", "create", "make_folder")]
    assert max(written) < flushed < switch < name
    assert calls[switch + 1][0] == "flush_folder"
    assert calls[name + 1][0] == "flush_folder"
    # Nothing of an older backup goes before the new journal is there.
    removed = [call for call in calls[:switch] if call[0] in ("unlink", "remove_folder")]
    assert removed == []


def _to_a_full_disk(storage: str, folder: str) -> None:
    get_own_mounts()
    disk = small_disk(Path(folder, "disk"), options="size=1m")
    backup = disk / "backup"
    hog = fill_disk(disk)
    for left in (0, 100_000, 200_000):
        os.truncate(hog, (1 << 20) - left)
        with pytest.raises(OSError, match="No space left"):
            back_up(Path(storage), backup)
        assert not backup.exists()
    hog.unlink()
    done = back_up(Path(storage), backup)
    assert (done.linked, done.files) == (0, 3)  # another file system
    (backup / "large").unlink()
    check_right(backup)


@pytest.mark.promise(6)
def test_a_full_disk_is_told_and_leaves_the_store_alone(tmp_path: Path, storage: Path) -> None:
    (storage / "large").write_bytes(bytes(300_000))
    before = tree(storage)
    apart(_to_a_full_disk, str(storage), str(tmp_path))
    assert tree(storage) == before


# --- of which store ------------------------------------------------------------------------------


def _back_up_mounted(root: str) -> None:
    get_own_mounts()
    mount("--bind", root, root)
    mount("-o", "remount,bind,ro", root)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        back_up(Path(root, "storage"), Path(folder, "backup"))
        check_right(Path(folder, "backup"))


@pytest.mark.parametrize("state", ["in use", "killed", "closed"])
def test_a_store_on_a_read_only_mount_is_copied(tmp_path: Path, state: str) -> None:
    root = tmp_path / "root"
    worker = Worker(root / "storage")
    for number in (1, 2):
        worker.store_segment(segment("open", number, DATA))
    for message in cut(DATA, 2, file_id="two", name="folder/two"):
        worker.store_segment(message)
    worker.store_segment(last("one", 1, DATA, "one", DATA))
    if state == "killed":
        worker.kill()
    elif state == "closed":
        worker.close()
    apart(_back_up_mounted, str(root))
    worker.close()


def _back_up_as(uid: int, storage: str, backup: str) -> list[tuple[str, str]]:
    check(Path(storage))  # what is imported when it is first needed, root alone may read
    become_user(uid, uid)
    return [
        (one.what, one.reason) for one in FileStoreManager.inspect(storage).backup(backup).left_out
    ]


def test_what_may_not_be_read_is_left_out_and_told() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        storage, backup = Path(name, "storage"), Path(name, "backup")
        with FileStoreManager(storage, mode=0o644) as store:
            fill(store)
        (storage / "one").chmod(0o600)
        (storage / "folder").chmod(0o700)
        left_out = apart(partial(_back_up_as, 4711), str(storage), str(backup))
        assert ("one", "it may not be read") in left_out
        assert ("folder", "it may not be read") in left_out
        assert visible(backup) == {}
