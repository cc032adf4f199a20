"""A store that is made anew while nobody asks it for anything: expiry notices."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from crew import last, segment
from support import outcome

from txstore import FileStoreManager
from txstore.errors import ReplacedError


@pytest.mark.parametrize("target", ["storage", "working"])
def test_an_expiry_notices_that_its_store_was_made_anew(tmp_path: Path, target: str) -> None:
    with FileStoreManager(tmp_path / "storage", tmp_path / "working", durability="none") as store:
        store.store_segment(last("id", 1, b"bytes", "name", b"bytes"))
        (tmp_path / target).rename(tmp_path / "elsewhere")
        shutil.copytree(tmp_path / "elsewhere", tmp_path / target)
        error = outcome(store.expire)
        assert isinstance(error, ReplacedError), "promise 7: what is replaced is noticed"
        assert str(tmp_path / target) in str(error)


def test_an_expiry_takes_no_staging_file_of_another_journal_for_an_orphan(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    with FileStoreManager(storage, durability="none") as old:
        old.store_segment(last("id", 1, b"bytes", "name", b"bytes"))
        for path in (storage / ".workdir").glob("journal.db*"):
            path.unlink()
        with FileStoreManager(storage, durability="none") as new:
            new.store_segment(segment("open", 1, b"bytes"))
            error = outcome(old.expire)
            answer = outcome(new.store_segment, segment("open", 2, b"more"))
            assert not isinstance(answer, Exception), f"promise 1: a segment is gone: {answer}"
            assert isinstance(error, ReplacedError)
