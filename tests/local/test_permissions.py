"""A folder that this user may not enter (any more) stops no more than what needs it."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest
from crew import last, segment, staging_files
from support import at_each_level

from txstore import FileStoreManager
from txstore.options import Level
from txstore.testing import FaultPlan, FaultyDisk, SimulatedCrash

pytestmark = pytest.mark.filterwarnings(  # what a dead manager leaves in memory
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def closed_parent() -> FaultyDisk:
    """The disk of a user who may not enter the folder ``sub`` any more."""
    faults = FaultPlan()
    for call in ("stat", "rename", "open", "make_folder"):
        faults.fail(call, errno.EACCES, path="/sub/", forever=True)
    return FaultyDisk(faults)


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since the boot, as a test sets them."""
    found = [10_000.0]
    monkeypatch.setattr(time, "clock_gettime", lambda _clock: found[0])
    return found


@pytest.fixture
def left(tmp_path: Path, ticks: list[float]) -> Path:
    """A store in which a worker died between the intent to publish ``sub/file`` and the rename."""
    assert ticks
    faults = FaultPlan()
    disk = FaultyDisk(faults)
    store = FileStoreManager(tmp_path, durability="none", disk=disk)
    store.store_segment(segment("left", 1, b"a"))
    faults.crash("rename", path="/sub/file")
    with pytest.raises(SimulatedCrash):
        store.store_segment(last("left", 2, b"b", "sub/file", b"ab"))
    disk.bury()
    return tmp_path


@at_each_level
def test_an_intent_below_a_folder_that_may_not_be_entered_is_withdrawn(
    left: Path, level: Level
) -> None:
    with FileStoreManager(left, durability=level, disk=closed_parent()) as store:
        found = store.status("left")
        assert found is not None
        assert (found.segments_received, found.bytes_received) == (1, 1)
        with pytest.raises(PermissionError):
            store.store_segment(last("left", 2, b"b", "sub/file", b"ab"))
        # Another name is free.
        assert store.store_segment(last("left", 2, b"b", "other", b"ab")).file_result == "store"
        assert (left / "other").read_bytes() == b"ab"


@at_each_level
def test_an_intent_below_a_folder_that_may_not_be_entered_can_be_cancelled(
    left: Path, level: Level
) -> None:
    with FileStoreManager(left, durability=level, disk=closed_parent()) as store:
        assert store.cancel("left").segments_received == 1
        assert store.transfers() == []
        assert staging_files(left / ".workdir") == []


@pytest.mark.parametrize("over", [True, False], ids=["over", "young"])
def test_an_intent_that_cannot_be_settled_keeps_nothing_from_being_cleaned_up(
    left: Path, ticks: list[float], over: bool
) -> None:
    """Also where it cannot be withdrawn: its staging file may not be looked at either."""
    if not over:
        ticks[0] = 1000.0  # its own time, which began later, is not over
    disk = closed_parent()
    [name] = staging_files(left / ".workdir")
    disk.faults.fail("stat", errno.EACCES, path=name, forever=True)
    with FileStoreManager(
        left, durability="none", disk=disk, expire_after=100, keep_completed=100
    ) as store:
        store.store_segment(segment("old", 1, b"x"))
        store.store_segment(last("done", 1, b"x", "done", b"x"))
        orphan = left / ".workdir" / "staging" / ("w00-" + "0" * 32)
        orphan.touch()
        for _ in range(3):
            ticks[0] += 200
            store.store_segment(last("busy", 1, b"x", "busy", b"x"))
        assert "old" not in {one.file_id for one in store.transfers()}
        assert store.status("done") is None
        assert not orphan.exists()
