"""What a call that failed, or a worker that waits, lets go of: descriptors, locks, space."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from crew import last, segment
from support import Booted, at_each_level, descriptors, lock_name, opened_stores

from txstore import FileStoreManager
from txstore.disk import Disk
from txstore.options import Level
from txstore.testing import FaultPlan, FaultyDisk

PART = b"x" * 1000


def staging_descriptors() -> list[str]:
    return [path for path in descriptors() if "/staging/" in path]


def test_going_back_that_fails_leaves_no_descriptor(tmp_path: Path) -> None:
    with FileStoreManager(tmp_path, durability="segment", disk=Booted("one")) as store:
        store.store_segment(segment("one", 1, PART))
    with FileStoreManager(tmp_path, durability="none", disk=Booted("one")) as store:
        store.store_segment(segment("one", 2, b""))
        store.store_segment(segment("one", 3, PART))
    [staged] = (tmp_path / ".workdir" / "staging").iterdir()
    os.truncate(staged, len(PART))  # what a power loss may do to what was not flushed
    faults = FaultPlan()
    with FileStoreManager(tmp_path, durability="segment", disk=FaultyDisk(faults)) as store:
        for call, path in (("pread", "/staging/"), ("statement", "UPDATE transfer")):
            faults.fail(call, path=path, forever=True)
            for _ in range(3):
                with pytest.raises(OSError, match=r"."):
                    store.store_segment(segment("one", 2, PART))
                assert staging_descriptors() == []
            faults.clear()
        assert store.store_segment(segment("one", 2, PART)).segments_received == 2


def test_a_copy_that_cannot_be_made_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileStoreManager(tmp_path, durability="none") as store:
        store.store_segment(segment("one", 1, PART))
    monkeypatch.setattr(os, "geteuid", lambda: 54321)  # another member of a group
    faults = FaultPlan()
    with FileStoreManager(tmp_path, durability="none", disk=FaultyDisk(faults)) as store:
        faults.fail("create", errno.ENOSPC, path="/staging/", forever=True)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                store.store_segment(last("one", 2, PART, "file", PART * 2))
            assert staging_descriptors() == []
        faults.clear()
        assert store.store_segment(last("one", 2, PART, "file", PART * 2)).file_result == "store"


# Locks


class UnlockingDisk(Disk):
    """Fails to let go of a lock once."""

    kind = ""

    def unlock(self, fd: int, byte: int) -> None:
        if self.kind and lock_name(byte).startswith(self.kind):
            self.kind = ""
            raise OSError(errno.EIO, "the lock stays")
        super().unlock(fd, byte)


@pytest.mark.parametrize("kind", ["transfer", "name", "journal"])
def test_a_lock_that_could_not_be_let_go_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    disk = UnlockingDisk()
    with opened_stores(tmp_path) as open_store:
        first, second = open_store("none", disk=disk), open_store("none", lock_timeout=0)
        first.store_segment(segment("one", 1, PART))
        disk.kind = kind
        data = PART * 2
        assert first.store_segment(last("one", 2, PART, "file", data)).file_result == "store"
        assert disk.kind == ""
        # Now the first one is idle, and still open.
        second.store_segment(segment("one", 1, PART))
        assert second.store_segment(last("one", 2, PART, "file", data)).file_result == "store"
        assert first.store_segment(last("one", 2, PART, "file", data)).file_result == "store"


# Space


def removed_bytes(storage: Path) -> int:
    """Bytes of files that were removed, and take space for as long as somebody has them open."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
            if path.startswith(str(storage)) and path.endswith(" (deleted)"):
                total += os.stat(f"/proc/self/fd/{name}").st_size
        except FileNotFoundError:
            continue  # of the listing itself
    return total


@at_each_level
@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_what_another_worker_ended_takes_no_space_in_an_idle_one(
    tmp_path: Path, level: Level, how: str
) -> None:
    """On a full disk that is what it was cancelled for."""
    with opened_stores(tmp_path) as open_store:
        idle, other = open_store(level), open_store(level, expire_after=0)
        for number in (1, 2, 3):
            idle.store_segment(segment("one", number, PART))
        if how == "cancelled":
            assert other.cancel("one").segments_received == 3
        else:
            assert other.expire() == ["one"]
        assert removed_bytes(tmp_path) == 0
        assert idle.store_segment(segment("one", 1, PART)).segments_received == 1
