"""``on_exists="refuse"`` after a crash: what was begun to be published is settled as stored, not
refused because of its own file, and comes over nobody else's, whoever settles it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from crash.oracle import broken
from crash.steps import Upload, message, upload
from txstore import FileStoreManager
from txstore.errors import NameTakenError
from txstore.limits import Limits
from txstore.options import Level
from txstore.testing.faults import FaultPlan, SimulatedCrash
from txstore.testing.faulty import FaultyDisk

ONE = upload("one", "sub/same.bin", 1100)
TWO = upload("two", "sub/same.bin", 1100, 1700)
OTHER = upload("other", "sub/same.bin", 900)

LEVELS: tuple[Level, ...] = ("segment", "file", "none")
at_each_level = pytest.mark.parametrize("level", LEVELS)
of_each_kind = pytest.mark.parametrize("what", [ONE, TWO], ids=["in one segment", "in two"])

pytestmark = [
    pytest.mark.promise(5),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of the dead
]


def die(storage: Path, what: Upload, call: str, *, after: bool = False, **options: Any) -> None:
    """A worker dies while it publishes a file."""
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    dying = FileStoreManager(storage, disk=disk, **options)
    for number in range(1, what.last):
        dying.store_segment(message(what, number))
    faults.crash(call, path="same.bin", after=after)
    with pytest.raises(SimulatedCrash):
        dying.store_segment(message(what, what.last))
    disk.bury()


def send_last(store: FileStoreManager, what: Upload) -> str:
    """What becomes of a last message: it is stored, or its name is taken."""
    try:
        answer = store.store_segment(message(what, what.last))
    except NameTakenError:
        return "taken"
    return answer.file_result or ""


@at_each_level
@of_each_kind
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("opened", [False, True], ids=["anew", "already"])
def test_a_file_that_was_cut_off_in_its_publishing_is_stored_and_not_in_its_own_way(
    tmp_path: Path, level: Level, what: Upload, after: bool, opened: bool
) -> None:
    storage = tmp_path / "storage"
    options: Any = {"durability": level, "on_exists": "refuse"}
    early = FileStoreManager(storage, **options) if opened else None
    die(storage, what, "rename", after=after, **options)
    with early or FileStoreManager(storage, **options) as store:
        for _ in range(2):
            if send_last(store, what) != "store":
                raise broken(4, "it is refused because of its own file")
        if send_last(store, OTHER) != "taken":
            raise broken(5, "a file was replaced")
        if (storage / what.name).read_bytes() != what.content:
            raise broken(2, "the file is not whole")
        told = [(event.kind, event.file_id) for event in store.events()]
        if told != [("stored", what.file_id)]:
            raise broken(4, f"its events are {told}")


@at_each_level
@of_each_kind
def test_what_a_dead_worker_was_to_refuse_is_not_replaced_by_who_settles_it(
    tmp_path: Path, level: Level, what: Upload
) -> None:
    """Somebody's file has come under the name, and a worker that replaces files goes on."""
    storage = tmp_path / "storage"
    die(storage, what, "rename", durability=level, on_exists="refuse")
    (storage / what.name).write_bytes(b"somebody's")
    with FileStoreManager(storage, durability=level) as store:
        store.status(what.file_id)
        store.expire()
        if (storage / what.name).read_bytes() != b"somebody's":
            raise broken(5, "an intent that replaces nothing came over a file")
    with FileStoreManager(storage, durability=level, on_exists="refuse") as store:
        assert send_last(store, what) == "taken"


@at_each_level
def test_what_a_dead_worker_was_to_replace_stays_where_nothing_is_replaced(
    tmp_path: Path, level: Level
) -> None:
    storage = tmp_path / "storage"
    with FileStoreManager(storage, durability=level) as store:
        store.store_segment(message(OTHER, 1))
    die(storage, TWO, "rename", durability=level)
    with FileStoreManager(storage, durability=level, on_exists="refuse") as store:
        if send_last(store, TWO) != "taken":
            raise broken(5, "who replaces nothing replaced a file")
        if (storage / TWO.name).read_bytes() != OTHER.content:
            raise broken(5, "who replaces nothing replaced a file")
        (left,) = store.transfers()
        assert left.segments_received == 1
    with FileStoreManager(storage, durability=level) as store:
        assert send_last(store, TWO) == "store"
    assert (storage / TWO.name).read_bytes() == TWO.content


@at_each_level
def test_a_file_in_one_segment_whose_rename_failed_leaves_nothing(
    tmp_path: Path, level: Level
) -> None:
    storage, faults = tmp_path / "storage", FaultPlan()
    disk = FaultyDisk(faults)
    with FileStoreManager(storage, durability=level, on_exists="refuse", disk=disk) as store:
        faults.fail("rename", errno.EIO, path="same.bin")
        with pytest.raises(OSError, match=r"same\.bin"):
            store.store_segment(message(ONE, 1))
        if store.transfers() or os.listdir(storage / ".workdir/staging"):
            raise broken(5, "what failed left something")
        # The id is free for anything.
        begun = upload(ONE.file_id, "other.bin", 10, 20)
        if store.store_segment(message(begun, 1)).segments_received != 1:
            raise broken(5, "what failed left a transfer")
        assert store.store_segment(message(begun, 2)).file_result == "store"


@at_each_level
@pytest.mark.parametrize("end", ["cancel", "other name"])
def test_a_file_in_one_segment_that_was_cut_off_can_be_given_up(
    tmp_path: Path, level: Level, end: str
) -> None:
    storage = tmp_path / "storage"
    with FileStoreManager(storage, durability=level, on_exists="refuse") as store:
        die(storage, ONE, "rename", durability=level, on_exists="refuse")
        # It is no unfinished transfer.
        assert store.transfers() == store.transfers("o") == []
        assert store.count_transfers() == 0
        if end == "cancel":
            assert store.cancel(ONE.file_id).segments_received == 0
        else:
            assert send_last(store, Upload(ONE.file_id, "elsewhere.bin", ONE.parts)) == "store"
        if (storage / ONE.name).exists():
            raise broken(5, "it was stored, which nobody wants any more")
        if os.listdir(storage / ".workdir/staging"):
            raise broken(9, "its bytes stay")
        assert [event.kind for event in store.events()] == ["stored"] * (end != "cancel")


def test_a_file_in_one_segment_that_was_cut_off_counts_for_no_limit(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    limits = Limits(max_transfers=1, max_unfinished_bytes=2000)
    with FileStoreManager(storage, durability="none", limits=limits) as store:
        die(storage, ONE, "rename", durability="none", on_exists="refuse")
        store.store_segment(message(TWO, 1))
        assert [one.file_id for one in store.transfers()] == [TWO.file_id]
        assert store.count_transfers() == 1
        store.status(ONE.file_id)  # which settles it
    assert (storage / ONE.name).read_bytes() == ONE.content
