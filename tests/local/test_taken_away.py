"""What others do to published files and their folders at once: take them away, or move them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from support import at_each_level, claim, message, published, send, staged, transfer_messages

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.errors import SequenceError
from txstore.options import Level
from txstore.testing import FaultPlan, FaultyDisk, SimulatedCrash

DATA = b"first second third"
ONE, SEVERAL = len(DATA), 6  # bytes a segment

in_one_and_in_several = pytest.mark.parametrize("size", [ONE, SEVERAL], ids=["one", "several"])


class TakingDisk(Disk):
    """A consumer takes each published file away as soon as it is there."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
        if target == "file":
            path = Path(f"/proc/self/fd/{target_dir}", target)
            self.taken.append(path.read_bytes())
            path.unlink()


@at_each_level
def test_a_file_that_is_taken_away_as_soon_as_it_appears_is_answered(
    tmp_path: Path, level: Level
) -> None:
    disk = TakingDisk()
    *begun, last = transfer_messages(DATA, SEVERAL, name="in/file")
    with FileStoreManager(tmp_path, durability=level, disk=disk) as store:
        send(store, begun)
        answer = store.store_segment(last)
        assert answer.to_dict() == {
            "file_id": "transfer",
            "segments_received": 3,
            "result": "store",
        }
        assert (published(store), staged(store), store.transfers()) == ({}, [], [])
        assert store.store_segment(last).to_dict() == answer.to_dict()
    with FileStoreManager(tmp_path, durability=level) as store:
        assert store.store_segment(last).to_dict() == answer.to_dict()
        assert published(store) == {}
    assert disk.taken == [DATA]


@at_each_level
def test_a_file_of_one_segment_is_stored_again_as_often_as_it_is_gone(
    tmp_path: Path, level: Level
) -> None:
    """Of its several records only the latest tells whether the file is as it was published."""
    one = message(DATA, file_id="one", segment_number="1", **claim(DATA, "file"))
    with FileStoreManager(tmp_path, durability=level) as store:
        for _ in range(3):
            assert store.store_segment(one).file_result == "store"
            before = (tmp_path / "file").stat()
            assert store.store_segment(one).file_result == "store"
            assert (tmp_path / "file").stat() == before  # a repeat of what is there
            os.unlink(tmp_path / "file")


# Folders that are moved


class FlushingDisk(Disk):
    """Notes which folders were flushed."""

    def __init__(self) -> None:
        self.flushed: list[str] = []

    def flush_folder(self, fd: int) -> None:
        super().flush_folder(fd)
        self.flushed.append(os.readlink(f"/proc/self/fd/{fd}"))


@in_one_and_in_several
def test_a_folder_that_was_moved_is_flushed_under_its_new_name_before_the_answer(
    tmp_path: Path, size: int
) -> None:
    disk = FlushingDisk()
    with FileStoreManager(tmp_path, durability="segment", disk=disk) as store:
        send(store, transfer_messages(DATA, size, name="a/b/file"))
        (tmp_path / "a" / "b").rename(tmp_path / "a" / "c")
        disk.flushed.clear()
        send(store, transfer_messages(DATA, size, name="a/c/other"))
        assert {str(tmp_path / "a"), str(tmp_path / "a" / "c")} <= set(disk.flushed)
        (tmp_path / "a").rename(tmp_path / "d")
        disk.flushed.clear()
        send(store, transfer_messages(DATA, size, name="d/c/third"))
        assert {str(tmp_path), str(tmp_path / "d" / "c")} <= set(disk.flushed)


# Flushes of what others published


def stored_without_a_flush(storage: Path) -> None:
    with FileStoreManager(storage, durability="none") as store:
        send(store, transfer_messages(DATA, SEVERAL, name="in/file"))


def died_after_the_rename(storage: Path) -> None:
    *begun, last = transfer_messages(DATA, SEVERAL, name="in/file")
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    store = FileStoreManager(storage, durability="none", disk=disk)
    send(store, begun)
    faults.crash("rename", path="in/file", after=True)
    with pytest.raises(SimulatedCrash):
        store.store_segment(last)
    disk.bury()


before = pytest.mark.parametrize("before", [stored_without_a_flush, died_after_the_rename])


@before
@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
def test_a_published_file_that_cannot_be_opened_for_its_flush_is_not_forgotten(
    tmp_path: Path, before: Any, error: int
) -> None:
    before(tmp_path)
    last = transfer_messages(DATA, SEVERAL, name="in/file")[-1]
    faults = FaultPlan()
    # Once when the store is opened, which settles what it can, and once for the message.
    for nth in (1, 2):
        faults.fail("open", error, path="/in/file", nth=nth)
    with FileStoreManager(tmp_path, durability="segment", disk=FaultyDisk(faults)) as store:
        for _ in range(2):
            try:
                store.store_segment(last)
            except OSError as caught:
                assert caught.errno == error  # noqa: PT017 - it need not be raised
        assert store.store_segment(last).file_result == "store"
        assert published(store) == {"in/file": DATA}
    assert any(fault.done for fault in faults.faults)


@before
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
def test_a_published_file_whose_flush_failed_is_forgotten(tmp_path: Path, before: Any) -> None:
    """The next flush may succeed without what this one lost: its sender begins again."""
    before(tmp_path)
    messages = transfer_messages(DATA, SEVERAL, name="in/file")
    faults = FaultPlan()
    failed = faults.fail("flush_all", errno.EIO, path="/in/file")
    with FileStoreManager(tmp_path, durability="segment", disk=FaultyDisk(faults)) as store:
        if not failed.done:  # when it was opened
            with pytest.raises(OSError, match="Input/output error"):
                store.store_segment(messages[-1])
        assert failed.done
        with pytest.raises(SequenceError) as caught:
            store.store_segment(messages[-1])
        assert caught.value.expected == 1
        assert send(store, messages).file_result == "store"
