"""A backup whose process is killed: it is whole or not there, and the next one makes it whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from crew import last, segment, visible
from damage import DATA, check, fill
from seam import KillingDisk

from txstore import FileStoreManager


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as store:
        fill(store)
    return storage


def back_up(storage: Path, backup: Path, *, links: bool, at: int = 0) -> None:
    """Copy the store, and die before the N-th call that changes something."""
    done = FileStoreManager.inspect(storage, disk=KillingDisk(at)).backup(backup, links=links)
    assert done.left_out == []


@pytest.mark.parametrize(("is_there", "links"), [(False, False), (True, True)])
@pytest.mark.promise(1)
def test_a_backup_that_is_killed_anywhere_is_whole_or_not_there(
    tmp_path: Path, storage: Path, is_there: bool, links: bool
) -> None:
    """And the next one makes it whole."""
    kept = tmp_path / "kept"
    if is_there:
        back_up(storage, kept, links=links)
        with FileStoreManager(storage) as store:
            store.store_segment(last("new", 1, DATA, "one", DATA))
            store.store_segment(segment("begun", 1, DATA))
        (storage / "gone").write_text("")
    died, at = True, 0
    while died:
        at += 1
        backup = tmp_path / "backup"
        if is_there:
            shutil.copytree(kept, backup, symlinks=True)
        child = os.fork()
        if child == 0:
            try:
                back_up(storage, backup, links=links, at=at)
            finally:
                os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
        if backup.exists():
            assert set(visible(backup)) >= {"one", "folder/two"}
            found = {one.kind for one in check(backup, deep=True)}
            assert found <= {"orphan", "leftover"}, (at, found)
        else:
            assert not is_there
        back_up(storage, backup, links=links)
        assert check(backup, deep=True) == []
        assert os.listdir(backup / ".txstore") == ["store"]
        assert sorted(os.listdir(backup / ".workdir")) == ["journal.db", "staging"]
        assert not backup.with_name("backup.unfinished").exists()
        shutil.rmtree(backup)
    assert at > 20
