"""What lies past a transfer's offset means nothing, and gets into no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.oracle import broken
from crash.steps import message, upload
from crash.workloads import FOUR
from txstore import FileStoreManager
from txstore.testing.faults import FaultPlan, SimulatedCrash
from txstore.testing.faulty import FaultyDisk

#: Beyond 256 KiB zeros are written ahead.
LARGE = upload("large", "large.bin", 300_000, 700, 900)


def test_zeros_that_were_written_ahead_are_in_no_file(tmp_path: Path) -> None:
    with FileStoreManager(tmp_path) as store:
        for number in (1, 2):
            store.store_segment(message(LARGE, number))
        [staged] = (tmp_path / ".workdir" / "staging").iterdir()
        assert staged.stat().st_size > len(LARGE.content)
        store.store_segment(message(LARGE, 3))
    if (tmp_path / LARGE.name).read_bytes() != LARGE.content:
        raise broken(2, "the file ends with what was written ahead")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the dead
def test_what_a_dead_worker_left_is_cut_before_the_next_segment(tmp_path: Path) -> None:
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    dying = FileStoreManager(tmp_path, disk=disk)
    dying.store_segment(message(FOUR, 1))
    faults.crash("pwrite", path="/staging/", after=True)
    with pytest.raises(SimulatedCrash):
        dying.store_segment(message(FOUR, 2))
    disk.bury()
    with FileStoreManager(tmp_path) as store:
        store.store_segment(message(FOUR, 2, b"short"))
        [staged] = (tmp_path / ".workdir" / "staging").iterdir()
        if staged.read_bytes() != FOUR.parts[0] + b"short":
            raise broken(3, "bytes of a dead worker lie behind the next segment")
