"""Housekeeping keeps up with any rate of work, and costs an answer little."""

from __future__ import annotations

from pathlib import Path

import pytest
from crew import cancel, last, segment, staging_files
from seam import WatchedDisk
from support import journal

from txstore import FileStoreManager

#: Seconds that nothing is kept longer than, and between two messages: 1,000 a second.
LIFETIME, STEP = 1.0, 0.001


@pytest.mark.parametrize("managers", [1, 3])
def test_completions_of_a_thousand_files_a_second_stay_bounded(
    tmp_path: Path, ticks: list[float], managers: int
) -> None:
    stores = [
        FileStoreManager(tmp_path, durability="none", keep_completed=LIFETIME)
        for _ in range(managers)
    ]
    for number in range(2500):
        ticks[0] += STEP
        store = stores[number % managers]
        store.store_segment(last(f"one{number}", 1, b"x", "one", b"x"))
        if number % 500 == 499:
            # Those of the lifetime, of the tenth of it between two slices, and one slice.
            kept = len(journal(store.working_dir)["completion"])
            assert kept <= 1000 + 100 + 32, f"promise 9: {kept} completions at file {number}"
    for store in stores:
        store.close()


def test_transfers_abandoned_a_thousand_a_second_stay_bounded(
    tmp_path: Path, ticks: list[float]
) -> None:
    with FileStoreManager(tmp_path, durability="none", expire_after=LIFETIME) as store:
        store.store_segment(segment("kept", 1, b"x"))
        for number in range(2500):
            ticks[0] += STEP
            store.store_segment(segment(f"one{number}", 1, b"x"))
            if number % 500 == 499:
                assert store.store_segment(segment("kept", 1, b"x")).segments_received == 1
                assert len(store.transfers()) <= 1000 + 200 + 32, number
        assert len(staging_files(tmp_path / ".workdir")) == len(store.transfers())


def test_backlog_goes_answer_by_answer_without_waiting(tmp_path: Path, ticks: list[float]) -> None:
    with FileStoreManager(tmp_path, durability="none", keep_completed=60.0) as store:
        for number in range(160):
            store.store_segment(last(f"one{number}", 1, b"x", "one", b"x"))
        ticks[0] += 60.0
        for left in range(128, -1, -32):
            store.store_segment(cancel("nothing"))
            assert len(journal(store.working_dir)["completion"]) == left


def test_forgetting_is_one_statement_for_all(tmp_path: Path, ticks: list[float]) -> None:
    class Counting(WatchedDisk):
        deletes = 0

        def before(self, operation: str, *facts: object) -> None:
            if operation == "sql" and str(facts[0]).startswith("DELETE FROM completion"):
                self.deletes += 1

    disk = Counting()
    with FileStoreManager(tmp_path, durability="none", keep_completed=60.0, disk=disk) as store:
        for number in range(320):
            store.store_segment(last(f"one{number}", 1, b"x", "one", b"x"))
        ticks[0] += 60.0
        store.expire()
        assert disk.deletes == 1
        assert journal(store.working_dir)["completion"] == []


def test_slice_drops_abandoned_transfers_with_one_flush(tmp_path: Path, ticks: list[float]) -> None:
    class Counting(WatchedDisk):
        flushes = 0

        def before(self, operation: str, *_: object) -> None:
            self.flushes += operation == "flush"

    disk = Counting()
    with FileStoreManager(tmp_path, expire_after=60.0, disk=disk) as store:
        for number in range(32):
            store.store_segment(segment(f"one{number}", 1, b"x"))
        ticks[0] += 60.0
        before = disk.flushes
        assert len(store.expire()) == 32
        assert disk.flushes == before + 1
