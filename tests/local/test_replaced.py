"""A file or folder of the store that is removed or replaced under a live manager: it is noticed
before the next answer, and nothing that was acknowledged is lost with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from crew import Worker, cancel, last, segment, staging_files, visible
from seam import WatchedDisk
from support import FULL, LEVELS, at_each_level, descriptors, lock_file

from txstore import FileStoreManager
from txstore.errors import (
    JournalDamagedError,
    ReplacedError,
    SequenceError,
    StagingDamagedError,
)
from txstore.options import Level

pytestmark = pytest.mark.promise(7)

DATA = bytes(range(256)) * 4
levels = pytest.mark.parametrize("level", LEVELS if FULL else ("segment", "none"))

#: Messages that each need an answer; the transfer "open" is at segment 2.
CALLS = {
    "next segment": segment("open", 3, DATA),
    "repeat": segment("open", 2, DATA),
    "last segment": last("open", 3, DATA, "folder/open", DATA * 3),
    "first segment": segment("other", 1, DATA),
    "one segment": last("single", 1, DATA, "folder/open", DATA),
    "cancel": cancel("open"),
}


def stripe(text: str) -> str:
    """The lock file's number, as every process picks it."""
    return f"{zlib.crc32(text.encode()) % 64:02x}"


def in_working_dir(name: str) -> Callable[[Path], Path]:
    return lambda storage: storage / ".workdir" / name


def staged(storage: Path) -> Path:
    [name] = staging_files(storage / ".workdir")
    return storage / ".workdir" / "staging" / name


#: What can go, and the calls that rest on it.
TARGETS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "journal.db": (in_working_dir("journal.db"), list(CALLS)),
    "-wal": (in_working_dir("journal.db-wal"), list(CALLS)),
    "-shm": (in_working_dir("journal.db-shm"), list(CALLS)),
    "lock file": (in_working_dir("locks/locks"), list(CALLS)),
    "lock folder": (in_working_dir("locks"), list(CALLS)),
    "staging file": (staged, ["next segment", "repeat", "last segment"]),
    "staging folder": (
        in_working_dir("staging"),
        ["next segment", "repeat", "last segment", "first segment"],
    ),
    "working dir": (lambda storage: storage / ".workdir", list(CALLS)),
}


def aside(path: Path) -> Path:
    return path.with_name(path.name + ".aside")


def move(path: Path) -> None:
    path.rename(aside(path))


def copy(path: Path) -> None:
    """Put a copy in its place, made by another process: this one has the journal open."""
    subprocess.run(["cp", "-a", path, f"{path}.copy"], check=True)
    move(path)
    path.with_name(path.name + ".copy").rename(path)


def empty(path: Path) -> None:
    """Put an empty one in its place."""
    is_folder = path.is_dir()
    move(path)
    if is_folder:
        path.mkdir()
    else:
        path.touch()


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


ACTS = {"moved": move, "copied": copy, "emptied": empty}

#: What the calls publish.
WHOLE = (DATA, DATA * 3)


def begun(storage: Path, level: Level, **options: Any) -> FileStoreManager:
    """A live manager that has used all of its locks and files."""
    store = FileStoreManager(storage, durability=level, **options)
    store.store_segment(last("old", 1, b"old", "folder/open", b"old"))
    store.store_segment(segment("open", 1, DATA))
    store.store_segment(segment("open", 2, DATA))
    return store


def put_back(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    aside(path).rename(path)


def goes_on(storage: Path, level: Level) -> None:
    """Another manager has what was acknowledged, and finishes it."""
    with FileStoreManager(storage, durability=level) as store:
        found = store.status("open")
        assert found is not None
        # The refused call may have been recorded.
        assert found.segments_received in (2, 3)
        if found.segments_received == 2:
            store.store_segment(segment("open", 3, DATA))
        store.store_segment(last("open", 4, DATA, "folder/open", DATA * 4))
        assert visible(storage)["folder/open"] == DATA * 4


def not_answered(store: FileStoreManager, call: str) -> None:
    answer = store.store_segment(CALLS[call])
    pytest.fail(f"{call} was answered: {answer}")


COMBINATIONS = [
    (level, target, act)
    for level in LEVELS
    for target in TARGETS
    for act in ACTS
    if FULL or level == "none" or (level, act) == ("segment", "emptied")
    # A copy of a staging file has the right bytes: see below.
    if (target, act) != ("staging file", "copied")
]


@pytest.mark.parametrize(("level", "target", "act"), COMBINATIONS)
def test_what_is_replaced_under_a_live_manager_is_noticed_before_its_next_answer(
    tmp_path: Path, level: Level, target: str, act: str
) -> None:
    find, calls = TARGETS[target]
    for call in calls:
        storage = tmp_path / call / "storage"
        with begun(storage, level) as store:
            path = find(storage)
            ACTS[act](path)
            with pytest.raises(StagingDamagedError if target == "staging file" else ReplacedError):
                not_answered(store, call)
            assert (storage / "folder" / "open").read_bytes() in (b"old", *WHOLE), call
        put_back(path)
        if call not in ("last segment", "cancel"):
            goes_on(storage, level)


@at_each_level
def test_removed_log_takes_nothing_acknowledged_with_it(tmp_path: Path, level: Level) -> None:
    """SQLite has it open still, and copies it into the database when the last one closes."""
    for name in ("journal.db-wal", "journal.db-shm"):
        storage = tmp_path / name
        with begun(storage, level) as store:
            remove(storage / ".workdir" / name)
            with pytest.raises(ReplacedError):
                store.store_segment(CALLS["next segment"])
        goes_on(storage, level)


@at_each_level
def test_two_live_managers_after_the_shared_memory_was_removed(
    tmp_path: Path, level: Level
) -> None:
    """Each would have an index of its own into one log, and write over the other's records."""
    with begun(tmp_path, level) as store:
        remove(tmp_path / ".workdir" / "journal.db-shm")
        with Worker(tmp_path, durability=level) as other:
            assert other.store_segment(segment("other", 1, DATA)).segments_received == 1
            with pytest.raises(ReplacedError):
                store.store_segment(CALLS["next segment"])
            assert other.store_segment(segment("other", 2, DATA)).segments_received == 2
    with FileStoreManager(tmp_path, durability=level) as after:
        assert {one.file_id: one.segments_received for one in after.transfers()} in (
            {"open": 2, "other": 2},
            {"open": 3, "other": 2},
        )


@at_each_level
def test_removed_journal_is_never_made_anew_beside_what_it_left(
    tmp_path: Path, level: Level
) -> None:
    journal = tmp_path / ".workdir" / "journal.db"
    with begun(tmp_path, level) as store:
        remove(journal)
        for call in ("next segment", "first segment", "one segment", "cancel"):
            with pytest.raises(ReplacedError):
                store.store_segment(CALLS[call])
        with pytest.raises(JournalDamagedError):
            FileStoreManager(tmp_path)
        assert not journal.exists()
    assert not journal.exists()
    assert visible(tmp_path)["folder/open"] in (b"old", *WHOLE)


@at_each_level
def test_removed_lock_file_is_made_anew_after_it_was_noticed(tmp_path: Path, level: Level) -> None:
    with begun(tmp_path, level) as store:
        remove(lock_file(tmp_path))
        with pytest.raises(ReplacedError):
            store.store_segment(CALLS["next segment"])
        assert store.store_segment(CALLS["next segment"]).segments_received == 3
        with Worker(tmp_path, durability=level) as other:
            answer = other.store_segment(last("open", 4, DATA, "new", DATA * 4))
            assert answer.file_result == "store"


@at_each_level
def test_lock_folder_that_was_replaced_does_not_make_two_of_each_lock(
    tmp_path: Path, level: Level
) -> None:
    """Who opened it before and who opened it after would exclude each other no more."""
    with begun(tmp_path, level) as store:
        empty(tmp_path / ".workdir" / "locks")
        with Worker(tmp_path, durability=level) as other:
            assert other.store_segment(CALLS["next segment"]).segments_received == 3
            with pytest.raises(ReplacedError):
                store.store_segment(CALLS["next segment"])
            with pytest.raises(ReplacedError):
                store.store_segment(CALLS["first segment"])
            assert other.store_segment(segment("open", 4, DATA)).segments_received == 4


@at_each_level
def test_removed_staging_file_costs_its_own_transfer_only(tmp_path: Path, level: Level) -> None:
    with begun(tmp_path, level) as store:
        lost = staged(tmp_path)
        store.store_segment(segment("other", 1, DATA))
        remove(lost)
        for call in ("next segment", "repeat", "last segment"):
            with pytest.raises(StagingDamagedError) as caught:
                store.store_segment(CALLS[call])
            assert caught.value.file_id == "open"
            assert caught.value.path == str(lost)
        with Worker(tmp_path, durability=level) as another, pytest.raises(StagingDamagedError):
            another.store_segment(CALLS["next segment"])
        assert store.store_segment(segment("other", 2, DATA)).segments_received == 2
        # What the error says to do.
        assert store.store_segment(cancel("open")).segments_received == 2
        assert store.store_segment(segment("open", 1, DATA)).segments_received == 1
        assert len(staging_files(tmp_path / ".workdir")) == 2


@at_each_level
def test_copy_in_the_place_of_a_staging_file_is_verified_and_built_on(
    tmp_path: Path, level: Level
) -> None:
    """As after a restored backup: the row's own hash says whether it has the right bytes."""
    with begun(tmp_path, level) as store:
        path = staged(tmp_path)
        whole = path.read_bytes()
        copy(path)
        with pytest.raises(StagingDamagedError):  # noticed by who has the transfer in hand
            store.store_segment(CALLS["next segment"])
        assert store.store_segment(CALLS["next segment"]).segments_received == 3
        assert path.read_bytes() == whole + DATA
        answer = store.store_segment(last("open", 4, DATA, "folder/open", DATA * 4))
        assert answer.file_result == "store"
        assert visible(tmp_path) == {"folder/open": DATA * 4}


@at_each_level
def test_other_bytes_in_the_place_of_a_staging_file_are_never_published(
    tmp_path: Path, level: Level
) -> None:
    with begun(tmp_path, level) as store:
        path = staged(tmp_path)
        path.unlink()
        path.write_bytes(DATA + b"?" * len(DATA))
        for call in ("next segment", "last segment"):
            with pytest.raises(StagingDamagedError):
                store.store_segment(CALLS[call])
        assert visible(tmp_path) == {"folder/open": b"old"}


@pytest.mark.parametrize("act", ACTS)
@at_each_level
def test_file_is_not_stored_in_a_storage_dir_that_was_replaced(
    tmp_path: Path, level: Level, act: str
) -> None:
    storage = tmp_path / "storage"
    with begun(storage, level, working_dir=tmp_path / "working") as store:
        ACTS[act](storage)
        for call in ("last segment", "one segment"):
            with pytest.raises(ReplacedError) as caught:
                not_answered(store, call)
            assert caught.value.path == str(storage)
        assert visible(aside(storage)) == {"folder/open": b"old"}
        put_back(storage)
        # The transfer was kept.
        assert store.store_segment(CALLS["last segment"]).file_result == "store"
    assert visible(storage) == {"folder/open": DATA * 3}


# --- in the middle of a call ---------------------------------------------------------------------


class RemovingDisk(WatchedDisk):
    """Does something once, ahead of the first operation that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.operation = ""
        self.words = ""
        self.act: Callable[[], object] = lambda: None

    def before(self, operation: str, *facts: Any) -> None:
        if operation == self.operation and (operation != "sql" or self.words in facts[0]):
            self.operation = ""
            self.act()


MIDDLE = {
    "next segment": ("sql", "UPDATE"),
    "first segment": ("sql", "INSERT"),
    "last segment": ("rename", ""),
    "one segment": ("rename", ""),
    "cancel": ("sql", "DELETE"),
}


@pytest.mark.parametrize(
    "target",
    ["journal.db", "-wal", "lock file", "working dir"],
)
@levels
def test_what_goes_in_the_middle_of_a_call_is_noticed_before_its_answer(
    tmp_path: Path, level: Level, target: str
) -> None:
    find, calls = TARGETS[target]
    for call in MIDDLE:
        if call not in calls:
            continue
        storage = tmp_path / call / "storage"
        disk = RemovingDisk()
        with begun(storage, level, disk=disk) as store:
            path = find(storage)
            disk.operation, disk.words = MIDDLE[call]
            disk.act = lambda path=path: move(path)  # type: ignore[misc]
            with pytest.raises(ReplacedError):
                not_answered(store, call)
            assert disk.operation == "", f"{call} has no such step"
        put_back(path)
        if call == "next segment":
            goes_on(storage, level)


@levels
def test_staging_file_that_goes_while_it_is_used_is_noticed_before_the_answer(
    tmp_path: Path, level: Level
) -> None:
    for call in ("next segment", "first segment", "repeat"):
        storage = tmp_path / call
        disk = RemovingDisk()
        with begun(storage, level, disk=disk) as store:
            known = set(staging_files(storage / ".workdir"))
            if call != "first segment":
                known.clear()

            def act(storage: Path = storage, known: set[str] = known) -> None:
                [name] = set(staging_files(storage / ".workdir")) - known
                remove(storage / ".workdir" / "staging" / name)

            disk.operation, disk.act = "pread" if call == "repeat" else "pwrite", act
            with pytest.raises(StagingDamagedError):
                not_answered(store, call)


def test_errors_of_what_was_replaced_leak_no_descriptor(tmp_path: Path) -> None:
    def found() -> list[str]:
        # Before 3.12 a connection to what is gone cannot be closed without a checkpoint.
        paths = descriptors()
        return (
            paths if sys.version_info >= (3, 12) else [p for p in paths if "/journal.db" not in p]
        )

    before = found()
    for target, (find, calls) in TARGETS.items():
        storage = tmp_path / target / "storage"
        with begun(storage, "none") as store:
            move(find(storage))
            for call in calls:
                with suppress(ReplacedError, StagingDamagedError, SequenceError):
                    store.store_segment(CALLS[call])
    assert found() == before
