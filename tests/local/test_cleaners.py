"""Cleaners of temporary folders, which remove what nobody has touched for days."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from crew import bytes_below, segment

from txstore import FileStoreManager


def is_locked(folder: Path) -> bool:
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def test_both_folders_are_locked_while_any_manager_is_open(tmp_path: Path) -> None:
    folders = [tmp_path / "storage", tmp_path / "working"]
    first, second = FileStoreManager(*folders), FileStoreManager(*folders)
    first.close()
    assert all(is_locked(folder) for folder in folders)
    second.close()
    assert not any(is_locked(folder) for folder in folders)


def test_systemd_leaves_an_open_store_alone(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("systemd-tmpfiles") is None:
        pytest.skip("needs root and systemd-tmpfiles")
    rules = tmp_path / "rules.conf"
    (tmp_path / "tmp").mkdir()
    rules.write_text(f"d {tmp_path}/tmp 0755 - - 1s\n")
    storage, stray = tmp_path / "tmp" / "storage", tmp_path / "tmp" / "stray"
    stray.write_text("to be removed")
    clean = ["systemd-tmpfiles", "--clean", str(rules)]
    with FileStoreManager(storage) as store:
        store.store_segment(segment("one", 1, b"begun"))
        before = bytes_below(storage)
        for _ in range(200):  # until the rule's second is over, which the stray tells
            subprocess.run(clean, check=False, capture_output=True)
            if not stray.exists():
                break
        else:
            pytest.skip("systemd-tmpfiles removes nothing here")
        assert bytes_below(storage) == before
        found = store.status("one")
        assert found is not None
        assert found.segments_received == 1
