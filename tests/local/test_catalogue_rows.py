"""Rows of the catalogue in two folders: each comes as a completion goes, and goes with its file."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crew import cancel, last, segment
from damage import rot, sql
from seam import WatchedDisk
from support import Booted, journal, sha256

from txstore import FileStoreManager

KEPT, WEEK = 60.0, 7 * 86400.0


def store_file(store: FileStoreManager, name: str, data: bytes, file_id: str | None = None) -> None:
    store.store_segment(last(file_id or f"{name}-{sha256(data)}", 1, data, name, data))


def listed(store: FileStoreManager) -> dict[str, str]:
    entries = list(store.catalogue())
    found = {one.name: one.sha256 for one in entries}
    assert len(found) == len(entries), "a file is in it twice"
    return found


def rows(store: FileStoreManager) -> list[tuple[Any, ...]]:
    """The key, the place, ...; the last tells when the file was missed, if it was."""
    return journal(store.working_dir)["catalogue"]


def restore(path: Path) -> None:
    """The same bytes, in another file."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, (1e9, 1e9))
    copy.rename(path)


Opened = Callable[..., FileStoreManager]


@pytest.fixture
def opened(manager: Any) -> Opened:
    def open_store(**options: Any) -> FileStoreManager:
        found: FileStoreManager = manager(**{"keep_completed": KEPT, **options})
        return found

    return open_store


# --- which row is right --------------------------------------------------------------------------


@pytest.mark.promise(3)
@pytest.mark.parametrize("first", [True, False])
def test_who_keeps_none_leaves_no_older_row_behind(
    opened: Opened, ticks: list[float], first: bool
) -> None:
    """A store some of whose managers keep a catalogue."""
    one, other = opened(catalogue=first), opened(catalogue=not first)
    store_file(one, "file", b"old")
    ticks[0] += KEPT
    other.expire()
    assert listed(one) == ({"file": sha256(b"old")} if first else {})
    store_file(other, "file", b"new")
    assert listed(one) == {"file": sha256(b"new")}
    ticks[0] += KEPT
    one.expire()
    assert listed(one) == ({} if first else {"file": sha256(b"new")})


@pytest.mark.promise(3)
def test_a_worker_that_was_paused_while_it_forgot_brings_no_older_row_back(
    storage: Path, ticks: list[float]
) -> None:
    class Paused(WatchedDisk):
        """Stops before it writes down what it read."""

        reached, go_on = threading.Event(), threading.Event()

        def before(self, operation: str, *facts: object) -> None:
            if operation == "stat" and facts[0] == "file" and not self.reached.is_set():
                self.reached.set()
                assert self.go_on.wait(30)

    disk = Paused()
    with (
        FileStoreManager(storage, durability="none", keep_completed=KEPT) as store,
        FileStoreManager(storage, durability="none", keep_completed=KEPT, disk=disk) as slow,
    ):
        store_file(store, "file", b"old")
        ticks[0] += KEPT
        forgetting = threading.Thread(target=slow.expire)
        forgetting.start()
        assert disk.reached.wait(30)
        store_file(store, "file", b"new")
        ticks[0] += KEPT
        store.expire()
        assert listed(store) == {"file": sha256(b"new")}
        disk.go_on.set()
        forgetting.join()
        assert listed(store) == {"file": sha256(b"new")}


def test_a_name_need_not_be_text(opened: Opened, ticks: list[float]) -> None:
    store = opened()
    name = os.fsdecode(b"\xff\xfe")
    store_file(store, name, b"x", "id")
    for _ in range(2):
        assert listed(store) == {name: sha256(b"x")}
        ticks[0] += KEPT
        store.expire()


def test_a_hash_stays_known_without_reading(
    opened: Opened, storage: Path, ticks: list[float]
) -> None:
    store = opened(durability="segment")
    store_file(store, "file", b"data")
    ticks[0] += KEPT
    store.expire()
    found = (storage / "file").stat()
    assert store.stored_sha256("file", found) == sha256(b"data")
    (storage / "file").write_bytes(b"DATA")
    assert store.stored_sha256("file", (storage / "file").stat()) is None


# --- rows go -------------------------------------------------------------------------------------


@pytest.mark.promise(9)
def test_a_file_that_was_taken_away_before_gets_no_row(
    opened: Opened, storage: Path, ticks: list[float]
) -> None:
    store = opened()
    for name in ("here", "taken", "changed"):
        store_file(store, name, b"data")
    (storage / "taken").unlink()
    (storage / "changed").write_bytes(b"other data")
    ticks[0] += KEPT
    store.expire()
    assert listed(store) == {"here": sha256(b"data")}


@pytest.mark.promise(1)
def test_a_file_of_a_restored_backup_keeps_its_row(
    opened: Opened, storage: Path, ticks: list[float]
) -> None:
    """It has another inode, and perhaps another time."""
    store = opened()
    for name in ("before", "after"):
        store_file(store, name, b"data")
        if name == "before":
            restore(storage / name)
    ticks[0] += KEPT
    store.expire()
    restore(storage / "after")
    for _ in range(3):
        ticks[0] += WEEK
        store.expire()
    assert set(listed(store)) == {"before", "after"}
    assert verified(storage) == {}


@pytest.mark.promise(9)
def test_a_row_goes_a_week_after_its_file_was_missed(
    opened: Opened, storage: Path, ticks: list[float]
) -> None:
    store = opened()
    for name in ("here", "taken"):
        store_file(store, name, b"data")
    ticks[0] += KEPT
    store.expire()
    (storage / "taken").unlink()
    for waited in (0.0, WEEK - 1):
        ticks[0] += waited
        store.expire()
        store.expire()
        assert set(listed(store)) == {"here", "taken"}, "it is told until then"
    ticks[0] += 1
    store.expire()
    store.expire()
    assert listed(store) == {"here": sha256(b"data")}


@pytest.mark.promise(9)
def test_a_file_that_is_back_is_not_missed_any_more(
    opened: Opened, storage: Path, ticks: list[float]
) -> None:
    store = opened()
    store_file(store, "file", b"data")
    ticks[0] += KEPT
    store.expire()
    (storage / "file").rename(storage / "elsewhere")
    store.expire()
    (storage / "elsewhere").rename(storage / "file")
    ticks[0] += WEEK
    store.expire()
    store.expire()
    (storage / "file").rename(storage / "elsewhere")
    store.expire()
    assert set(listed(store)) == {"file"}


@pytest.mark.promise(9)
def test_rows_of_files_that_are_taken_away_do_not_pile_up(
    opened: Opened, storage: Path, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that stay for longer than their messages are known, and are taken away then."""
    monkeypatch.setattr("txstore.local.catalogue.Sweeping.lifetime", 0.05)
    store = opened(keep_completed=0.1)
    for number in range(1000):
        ticks[0] += 0.001  # so quickly that each slice forgets as many as it may
        store_file(store, f"file{number}", b"x")
        if number >= 120:
            (storage / f"file{number - 120}").unlink()
    assert len(rows(store)) <= 4 * 20 + 2 * 50


@pytest.mark.promise(9)
def test_the_sweep_begins_anywhere(opened: Opened, storage: Path, ticks: list[float]) -> None:
    """Of many short processes each would look at the first rows alone."""
    store = opened()
    for number in range(16):
        store_file(store, f"file{number}", b"x")
    ticks[0] += KEPT
    store.expire()
    for one in storage.glob("file*"):
        one.unlink()
    for _ in range(400):
        opened().store_segment(cancel("nothing"))
        if all(row[-1] is not None for row in rows(store)):
            return
    raise AssertionError("promise 9: some rows are never looked at")


def test_a_reboot_with_a_wrong_clock_takes_no_row(
    storage: Path, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"durability": "none", "keep_completed": KEPT}
    with FileStoreManager(storage, disk=Booted("before"), **options) as store:
        store_file(store, "file", b"data")
        ticks[0] += KEPT
        store.expire()
        (storage / "file").rename(storage / "elsewhere")
        store.expire()
    ticks[0] = 60.0
    monkeypatch.setattr("time.time", lambda: 4e9)
    with FileStoreManager(storage, disk=Booted("after"), **options) as store:
        for _ in range(3):
            store.expire()
        assert set(listed(store)) == {"file"}


@pytest.mark.promise(6)
def test_on_a_full_disk_what_is_over_goes_and_no_row_is_lost(
    storage: Path, ticks: list[float]
) -> None:
    class Full(WatchedDisk):
        """Has no space for a row."""

        full = True

        def before(self, operation: str, *facts: object) -> None:
            statement = str(facts[0]) if operation == "sql" else ""
            if self.full and statement.startswith(("INSERT OR REPLACE", "UPDATE catalogue")):
                raise sqlite3.OperationalError("database or disk is full")

    disk = Full()
    with FileStoreManager(
        storage, durability="none", keep_completed=KEPT, expire_after=KEPT, disk=disk
    ) as store:
        store_file(store, "file", b"data")
        store.store_segment(segment("over", 1, b"x"))
        ticks[0] += KEPT
        assert store.expire() == ["over"]
        assert listed(store) == {"file": sha256(b"data")}
        disk.full = False
        store.expire()
        assert len(rows(store)) == 1
        (storage / "file").unlink()
        disk.full = True
        store.expire()
        assert listed(store) == {"file": sha256(b"data")}


# --- what is found -------------------------------------------------------------------------------


def kinds(storage: Path, *, deep: bool = False) -> dict[object, str]:
    found = FileStoreManager.inspect(storage).check(deep=deep)
    return {one.facts["name"]: one.kind for one in found}


def test_check_finds_what_became_of_files_long_after_they_were_stored(
    opened: Opened, storage: Path, ticks: list[float]
) -> None:
    store = opened(durability="segment")
    for name in ("well", "gone", "changed", "rotten"):
        store_file(store, name, b"data of it" * 10)
    ticks[0] += KEPT
    store.expire()
    assert kinds(storage, deep=True) == {}
    (storage / "gone").unlink()
    (storage / "changed").write_bytes(b"other data")
    rot(storage / "rotten")
    found = {"gone": "stored-missing", "changed": "stored-changed"}
    assert kinds(storage) == found
    assert kinds(storage, deep=True) == {**found, "rotten": "stored-damaged"}


def verified(storage: Path, **options: Any) -> dict[str, str]:
    found = FileStoreManager.inspect(storage, **options).verify()
    return {one.name: one.found.kind for one in found if one.found is not None}


@pytest.mark.promise(3)
def test_what_became_of_a_file_is_told_apart(
    opened: Opened, storage: Path, ticks: list[float]
) -> None:
    store = opened(durability="segment")
    names = ("copied", "gone", "replaced", "rewritten", "rotten", "well")
    for name in names:
        store_file(store, name, b"data of it" * 10)
    ticks[0] += KEPT
    store.expire()
    # As a backup brings it back: other inodes, and perhaps other times.
    (storage / "copied").rename(storage / "before")
    (storage / "copied").write_bytes((storage / "before").read_bytes())
    (storage / "gone").unlink()
    (storage / "replaced").unlink()
    (storage / "replaced").write_bytes(b"DATA OF IT" * 10)
    (storage / "rewritten").write_bytes(b"DATA OF IT" * 10)
    rot(storage / "rotten")
    assert verified(storage) == {
        "gone": "stored-missing",
        "replaced": "stored-changed",
        "rewritten": "stored-changed",
        "rotten": "stored-damaged",
    }


@pytest.mark.promise(3)
def test_a_row_that_is_older_than_the_file_never_says_that_its_bytes_rotted(
    storage: Path, ticks: list[float]
) -> None:
    """As a power loss leaves it that took the record of the newer file, which has the same size."""
    with FileStoreManager(storage, disk=Booted("before"), keep_completed=KEPT) as store:
        store_file(store, "file", b"old")
        ticks[0] += KEPT
        store.expire()
        store_file(store, "file", b"new")
    sql(storage, "DELETE FROM completion")
    after = Booted("after")
    assert verified(storage, disk=after) == {"file": "stored-changed"}
    assert list(FileStoreManager.inspect(storage, disk=after).check(deep=True)) == []


def test_a_file_is_found_by_a_name_through_a_link(opened: Opened, storage: Path) -> None:
    store = opened()
    store_file(store, "real/file", b"data", "id")
    (storage / "link").symlink_to("real")
    [found] = FileStoreManager.inspect(storage).verify(["link/file"])
    assert (found.name, found.found) == ("real/file", None)
