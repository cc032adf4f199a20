"""A store that could not be made is made by the next open, and nothing is written elsewhere."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import pytest
from crash.oracle import broken
from crew import segment
from support import journal_of

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import JournalLinkedError, StoreMismatchError
from txstore.local.journal import making
from txstore.testing import FaultPlan, FaultyDisk


def calls_of_making(storage: Path) -> list[tuple[str, str]]:
    plan = FaultPlan(keep_history=True)
    FileStoreManager(storage, durability="segment", disk=FaultyDisk(plan)).close()
    assert plan.history is not None
    return plan.history


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("forever", [False, True], ids=["once", "for ever"])
def test_whatever_fails_while_a_store_is_made_the_next_open_completes_it(
    tmp_path: Path, error: int, forever: bool
) -> None:
    count = len(calls_of_making(tmp_path / "whole"))
    assert count > 60
    for nth in range(1, count + 1):
        storage = tmp_path / str(nth)
        plan = FaultPlan()
        plan.fail("*", error, nth=nth, forever=forever)
        disk = FaultyDisk(plan)
        with suppress(OSError, StoreMismatchError):
            FileStoreManager(storage, disk=disk).close()
        disk.bury()
        with FileStoreManager(storage) as store:
            assert store.store_segment(segment("one", 1, b"x")).segments_received == 1, nth
        shutil.rmtree(storage)


class Outlived(sqlite3.Connection):
    """Somebody looks at the database when it is closed, so it is not the last."""

    def close(self) -> None:
        [(_, _, path)] = self.execute("PRAGMA database_list").fetchall()
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as other:
            other.execute("SELECT count(*) FROM sqlite_master").fetchone()
            super().close()


@pytest.mark.parametrize("builds", ["in memory", "in the store"])
def test_the_stores_row_does_not_rest_on_a_checkpoint_that_tells_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: str
) -> None:
    if builds == "in the store":  # as before Python 3.11
        monkeypatch.setattr(making, "_template", bytes)
    disk = Disk()
    disk.sqlite_connection = Outlived
    with suppress(OSError):
        FileStoreManager(tmp_path, disk=disk).close()
    try:
        with FileStoreManager(tmp_path) as store:
            assert store.store_segment(segment("one", 1, b"x")).segments_received == 1
    except OSError as error:
        raise broken(6, f"a store that was made cannot be opened: {error}") from error


def test_a_new_journal_is_in_the_mode_it_needs(tmp_path: Path) -> None:
    FileStoreManager(tmp_path).close()
    header = journal_of(tmp_path).read_bytes()[:100]
    assert header[18:20] == b"\2\2"
    with closing(sqlite3.connect(f"file:{journal_of(tmp_path)}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


@pytest.mark.parametrize("builds", ["in memory", "in the store"])
def test_nothing_is_written_outside_the_two_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: str
) -> None:
    def refuse() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", refuse)
    if builds == "in the store":  # as before Python 3.11
        monkeypatch.setattr(making, "_template", bytes)
    else:
        making._template.cache_clear()
    with FileStoreManager(tmp_path) as store:
        assert store.store_segment(segment("one", 1, b"x")).segments_received == 1


def test_a_store_is_made_where_all_else_is_read_only(tmp_path: Path) -> None:
    script = f"""\
mount --make-rprivate / && mount --bind {tmp_path} {tmp_path} || exit 77
findmnt -rno TARGET | grep -v '^{tmp_path}' | while read one; do
    mount -o remount,bind,ro "$one" 2>/dev/null
done
touch /anything /tmp/anything 2>/dev/null && exit 77
exec {sys.executable} -B -c '
from txstore import FileStoreManager
FileStoreManager("{tmp_path}/storage").close()
'
"""
    if shutil.which("unshare") is None or shutil.which("findmnt") is None:
        pytest.skip("there is no unshare or no findmnt here")
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": "/nowhere"},
    )
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip(f"no file system can be made read-only here: {ended.stderr}")
    assert ended.returncode == 0, ended.stderr
    FileStoreManager(tmp_path / "storage").close()


# --- copies made of hard links -------------------------------------------------------------------


def linked_copy(storage: Path) -> Path:
    """As ``cp -al`` makes it."""
    copy = storage.with_name("copy")
    shutil.copytree(storage, copy, copy_function=os.link)
    return copy


@pytest.mark.parametrize("opened", ["the original", "the copy"])
def test_a_journal_with_a_second_name_is_copied_before_it_is_written(
    tmp_path: Path, opened: str
) -> None:
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as store:
        store.store_segment(segment("one", 1, b"x"))
    copy = linked_copy(storage)
    used, kept = (storage, copy) if opened == "the original" else (copy, storage)
    before = journal_of(kept).read_bytes()
    with FileStoreManager(used) as store:
        assert store.store_segment(segment("one", 2, b"x")).segments_received == 2
        store.cancel("one")
    if journal_of(kept).read_bytes() != before:
        raise broken(8, "another store's journal was written")
    with FileStoreManager(kept) as store:
        assert store.store_segment(segment("one", 2, b"y")).segments_received == 2


def test_a_linked_journal_that_may_be_in_use_is_refused(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as store:
        store.store_segment(segment("one", 1, b"x"))
        copy = linked_copy(storage)
        files = [journal_of(copy), journal_of(copy).with_name("journal.db-wal")]
        before = [one.read_bytes() for one in files]
        with pytest.raises(JournalLinkedError, match="second name") as caught:
            FileStoreManager(copy)
        assert caught.value.errno == errno.EMLINK
        assert [one.read_bytes() for one in files] == before
        assert store.store_segment(segment("one", 2, b"x")).segments_received == 2
