"""Hard links to staging files, as ``cp -al`` and other backups by links make: they stay what they
were, and nothing that was acknowledged is lost over them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from crew import cut, visible
from support import at_each_level, send

from txstore import FileStoreManager

DATA = bytes(range(256)) * 16


def linked(storage: Path, backup: Path) -> Path:
    """Give the one staging file a second name in a backup."""
    [staged] = (storage / ".workdir" / "staging").iterdir()
    os.link(staged, backup)
    return backup


@at_each_level
def test_transfer_goes_on_beside_a_link_to_its_staging_file(tmp_path: Path, level: str) -> None:
    storage = tmp_path / "storage"
    one, two, three, four = cut(DATA, 4, file_id="one", name="file")
    with FileStoreManager(storage, durability=level) as store:
        send(store, [one, two])
    backup = linked(storage, tmp_path / "backup")
    before = backup.read_bytes()
    with FileStoreManager(storage, durability=level) as store:
        assert store.store_segment(three).segments_received == 3
        assert store.store_segment(four).file_result == "store"
    assert visible(storage) == {"file": DATA}
    assert backup.read_bytes() == before


@at_each_level
def test_transfer_goes_on_beside_a_link_to_its_staging_file_after_a_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Its durable segments are promised, whoever goes on."""
    storage = tmp_path / "storage"
    one, two, three, four = cut(DATA, 4, file_id="one", name="file")
    monkeypatch.setenv("TXSTORE_BOOT_ID", "one")
    with FileStoreManager(storage, durability="segment") as store:
        send(store, [one, two, three])
    backup = linked(storage, tmp_path / "backup")
    before = backup.read_bytes()
    monkeypatch.setenv("TXSTORE_BOOT_ID", "two")
    with FileStoreManager(storage, durability=level) as store:
        assert store.store_segment(three).segments_received == 3
        assert store.store_segment(four).file_result == "store"
    assert visible(storage) == {"file": DATA}
    assert backup.read_bytes() == before
