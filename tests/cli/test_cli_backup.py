"""``txstore backup``: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_driver import run
from damage import fill

from txstore import FileStoreManager


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = tmp_path / "storage"
    with FileStoreManager(storage) as store:
        fill(store)
    return storage


def test_a_backup_is_told_in_a_line(tmp_path: Path, storage: Path) -> None:
    backup = tmp_path / "backup"
    shown = run("backup", backup, "--storage-dir", storage)
    assert shown.stdout.startswith("2 files (2 linked), 1 unfinished transfer, 2.0 KiB copied in ")
    shown = run("backup", backup, "--storage-dir", storage)
    # The bytes of unfinished transfers are copied anew.
    assert shown.stdout.startswith("2 files (2 unchanged), 1 unfinished transfer, ")
    assert run("check", "--deep", "--storage-dir", backup).stdout == "Nothing is wrong.\n"
    shown = run("backup", tmp_path / "other", "--storage-dir", storage, "--quiet")
    assert (shown.stdout, shown.stderr) == ("", "")


def test_programs_are_told_in_json(tmp_path: Path, storage: Path) -> None:
    shown = run("backup", tmp_path / "backup", "--storage-dir", storage, "--copy", "--json")
    told = json.loads(shown.stdout)
    assert told.pop("seconds") >= 0
    assert told.pop("copied") + told.pop("cloned") == 2
    assert told.pop("bytes") in (2048, 4096)
    assert told == {
        "destination": str(tmp_path / "backup"),
        "transfers": 1,
        "files": 2,
        "linked": 0,
        "unchanged": 0,
        "removed": 0,
        "left_out": [],
    }


def test_what_is_left_out_is_told_and_is_a_failure(tmp_path: Path, storage: Path) -> None:
    os.mkfifo(storage / "pipe")
    shown = run("backup", tmp_path / "backup", "--storage-dir", storage, code=1)
    assert shown.stdout.startswith("2 files")
    assert "left out pipe: it is neither a file nor a folder nor a link" in shown.stderr
    shown = run("backup", tmp_path / "backup", "--storage-dir", storage, "--json", code=1)
    assert json.loads(shown.stdout)["left_out"] == [
        {"what": "pipe", "reason": "it is neither a file nor a folder nor a link"}
    ]


def test_errors_say_what_is_in_the_way(tmp_path: Path, storage: Path) -> None:
    shown = run("backup", tmp_path / "backup", "--storage-dir", tmp_path / "nothing", code=1)
    assert shown.stderr.startswith("Error: there is no store here:")
    shown = run("backup", storage / "below", "--storage-dir", storage, code=1)
    assert "it lies in the store itself" in shown.stderr
    shown = run("backup", tmp_path / "no" / "folder", "--storage-dir", storage, code=1)
    assert "there is no folder" in shown.stderr


def test_servers_make_their_own_backups(tmp_path: Path) -> None:
    """Which are not asked for that."""
    urls = ("--storage-dir", "s3://bucket/x", "--working-dir", "postgresql://nowhere.invalid/x")
    shown = run("backup", tmp_path / "backup", *urls, code=1)
    assert "Back up PostgreSQL first, and then the bucket" in shown.stderr
    assert "docs/cluster.md" in shown.stderr
