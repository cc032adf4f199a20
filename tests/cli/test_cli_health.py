"""``txstore health`` of a store: one line, and two exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_driver import run
from crew import segment
from support import everything

from txstore import FileStoreManager
from txstore.disk import Disk


@pytest.fixture
def store(tmp_path: Path) -> FileStoreManager:
    return FileStoreManager(tmp_path / "storage")


def health(store: FileStoreManager, code: int = 0) -> str:
    (line,) = run("health", "--storage-dir", store.storage_dir, code=code).stdout.splitlines()
    return str(line)


def test_a_store_that_works_is_ok_and_nothing_is_written(store: FileStoreManager) -> None:
    store.store_segment(segment("one", 1, b"x" * 2048))
    before = everything(store)
    assert health(store).startswith("ok: 1 unfinished transfer, the oldest since 0 s, ")
    store.store_segment(segment("two", 1, b"y"))
    store.close()
    assert health(store).startswith("ok: 2 unfinished transfers, ")
    assert before[0] != {}
    with FileStoreManager(store.storage_dir) as again:
        before = everything(again)
        health(again)
        assert everything(again) == before


def test_events_that_wait_are_told(store: FileStoreManager) -> None:
    with store.events("index") as feed:
        assert next(feed, None) is None
    store.store_segment(segment("one", 1, b"x"))
    store.cancel("one")
    assert ", 1 events to be seen, " in health(store)


def test_a_disk_that_is_nearly_full_is_not_ok(
    store: FileStoreManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Disk, "space", lambda *_: (1024, 2**40))
    assert health(store, 1) == "not ok: only 1.0 KiB free"


def test_a_damaged_journal_is_not_ok(store: FileStoreManager) -> None:
    store.close()
    Path(store.working_dir, "journal.db").write_bytes(b"no database" * 1000)
    assert health(store, 1).startswith("not ok: ")
    assert "damaged" in health(store, 1)


def test_no_store_is_not_ok(tmp_path: Path) -> None:
    line = run("health", "--storage-dir", tmp_path / "nowhere", code=1).stdout
    assert line.startswith("not ok: ")


def test_it_is_said_which_is_meant() -> None:
    run("health", code=2)


def test_programs_are_told_in_json(store: FileStoreManager) -> None:
    found = json.loads(run("health", "--storage-dir", store.storage_dir, "--json").stdout)
    assert found["ok"] is True
    assert found["text"].startswith("0 unfinished transfers, ")
    store.close()
    Path(store.working_dir, "journal.db").write_bytes(b"no database" * 1000)
    found = json.loads(run("health", "--storage-dir", store.storage_dir, "--json", code=1).stdout)
    assert found["ok"] is False
    assert "damaged" in found["text"]
